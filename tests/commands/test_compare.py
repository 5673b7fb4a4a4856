"""`bir compare`: the sheet, the numbers, and what is refused."""

import pytest
import torch
from metric_weights import write_distances

from bir_core.cli import main
from bir_core.images import resize
from bir_core.metrics import psnr
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.pictures.sheets import LABEL_HEIGHT, MARGIN


def make(path, height=64, width=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255
    write_picture(path, Picture(image))
    return path


@pytest.fixture
def three(tmp_path):
    return [make(tmp_path / f"{name}.png", seed=index) for index, name in enumerate("abc")]


def compare(*words):
    return main(["compare", *map(str, words)])


def test_the_first_is_what_the_others_are_compared_with(three, tmp_path, capsys):
    assert compare(*three, tmp_path / "sheet.png", "--metric-weights", tmp_path) == 0
    text = capsys.readouterr().out
    images = [read_picture(path).image for path in three]
    for path, image in zip(three[1:], images[1:], strict=True):
        value = psnr(image, images[0], channel="y").item()
        assert f"| {path.name} | {value:.2f} |" in text
    assert "| a.png |" not in text and "against a.png" in text
    assert "LPIPS not measured" in text and "bir weights measures" in text
    sheet = read_picture(tmp_path / "sheet.png").image
    assert sheet.shape[-1] == 3 * 400 + 4 * MARGIN
    top = MARGIN + LABEL_HEIGHT
    for index, image in enumerate(images):
        left = MARGIN + index * (400 + MARGIN)
        shown = sheet[..., top : top + 64, left : left + 400]
        assert (shown == image).float().mean() > 0.9  # all but the frame of the detail


def test_a_reference_comes_last(three, tmp_path, capsys):
    write_distances(tmp_path)
    lq = make(tmp_path / "lq.png", 16, 100)
    sheet = tmp_path / "sheet.png"
    words = (*three[:2], sheet, "--reference", three[2], "--lq", lq, "--tile", 32)
    assert compare(*words, "--metric-weights", tmp_path, "--detail", "200,0,40x10") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("| a.png |", "| b.png |", "against c.png"))
    assert all(name in text for name in ("LPIPS", "colour drift", "seams", "consistency dB"))
    assert "not measured" not in text
    detail = read_picture(three[2]).image[..., :10, 200:240]
    shown = read_picture(sheet).image[..., MARGIN * 2 + LABEL_HEIGHT + 64 :, :]
    shown = shown[..., :100, MARGIN + 2 * (400 + MARGIN) :][..., :400]
    similar = psnr(resize(shown, 10, 40, "area"), resize(detail, 10, 40)).item()
    assert similar > 15  # another part has 8


def test_one_of_another_size_is_resized(three, tmp_path, capsys):
    small = make(tmp_path / "small.png", 16, 100)
    assert compare(three[0], small, tmp_path / "sheet.png", "--metric-weights", tmp_path) == 0
    enlarged = resize(read_picture(small).image, 64, 400).clamp(0, 1)
    rounded = (enlarged * 255).round() / 255
    value = psnr(rounded, read_picture(three[0]).image, channel="y").item()
    assert f"| small.png | {value:.2f} |" in capsys.readouterr().out


def test_border_counts(three, tmp_path, capsys):
    compare(*three[:2], tmp_path / "a_sheet.png", "--border", 9)
    image, other = (read_picture(path).image for path in three[:2])
    value = psnr(other, image, channel="y", border=9).item()
    assert f"| b.png | {value:.2f} |" in capsys.readouterr().out


def test_what_is_refused(three, tmp_path, capsys):
    tall = make(tmp_path / "tall.png", 64, 64)
    sheet = make(tmp_path / "sheet.png")
    new = tmp_path / "new.png"
    for words, part in (
        ((three[0], new), "name the sheet last"),
        ((three[0], three[1]), "name the sheet last"),
        ((*three[:2], sheet), "exists"),
        ((*three[:2], three[1], "--overwrite"), "inputs are never replaced"),
        ((three[0], tall, new), "proportions"),
        ((three[0], tmp_path / "absent.png", new), "found nothing"),
        ((*three[:2], new, "--detail", "390,0,20x20"), "ends at 410"),
        ((*three[:2], new, "--tile", "16", "--overlap", "16"), "overlap"),
    ):
        assert compare(*words) == 2
        assert part in capsys.readouterr().err
    assert not new.exists()
    for words in (("--detail", "1,2,3"), ("--detail", "1,2,0x3")):
        with pytest.raises(SystemExit):
            compare(*three[:2], new, *words)


def test_overwrite(three, tmp_path):
    sheet = make(tmp_path / "sheet.png")
    assert compare(three[0], three[0], sheet, "--overwrite") == 0
    assert read_picture(sheet).image.shape[-1] == 2 * 400 + 3 * MARGIN
