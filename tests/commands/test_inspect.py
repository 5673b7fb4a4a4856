"""`bir inspect` of pictures; of checkpoints see `test_restore`."""

import json

import numpy as np
import pytest
from command_line import run_here
from PIL import Image

KEYS = ("blur_sigma", "noise_sigma", "jpeg_quality", "enlargement", "sharpness", "grey", "contrast")


@pytest.fixture(scope="module")
def picture():
    """A soft picture with some noise."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((320, 240), Image.Resampling.BICUBIC)).astype(float)
    noisy = soft + random.normal(0, 20, soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def test_a_picture_in_numbers(picture, tmp_path):
    picture.save(tmp_path / "photo.jpg", quality=35)
    done = run_here("inspect", tmp_path / "photo.jpg", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads(done.stdout)
    assert all(name in numbers and f"{name}_spread" in numbers for name in KEYS)
    assert numbers["jpeg_quality"] == 35 and numbers["jpeg_quality_spread"] == 0


def test_noise_is_found_and_the_format_is_known_by_the_content(picture, tmp_path):
    picture.save(tmp_path / "photo", "PNG")
    done = run_here("inspect", tmp_path / "photo", "--json")
    numbers = json.loads(done.stdout)
    assert numbers["noise_sigma"] == pytest.approx(20, abs=5)
    assert numbers["jpeg_quality"] is None and numbers["noise_grey"] < 0.5
    assert run_here("inspect", tmp_path / "photo", "--json").stdout == done.stdout


def test_a_picture_in_words(picture, tmp_path):
    picture.convert("L").save(tmp_path / "photo.tif.jpg", quality=80)
    done = run_here("inspect", tmp_path / "photo.tif.jpg")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    starts = ("blur:", "noise:", "JPEG:", "enlarged:", "edges:", "colours:", "contrast:")
    assert len(lines) == 7 and all(map(str.startswith, lines, starts))
    assert "80 (give or take 0) by the tables of the file" in lines[2]
    assert "the picture is grey" in lines[5]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (700, 3)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_pictures_of_all_kinds(size, mode, tmp_path):
    Image.new(mode, size).save(tmp_path / "photo.png")
    assert run_here("inspect", tmp_path / "photo.png").returncode == 0


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff not a picture"])
def test_what_is_no_picture_ends_in_a_sentence(content, tmp_path):
    if content is not None:
        (tmp_path / "photo.jpg").write_bytes(content)
    done = run_here("inspect", tmp_path / "photo.jpg")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "picture" in done.stderr
