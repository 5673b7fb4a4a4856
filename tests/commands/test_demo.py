import re
import sys

import pytest
import torch
from command_line import ROOT, save_small_model
from progress import run
from torch.nn import functional as F

from bir_core.checkpoints import load_model
from bir_core.cli import main
from bir_core.commands import demo
from bir_core.errors import BIRError
from bir_core.metrics import psnr, ssim
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.pictures.sheets import LABEL_HEIGHT, MARGIN


def soft_photograph(height, width, seed=0):
    """Random and smooth enough to survive a quarter of the size."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.fixture
def small_model(tmp_path, monkeypatch):
    """A small random model in the place of the built-in one."""
    path = save_small_model(tmp_path / "model.safetensors", scale=4)
    monkeypatch.setattr(demo, "DEFAULT_MODEL", path)
    return path


def run_demo(*arguments):
    return main(["demo", *map(str, arguments)])


def test_files_and_numbers(small_model, tmp_path, capsys):
    photograph = soft_photograph(83, 102)
    write_picture(tmp_path / "in.png", Picture(photograph))
    output = tmp_path / "made" / "here"
    arguments = ("--picture", tmp_path / "in.png", "--output", output)
    assert run_demo(*arguments) == 0
    text = capsys.readouterr().out
    degraded = read_picture(output / "degraded.png").image
    restored = read_picture(output / "restored.png").image
    assert degraded.shape == (1, 3, 20, 25)
    assert restored.shape == (1, 3, 80, 100)
    original = read_picture(tmp_path / "in.png").image[..., :80, :100]
    bicubic = F.interpolate(degraded, (80, 100), mode="bicubic", antialias=True).clamp(0, 1)
    for row, image in (("before", bicubic), ("after", restored)):
        decibel, similarity = map(float, re.search(rf"{row} +([\d.]+) dB +([\d.]+)", text).groups())
        # The files are rounded to 8 bits, the printed values are not.
        assert psnr(image, original, channel="y", border=4).item() == pytest.approx(
            decibel, abs=0.05
        )
        expected = ssim(image, original, channel="y", border=4).item()
        assert expected == pytest.approx(similarity, abs=0.005)

    comparison = read_picture(output / "comparison.png").image
    assert comparison.shape[-1] == 3 * 100 + 4 * MARGIN
    top, left = MARGIN + LABEL_HEIGHT, 2 * MARGIN + 100
    shown = comparison[..., top : top + 80, left : left + 100]
    assert (shown == restored).float().mean() > 0.9  # all but the frame of the detail
    assert not torch.equal(shown, restored)

    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert run_demo(*arguments) == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first


def test_built_in_model_gains_on_the_bundled_photograph(tmp_path):
    """What `make demo` runs."""
    pytest.importorskip("skimage")
    arguments = [sys.executable, "-m", "bir_core.demo", "--output", str(tmp_path / "out")]
    done = run(arguments, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    before, after = (
        float(re.search(rf"{row} +([\d.]+) dB", done.stdout)[1]) for row in ("before", "after")
    )
    assert after > before + 0.3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison.png", "degraded.png", "restored.png"]


def test_bundled_photograph_is_coffee():
    pytest.importorskip("skimage")
    assert demo._photograph(None).shape == (1, 3, 400, 600)


def test_bad_input(small_model, tmp_path, capsys):
    write_picture(tmp_path / "small.png", Picture(torch.rand(1, 3, 20, 30)))
    (tmp_path / "file").touch()
    for arguments, part in (
        (("--picture", tmp_path / "small.png", "--output", tmp_path / "out"), "at least 64 pixels"),
        (("--picture", tmp_path / "absent.png", "--output", tmp_path / "out"), "found nothing"),
        (("--output", tmp_path / "file"), "is a file"),
    ):
        assert run_demo(*arguments) == 2
        assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(BIRError, match="pixels"):
        demo.make_demo(torch.rand(1, 3, 20, 30), load_model(small_model))
