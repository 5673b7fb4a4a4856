"""`bir restore --old-photo`: scratches, fading, then what --auto chooses."""

from functools import cache, partial

import pytest
import torch
from command_line import run_here
from estimates import classical
from PIL import Image
from torch.nn import functional as F

from bir_core.checkpoints import load_model
from bir_core.choosing import carry_out, choose
from bir_core.commands import restore_old_photo
from bir_core.old_photo import mend
from bir_core.pictures.files import Picture, read_picture, write_picture


@pytest.fixture(autouse=True)
def without_estimator(monkeypatch):
    """What is chosen here does not depend on how well the network is trained."""
    monkeypatch.setattr("bir_core.commands.restore_auto.estimate", classical)


def photo(height=96, width=560):
    small = torch.rand(1, 3, height // 12, width // 12, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    image[..., :2, :20], image[..., -2:, -20:] = 0, 1
    return (image * 255).round() / 255


def scan(noise=12):
    """Faded and noisy, with two scratches, and where they are."""
    mask = torch.zeros(1, 1, 96, 560)
    mask[..., 20:90, 200:203], mask[..., 50:52, 30:400] = 1, 1
    image = torch.where(mask > 0, torch.ones(()), 0.2 + 0.6 * photo())
    grain = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)) * noise / 255
    return ((image + grain).clamp(0, 1) * 255).round() / 255, mask


@pytest.fixture
def files(tmp_path):
    image, mask = scan()
    write_picture(tmp_path / "old.png", Picture(image))
    write_picture(tmp_path / "mask.png", Picture(mask.expand(-1, 3, -1, -1)))
    return tmp_path


def restored(folder, *more, name="new.png"):
    ran = run_here("restore", folder / "old.png", folder / name, "--old-photo", *more)
    assert ran.returncode == 0, ran.stderr
    return read_picture(folder / name).image, ran.stdout.splitlines()


def test_it_is_the_chain_of_the_package(files):
    image, lines = restored(files, "--mask", files / "mask.png", "--seed", 3)
    source, mask = read_picture(files / "old.png").image, scan()[1]
    load = cache(load_model)
    mended = mend(source, load, mask=mask, seed=3)
    choice = choose(classical(mended.image), 96, 560)
    assert not choice.is_nothing
    expected = carry_out(mended.image, choice, load, seed=3)
    assert (image - expected).abs().max() <= 0.51 / 255
    assert [line.strip() for line in lines[1:]] == [*mended.words, *choice.reasons]


@pytest.mark.parametrize("step", ["scratches", "levels", "clean"])
def test_every_step_can_be_left_out(files, step):
    mask = ("--mask", files / "mask.png")
    image, _ = restored(files, *mask, name="all.png")
    other, _ = restored(files, *(() if step == "scratches" else mask), "--without", step)
    assert image.shape == other.shape and not torch.allclose(image, other, atol=2 / 255)


def test_enlarging_can_be_left_out(files):
    image, _ = restored(files, "--without", "scratches", "--scale", 2, name="large.png")
    other, _ = restored(files, "--without", "scratches", "--without", "enlarge")
    assert (image.shape[-1], other.shape[-1]) == (1120, 560)


def test_the_tone_can_be_left(tmp_path):
    grey = photo().mean(1, keepdim=True)
    toned = grey ** torch.tensor([0.8, 1.0, 1.3]).view(3, 1, 1)
    write_picture(tmp_path / "old.png", Picture(0.2 + 0.6 * toned))
    without = ("--without", "scratches", "--without", "clean")
    image, _ = restored(tmp_path, *without, name="grey.png")
    other, _ = restored(tmp_path, *without, "--without", "tone")
    spread = [float((each.amax(1) - each.amin(1)).mean()) for each in (image, other)]
    assert spread[0] < 0.2 * spread[1]


def test_a_picture_that_needs_nothing_keeps_its_bytes(tmp_path):
    write_picture(tmp_path / "old.png", Picture(photo()))
    without = ("--without", "scratches")
    _, lines = restored(tmp_path, *without)
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "old.png").read_bytes()
    assert "unchanged, the same bytes" in lines[0]
    assert any("levels as they were" in line for line in lines)


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bit", "one pixel"])
def test_all_kinds_of_pictures(tmp_path, kind):
    image = scan()[0]
    if kind == "one pixel":
        write_picture(tmp_path / "old.png", Picture(image[..., :1, :1]))
    elif kind == "alpha":
        alpha = torch.ones(1, 1, 96, 560)
        alpha[..., :30, :] = 0
        write_picture(tmp_path / "old.png", Picture(image, alpha=alpha))
    elif kind == "16 bit":
        write_picture(tmp_path / "old.png", Picture(image, bits=16))
    else:
        grey = (image.mean(1) * 255).round().byte()[0].numpy()
        Image.fromarray(grey).save(tmp_path / "old.png")
    ran = run_here("restore", tmp_path / "old.png", tmp_path / "new.png", "--old-photo")
    assert ran.returncode == 0, ran.stderr
    before, after = read_picture(tmp_path / "old.png"), read_picture(tmp_path / "new.png")
    assert after.bits == before.bits and after.is_grey == before.is_grey
    assert (after.alpha is None) == (before.alpha is None)


def test_a_folder_with_masks(files):
    (files / "scans").mkdir(), (files / "masks").mkdir()
    (files / "old.png").rename(files / "scans" / "a.png")
    (files / "mask.png").rename(files / "masks" / "a.png")
    ran = run_here(
        "restore", files / "scans", files / "new", "--old-photo", "--mask", files / "masks"
    )
    assert ran.returncode == 0 and "filled what the mask says" in ran.stdout
    assert (files / "new" / "a.png").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--model", "builtin-x1"), "--old-photo without --model"),
        (("--method", "compact"), "Expected --old-photo to choose the method"),
        (("--painted", "keep"), "--old-photo without --painted"),
        (("--scale", 2, "--without", "enlarge"), "either --scale or --without enlarge"),
        (("--mask", "m.png", "--without", "scratches"), "either --mask or --without scratches"),
        (("--method", "diffbir", "--without", "clean"), "either --method or --without clean"),
        (("--steps", 5), "--method diffbir for --old-photo"),
    ],
)
def test_contradictions_are_said(files, more, words):
    ran = run_here("restore", files / "old.png", files / "new.png", "--old-photo", *more)
    assert ran.returncode == 2 and words in ran.stderr
    assert not (files / "new.png").exists()


def test_steps_alone_are_refused(files):
    ran = run_here("restore", files / "old.png", files / "new.png", "--without", "levels")
    assert ran.returncode == 2 and "--old-photo with --without" in ran.stderr


def test_diffbir_comes_with_a_gpu_and_its_files_and_faces_with_theirs(tmp_path, monkeypatch):
    values = {"method": None, "task": None, "without": [], "device": "auto", "version": None}
    chosen = partial(restore_old_photo.with_diffbir, models=tmp_path)
    device = torch.device("cuda")
    monkeypatch.setattr(restore_old_photo, "choose_device", lambda name: device)
    monkeypatch.setattr(restore_old_photo, "_has_files", lambda values, models: False)
    assert chosen(values)["method"] is None
    monkeypatch.setattr(restore_old_photo, "_has_files", lambda values, models: True)
    assert chosen(values)["method"] == "diffbir" and chosen(values)["task"] is None
    assert chosen({**values, "without": ["clean"]})["method"] is None
    monkeypatch.setattr(restore_old_photo, "has_face_files", lambda version, models: True)
    assert chosen(values)["task"] == "unaligned_face"
    assert chosen({**values, "without": ["faces"]})["task"] is None
    assert chosen({**values, "task": "sr"})["task"] == "sr"
    device = torch.device("cpu")
    assert chosen(values)["method"] is None  # hours for a picture
    assert chosen({**values, "method": "diffbir"})["task"] == "unaligned_face"
