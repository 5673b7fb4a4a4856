"""`bir restore --auto`: what needs nothing keeps its bytes, the rest is restored as chosen."""

from functools import cache

import numpy as np
import pytest
import torch
from command_line import run_here
from estimates import classical
from PIL import Image

from bir_core.checkpoints import load_model
from bir_core.choosing import carry_out, choose
from bir_core.pictures.files import Picture, read_picture, write_picture


@pytest.fixture(autouse=True)
def without_estimator(monkeypatch):
    """What is chosen here does not depend on how well the network is trained."""
    monkeypatch.setattr("bir_core.commands.restore_auto.estimate", classical)


def photo(height=120, width=640):
    """Smooth shapes with sharp edges, (1, 3, H, W) in steps of 8 bit: nothing is wrong with it."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([(rows / 9).sin(), (columns / 13).cos(), ((rows + columns) / 17).sin()])
    edges = ((rows // 40 + columns // 50) % 2) * 0.4
    return ((waves * 0.2 + 0.3 + edges).clamp(0, 1) * 255).round()[None] / 255


def noisy(image, sigma=20.0, seed=0):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)) * sigma / 255
    return ((image + noise).clamp(0, 1) * 255).round() / 255


def auto(*arguments):
    return run_here("restore", *arguments, "--auto")


def test_the_bytes_stay_where_nothing_is_wrong(tmp_path):
    write_picture(tmp_path / "in.png", Picture(photo()))
    ran = auto(tmp_path / "in.png", tmp_path / "out.png")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "in.png").read_bytes()
    first, reason = ran.stdout.splitlines()
    assert first.endswith("out.png  640x120  unchanged, the same bytes")
    assert reason.startswith("  nothing to do")


@pytest.mark.parametrize("seed, scale", [(0, None), (7, 2)])
def test_a_damaged_one_is_restored_as_chosen(tmp_path, seed, scale):
    source = tmp_path / "in.png"
    write_picture(source, Picture(noisy(photo())))
    more = () if scale is None else ("--scale", scale)
    ran = auto(source, tmp_path / "out.png", "--seed", seed, *more)
    assert ran.returncode == 0, ran.stderr
    image = read_picture(source).image
    choice = choose(classical(image), 120, 640, scale=scale)
    expected = carry_out(image, choice, cache(load_model), seed=seed)
    assert (read_picture(tmp_path / "out.png").image - expected).abs().max() <= 0.51 / 255
    assert "  damaged by noise of" in ran.stdout and f"  {choice.model}: " in ran.stdout
    assert f"640x120 -> {640 * (scale or 1)}x{120 * (scale or 1)}" in ran.stdout


def test_a_folder_of_all_kinds(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    clean, damaged = photo(), noisy(photo())
    alpha = torch.linspace(0, 1, 640).expand(1, 1, 120, 640).mul(255).round() / 255
    grey = clean[:, :1].expand(1, 3, 120, 640)
    pictures = {
        "clean.png": Picture(clean),
        "clean16.tif": Picture(clean, bits=16),
        "clean_grey.png": Picture(grey, is_grey=True),
        "clean_alpha.png": Picture(clean, alpha=alpha),
        "deep/noisy16.tif": Picture(damaged, bits=16),
        "noisy_grey.png": Picture(noisy(grey)[:, :1].expand(1, 3, 120, 640), is_grey=True),
        "noisy_alpha.png": Picture(damaged, alpha=alpha),
        "pixel.png": Picture(clean[..., :1, :1]),
    }
    for name, picture in pictures.items():
        write_picture(folder / name, picture)
    Image.fromarray((clean[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
        folder / "low.jpg", quality=30
    )
    ran = auto(folder, tmp_path / "out", "--recursive")
    assert ran.returncode == 0, ran.stderr
    for name, picture in pictures.items():
        got, out = read_picture(tmp_path / "out" / name), tmp_path / "out" / name
        assert (got.is_grey, got.bits) == (picture.is_grey, picture.bits), name
        assert (got.alpha is None) == (picture.alpha is None), name
        same = out.read_bytes() == (folder / name).read_bytes()
        assert same == name.startswith("clean"), name
    assert read_picture(tmp_path / "out" / "pixel.png").image.shape == (1, 3, 4, 4)
    assert "damaged by JPEG of quality 30" in ran.stdout


def test_another_format_or_bits_are_given_and_said(tmp_path):
    write_picture(tmp_path / "in.png", Picture(photo()))
    ran = auto(tmp_path / "in.png", tmp_path / "out.tif", "--bits", 16)
    assert ran.returncode == 0 and "unchanged, saved as 16-bit TIFF" in ran.stdout
    got = read_picture(tmp_path / "out.tif")
    assert got.bits == 16 and (got.image - photo()).abs().max() <= 0.51 / 65535
    ran = auto(tmp_path / "in.png", tmp_path / "eight.png", "--bits", 8)
    assert "the same bytes" in ran.stdout
    # What the content is counts, not the name.
    (tmp_path / "named.png").write_bytes((tmp_path / "out.tif").read_bytes())
    ran = auto(tmp_path / "named.png", tmp_path / "true.png")
    assert "saved as 16-bit PNG" in ran.stdout


def test_of_several_frames_the_first(tmp_path):
    frames = [
        Image.fromarray((each[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        for each in (photo(), photo() * 0.5)
    ]
    frames[0].save(tmp_path / "in.tif", save_all=True, append_images=frames[1:])
    ran = auto(tmp_path / "in.tif", tmp_path / "out.tif", "--first-frame")
    assert ran.returncode == 0 and "unchanged, saved as 8-bit TIFF" in ran.stdout
    assert (read_picture(tmp_path / "out.tif").image - photo()).abs().max() <= 0.51 / 255


def test_resume_and_overwrite(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_picture(folder / name, Picture(photo()))
    assert auto(folder, tmp_path / "out").returncode == 0
    assert auto(folder, tmp_path / "out").returncode != 0
    (tmp_path / "out" / "b.png").unlink()
    ran = auto(folder, tmp_path / "out", "--resume")
    assert "1 of 2 pictures are restored already" in ran.stdout and "b.png" in ran.stdout
    assert auto(folder, tmp_path / "out", "--overwrite").stdout.count("the same bytes") == 2


def test_a_broken_picture_is_named_and_left_out(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_picture(folder / "a.png", Picture(photo()))
    (folder / "b.png").write_bytes(b"no picture")
    ran = auto(folder, tmp_path / "out")
    assert ran.returncode == 2 and "b.png" in ran.stderr and (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize(
    "more, sentence",
    [
        (("--auto", "--model", "builtin-x1"), "--auto without --model"),
        (("--auto", "--mask", "mask.png"), "--auto without --mask"),
        (("--auto", "--method", "compact"), "--auto to choose the method"),
        (("--auto", "--task", "sr"), "--method diffbir for --auto with --task"),
        (("--auto", "--try-crop", "0,0"), "--auto without --try-crop"),
        (
            ("--auto", "--method", "diffbir", "--scale", 2, "--upscale", 2),
            "which mean the same with --auto",
        ),
        (("--auto", "--method", "diffbir", "--upscale", 0.5), "--upscale of 1 or more"),
        (("--scale", 2), "--auto or --old-photo with --scale"),
    ],
)
def test_contradictions(tmp_path, more, sentence):
    ran = run_here("restore", tmp_path / "in.png", *more)
    assert ran.returncode == 2 and sentence in ran.stderr


def test_the_network_that_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.undo()
    write_picture(tmp_path / "in.png", Picture(noisy(photo())))
    ran = auto(tmp_path / "in.png", tmp_path / "out.png")
    assert ran.returncode == 0 and "damaged by noise of" in ran.stdout


@pytest.mark.parametrize("scale", ["0.5", "nan", "inf", "two"])
def test_impossible_scales(tmp_path, scale):
    with pytest.raises(SystemExit):
        run_here("restore", tmp_path / "in.png", "--auto", "--scale", scale)


def test_replaced_between_reading_and_writing(tmp_path, monkeypatch):
    """A file that appears while the picture is looked at is kept."""
    write_picture(tmp_path / "in.png", Picture(photo()))
    target = tmp_path / "out.png"

    def copy(source, temporary):
        target.write_bytes(b"of somebody else")

    monkeypatch.setattr("bir_core.commands.restore_one.shutil.copyfile", copy)
    ran = auto(tmp_path / "in.png", target)
    assert ran.returncode != 0 and target.read_bytes() == b"of somebody else"
