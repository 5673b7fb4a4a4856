import pytest
import torch
from command_line import run_here
from finders import bright_finder, save_bright_finder
from training_pictures import write_pictures

from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.estimate.scratches import find_damage
from bir_core.evaluation.damage import (
    THRESHOLDS,
    DamageScore,
    damage_table,
    found_and_false,
    score_finder,
)
from bir_core.pictures.files import read_picture


def line(column, size=20):
    mask = torch.zeros(1, 1, size, size)
    mask[..., column] = 1
    return mask


@pytest.mark.parametrize("shift, found, false", [(0, 1, 0), (2, 1, 0), (3, 0, 1 / 20)])
def test_two_pixels_beside_it_count(shift, found, false):
    assert found_and_false(line(10 + shift), line(10)) == pytest.approx((found, false))


def test_nothing_to_find_has_no_share_that_was_found():
    assert found_and_false(line(5), torch.zeros(1, 1, 20, 20)) == (None, pytest.approx(1 / 20))
    half = line(10)
    half[..., 10:, :] = 0
    found, false = found_and_false(half, line(10))
    assert (found, false) == (pytest.approx(12 / 20), 0)


@pytest.fixture
def originals(tmp_path):
    return write_pictures(tmp_path / "hq", count=3, size=(96, 128))


def test_scores_are_those_of_the_parts(originals):
    network, preset = bright_finder(), get_preset("old_photo")
    scores = list(score_finder(network, originals, "old_photo", seed=4, device=torch.device("cpu")))
    assert len(scores) == 3
    for index, (path, own) in enumerate(zip(originals, scores, strict=True)):
        hq = read_picture(path).image
        degraded = degrade(hq, preset, generator=torch.Generator().manual_seed(4 + index))
        assert [each.threshold for each in own] == list(THRESHOLDS)
        for score in own:
            mask = (find_damage(degraded.lq, network) >= score.threshold).float()
            assert (score.found, score.false) == found_and_false(mask, degraded.damage)
            undamaged = find_damage(hq, network) >= score.threshold
            assert score.false_undamaged == pytest.approx(float(undamaged.float().mean()))
            assert score.damaged == pytest.approx(float(degraded.damage.mean()))


def test_the_table_has_the_means_and_the_worst():
    scores = [
        DamageScore("a.png", 0.5, 0.01, 1.0, 0.002, 0.0),
        DamageScore("b.png", 0.5, 0.03, 0.5, 0.004, 0.02),
        DamageScore("c.png", 0.5, 0.0, None, 0.0, 0.01),
    ]
    every = [
        DamageScore(each.picture, step, each.damaged, each.found, each.false, each.false_undamaged)
        for each in scores
        for step in THRESHOLDS
    ]
    table = damage_table(every, 0.5).splitlines()
    # All damage counts alike: 0.01 and half of 0.03 of 0.04.
    assert "| all | 0.5 | 1.33% | 62.5% | 0.200% | 1.000% |" in table
    assert "| c.png | 0.5 | 0.00% |  | 0.000% | 1.000% |" in table
    assert table[-1] == "Worst undamaged picture at 0.5: b.png, 2.00%."


def test_a_preset_without_damage_is_refused(originals):
    with pytest.raises(BIRError, match="damages the surface .* simple_x1 does not"):
        list(score_finder(bright_finder(), originals, "simple_x1", seed=0, device="cpu"))


def test_the_command_writes_the_table(tmp_path, originals):
    model = save_bright_finder(tmp_path / "finder.safetensors")
    (tmp_path / "hq" / "broken.png").write_text("no picture")
    done = run_here("evaluate", tmp_path / "hq", "--scratches", model, "--device", "cpu")
    assert done.returncode == 2 and "broken.png" in done.stderr
    assert "| picture_2.png | 0.7 |" in done.stdout and "| all | 0.9 |" in done.stdout


@pytest.mark.parametrize("options", [(), ("--model", "builtin-x1"), ("--metric", "psnr_y")])
def test_options_of_restorers_are_refused(tmp_path, originals, options):
    hq = (tmp_path / "hq",) if options else ()
    done = run_here("evaluate", *hq, "--scratches", "finder.safetensors", *options)
    assert done.returncode == 2 and "undamaged originals for --scratches" in done.stderr
