import numpy as np
import pytest
import torch
from command_line import run_here
from finders import save_bright_finder
from PIL import Image

from bir_core.pictures.files import read_picture


@pytest.fixture
def model(tmp_path):
    return save_bright_finder(tmp_path / "finder.safetensors")


def make_scan(path, mode="RGB", size=(40, 30)):
    """Dark, with a white line in column 10."""
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    pixels[:, 10] = 255
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def find(*arguments):
    return run_here("scratches", *arguments, "--device", "cpu")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_mask_is_white_in_the_damage(tmp_path, model, mode):
    scan = make_scan(tmp_path / "scan.png", mode)
    done = find(scan, tmp_path / "mask.png", "--model", model, "--grow", "0")
    assert done.returncode == 0, done.stderr
    assert "mask.png  2.50% damaged" in done.stdout
    mask = read_picture(tmp_path / "mask.png")
    assert mask.is_grey and mask.alpha is None
    expected = torch.zeros(30, 40)
    expected[:, 10] = 1
    assert torch.equal(mask.image[0, 0], expected)


def test_it_grows_by_two_pixels_if_not_told_otherwise(tmp_path, model):
    scan = make_scan(tmp_path / "scan.png")
    assert find(scan, tmp_path / "m.png", "--model", model).returncode == 0
    columns = read_picture(tmp_path / "m.png").image[0, 0, 15].nonzero().flatten().tolist()
    assert columns == [8, 9, 10, 11, 12]


def test_a_threshold_decides(tmp_path, model):
    scan = make_scan(tmp_path / "scan.png")
    options = ("--model", model, "--grow", "0", "--overwrite")
    for threshold, found in (("0.5", True), ("1", False)):
        assert find(scan, tmp_path / "m.png", *options, "--threshold", threshold).returncode == 0
        # White has a probability of 1 - e^-10.
        assert bool(read_picture(tmp_path / "m.png").image.any()) == found


def test_a_folder_gives_a_folder_and_previews(tmp_path, model):
    (tmp_path / "scans").mkdir()
    for name in ("a.png", "b.jpg"):
        make_scan(tmp_path / "scans" / name)
    (tmp_path / "scans" / "c.png").write_text("no picture")
    masks, previews = tmp_path / "masks", tmp_path / "previews"
    done = find(tmp_path / "scans", masks, "--preview", previews, "--model", model)
    assert done.returncode == 2 and "c.png" in done.stderr
    for folder in (masks, previews):
        assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    red, green, _ = read_picture(previews / "a.png").image[0, :, 5, 10].tolist()
    assert red > 0.9 and green < 0.5
    untouched = read_picture(previews / "a.png").image[0, :, 5, 30]
    assert torch.equal(untouched, read_picture(tmp_path / "scans" / "a.png").image[0, :, 5, 30])


def test_the_mask_can_be_given_to_what_fills_holes(tmp_path, model):
    scan = make_scan(tmp_path / "scan.png")
    find(scan, tmp_path / "m.png", "--model", model)
    from command_line import save_small_model

    inpainting = save_small_model(tmp_path / "inpainting.safetensors", task="inpainting")
    options = ("--mask", tmp_path / "m.png", "--model", inpainting, "--device", "cpu")
    done = run_here("restore", scan, tmp_path / "out.png", *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("--threshold", "0"), "threshold above 0"),
        (("--grow", "-1"), "0 or more pixels to grow by"),
        (("--model", "builtin-x1"), "finder of scratches"),
        (("--preview", "{mask}"), "place of their own for the previews"),
    ],
)
def test_wrong_options_end_in_a_sentence(tmp_path, model, options, sentence):
    scan, mask = make_scan(tmp_path / "scan.png"), tmp_path / "m.png"
    options = [each.format(mask=mask) for each in options]
    done = find(scan, mask, "--model", model, *options)
    assert done.returncode == 2 and sentence in done.stderr
    assert not mask.exists()


def test_files_are_not_replaced_unasked(tmp_path, model):
    scan, mask = make_scan(tmp_path / "scan.png"), make_scan(tmp_path / "m.png")
    assert find(scan, mask, "--model", model).returncode == 2
    assert find(scan, scan, "--model", model, "--overwrite").returncode == 2
    assert find(scan, mask, "--model", model, "--overwrite").returncode == 0


def test_the_network_of_the_package_is_the_default(tmp_path):
    scan = make_scan(tmp_path / "scan.png")
    assert find(scan, tmp_path / "m.png").returncode == 0
    assert find(scan, tmp_path / "n.png", "--model", "builtin-scratches").returncode == 0
    assert (tmp_path / "m.png").read_bytes() == (tmp_path / "n.png").read_bytes()
