import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bir_core.checkpoints.distances import read_lpips
from bir_core.errors import BIRError
from bir_core.metrics import psnr, ssim
from bir_core.training.methods.table import load_recipe
from bir_core.training.recipe import ValidationRecipe
from bir_core.training.run import run_recipe
from bir_core.training.state import read_state
from bir_core.training.validation import ValidationSet, is_better, side_by_side

CPU = torch.device("cpu")
NAN = float("nan")


def held_out(lq, hq, multiple=1, lpips=None, **recipe):
    return ValidationSet(1, lambda index: (lq, hq), ValidationRecipe(**recipe), multiple, lpips)


def test_the_border_is_left_out():
    hq = torch.rand(1, 3, 40, 48)
    restored = hq.clone()
    restored[..., :4, :] = 0
    inside = restored[..., 4:-4, 4:-4] = (hq[..., 4:-4, 4:-4] + 0.1).clamp(0, 1)
    measured = held_out(hq, hq, border=4, channel="rgb").measure(restored, hq, CPU)
    expected = psnr(inside, hq[..., 4:-4, 4:-4]), ssim(inside, hq[..., 4:-4, 4:-4])
    assert measured == {"psnr": expected[0].item(), "ssim": expected[1].item()}
    whole = held_out(hq, hq, channel="rgb").measure(restored, hq, CPU)
    assert whole["psnr"] < measured["psnr"] - 1


def test_lpips_is_that_of_the_colours_inside_the_border(lpips_weights):
    hq, restored = torch.rand(2, 1, 3, 48, 56)
    lpips = read_lpips("alex")
    measured = held_out(hq, hq, lpips=lpips, border=4, channel="y").measure(restored, hq, CPU)
    inside = restored[..., 4:-4, 4:-4], hq[..., 4:-4, 4:-4]
    assert measured["lpips"] == pytest.approx(float(lpips(*inside)))
    assert measured["lpips"] != pytest.approx(float(lpips(restored, hq)))
    assert tuple(measured) == held_out(hq, hq, lpips=lpips).measures


@pytest.mark.parametrize(
    ("measure", "value", "best", "expected"),
    [
        ("psnr", 30.0, None, True),
        ("psnr", 30.0, 29.0, True),
        ("psnr", 28.0, 29.0, False),
        ("ssim", 0.8, 0.8, False),
        ("lpips", 0.4, None, True),
        ("lpips", 0.4, 0.5, True),
        ("lpips", 0.6, 0.5, False),
        ("psnr", NAN, None, False),
        ("psnr", NAN, 29.0, False),
        ("lpips", NAN, 0.5, False),
    ],
)
def test_which_value_is_better(measure, value, best, expected):
    assert is_better(measure, value, best) is expected


def train_by_lpips(pictures, output, *changes, validation=None):
    more = ("data.batch=2", "iterations=3", "validation.every=1", "validation.best=lpips")
    recipe = load_recipe("smoke_restoration_module", (*more, *changes))
    run_recipe(recipe, data=pictures, output=output, validation=validation, device="cpu")


def test_the_lowest_lpips_is_kept_written_and_logged(pictures, tmp_path, lpips_weights, caplog):
    with caplog.at_level(logging.INFO, "bir_core.training"):
        train_by_lpips(pictures, tmp_path, validation=pictures)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    values = [event.value for event in events.Scalars("validation/lpips")]
    assert len(values) == 3 and len(set(values)) == 3
    assert read_state(tmp_path / "state.safetensors").best == pytest.approx(min(values))
    for iteration, value in enumerate(values, 1):
        assert f"iteration {iteration}: PSNR " in caplog.text
        assert f"LPIPS {value:.4f}" in caplog.text


def test_absent_weights_of_lpips_are_said_before_the_training(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BIRError, match="run `bir weights measures`"):
        train_by_lpips(pictures, tmp_path / "out", validation=pictures)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), ("validation.every=0",)])
def test_weights_of_lpips_are_not_asked_for_in_vain(pictures, tmp_path, monkeypatch, more):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    validation = pictures if more else None
    train_by_lpips(pictures, tmp_path / "out", "iterations=1", *more, validation=validation)


def test_a_part_too_small_for_lpips():
    with pytest.raises(BIRError, match="at least 39 pixels for LPIPS, but 32 came"):
        ValidationRecipe(best="lpips", patch=32, border=4)
    assert ValidationRecipe(best="psnr", patch=32, border=4).patch == 32


def test_sides_are_padded_for_the_network_and_cropped_again():
    lq, hq = torch.rand(1, 3, 13, 21), torch.rand(1, 3, 26, 42)
    seen = []

    def restore(low, high):
        seen.append((low.shape[-2:], high.shape[-2:]))
        return high + 2

    shown, restored, original = held_out(lq, hq, multiple=8).restored(
        0, restore, torch.device("cpu")
    )
    assert seen == [((16, 24), (32, 48))]
    assert torch.equal(restored, torch.ones_like(hq))
    assert torch.equal(shown, lq)
    assert torch.equal(original, hq)


def test_the_centre_of_a_picture():
    lq, hq = torch.rand(1, 3, 16, 20), torch.rand(1, 3, 32, 40)
    shown, _, original = held_out(lq, hq, patch=8).restored(
        0, lambda low, high: high, torch.device("cpu")
    )
    assert torch.equal(shown, lq[..., 6:10, 8:12])
    assert torch.equal(original, hq[..., 12:20, 16:24])


def test_side_by_side():
    lq, hq = torch.full((1, 4, 8, 8), 0.5), torch.rand(1, 3, 16, 16)
    row = side_by_side(lq, torch.zeros_like(hq), hq)
    assert row.shape == (3, 16, 48)
    torch.testing.assert_close(row[..., :16], torch.full((3, 16, 16), 0.5))
    assert torch.equal(row[..., 32:], hq[0])
