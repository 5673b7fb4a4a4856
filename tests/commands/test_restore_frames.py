"""Animated pictures and files with several pages in `bir restore`."""

import numpy as np
import pytest
from command_line import run_here, save_small_model
from PIL import Image

from bir_core.errors import BIRError
from bir_core.pictures.files import read_picture

FRAMES = [np.full((6, 8, 3), level, np.uint8) for level in (200, 90, 10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model") / "x1.safetensors")


def save(path, count=3):
    first, *others = map(Image.fromarray, FRAMES[:count])
    more = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, **more)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_the_first_of_several(model, tmp_path, name):
    if name.endswith("tif"):
        pytest.importorskip("pyvips")
    path, plain = save(tmp_path / name), save(tmp_path / f"plain_{name}", 1)
    refused = run_here("restore", path, "--model", model)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "holds 3 frames or pages; restore the first one by --first-frame" in refused.stderr
    done = run_here("restore", path, "--model", model, "--first-frame")
    assert done.returncode == 0, done.stderr
    assert "(left out: frames or pages after the first: 2)" in done.stdout
    assert run_here("restore", plain, "--model", model).returncode == 0
    got, expected = (
        read_picture(tmp_path / f"{stem}_restored{path.suffix}").image for stem in ("a", "plain_a")
    )
    assert got.equal(expected)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_reading(tmp_path, name):
    if name.endswith("tif"):
        pytest.importorskip("pyvips")
    path = save(tmp_path / name)
    with pytest.raises(BIRError, match=r"3 frames or pages; split it into single pictures first\."):
        read_picture(path)
    image = read_picture(path, first_frame=True).image
    assert image.unique().mul(255).round().tolist() == [200]


def test_one_never_ends_a_folder(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, count in (("a.png", 1), ("b.webp", 3), ("c.png", 3), ("d.png", 1)):
        save(folder / name, count)
    done = run_here("restore", folder, tmp_path / "out", "--model", model)
    assert done.returncode == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "d.png"]
    assert done.stderr.count("by --first-frame") == 2
    options = ("--model", model, "--first-frame", "--resume")
    done = run_here("restore", folder, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 4
