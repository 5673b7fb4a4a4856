"""What the steps of the chain gain."""

import pytest
import torch
from command_line import run_here
from training_pictures import write_pictures

from bir_core.errors import BIRError
from bir_core.evaluation.metrics import METRICS
from bir_core.evaluation.old_photos import (
    ENLARGED,
    INTERPOLATED,
    PAIRS,
    SAMPLES_OF_EACH,
    SCAN,
    STEPS,
    after,
    gains_table,
    old_photo_samples,
)
from bir_core.evaluation.tables import Row


@pytest.fixture
def originals(tmp_path):
    write_pictures(tmp_path / "hq", count=2, size=(97, 97))
    return sorted((tmp_path / "hq").iterdir())


def test_every_step_is_a_row_and_can_be_repeated(originals):
    cpu = torch.device("cpu")
    samples = list(old_photo_samples(originals, "foreign_old_photo", seed=0, device=cpu))
    assert len(samples) == SAMPLES_OF_EACH * len(originals)
    whole, half = samples[0], samples[1]
    assert set(whole.restored) == {
        SCAN,
        *(after(step) for step in STEPS),
        *(lack for _, lack in PAIRS.values() if lack.startswith("all but")),
    }
    assert set(half.restored) == {INTERPOLATED, ENLARGED}
    for sample in (whole, half):
        assert all(image.shape == sample.hq.shape for image in sample.restored.values())
    second = list(old_photo_samples(originals[:1], "foreign_old_photo", seed=0, device=cpu))
    for name, image in second[0].restored.items():
        assert torch.equal(image, whole.restored[name])


def test_gains_are_against_leaving_a_step_out():
    def row(model, picture, value):
        return Row(model, picture, {"psnr_y": value})

    rows = [row(after("clean"), name, value) for name, value in (("a", 30.0), ("b", 28.0))]
    rows += [row("all but levels", name, value) for name, value in (("a", 25.0), ("b", 28.5))]
    table = gains_table(rows, [METRICS["psnr_y"]])
    assert "| levels | +2.25 | -0.50 | b |" in table and "scratches" not in table


def test_the_command(originals, tmp_path):
    ran = run_here("evaluate", tmp_path / "hq", "--old-photo", "--metric", "psnr_y")
    assert ran.returncode == 0, ran.stderr
    assert "| mean | + levels |" in ran.stdout and "| enlarge |" in ran.stdout
    ran = run_here("evaluate", tmp_path / "hq", "--old-photo", "--model", "builtin-x1")
    assert ran.returncode == 2 and "--model came as well" in ran.stderr


def test_another_damage_is_refused(originals):
    with pytest.raises(BIRError, match="damages the surface"):
        next(old_photo_samples(originals, "simple_x1", seed=0, device=torch.device("cpu")))
