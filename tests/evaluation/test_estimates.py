"""The errors of an estimate, on damage that is known."""

import dataclasses

import pytest
import torch
from command_line import run_here
from estimates import classical
from training_pictures import write_pictures

from bir_core.evaluation import estimates
from bir_core.evaluation.estimates import (
    MEASURED,
    damage_kinds,
    estimate_table,
    score_estimator,
)
from bir_core.pictures.files import read_picture


@pytest.fixture
def originals(tmp_path):
    write_pictures(tmp_path / "hq", count=2, size=(64, 64))
    return sorted((tmp_path / "hq").iterdir())


@pytest.mark.parametrize("kind", damage_kinds(), ids=lambda kind: kind.name)
def test_damage_is_what_it_is_called(kind, originals):
    image = read_picture(originals[0]).image
    damaged = kind.damage(image, torch.Generator().manual_seed(0))
    again = kind.damage(image, torch.Generator().manual_seed(0))
    assert torch.equal(damaged, again) and damaged.shape[:2] == (1, 3)
    assert torch.equal(damaged, image) == (kind.name == "none")
    assert set(kind.truth) <= set(MEASURED)
    if set(kind.truth) == {"noise_sigma"}:
        noise = damaged - image
        inside = (image > 0.2) & (image < 0.8)
        measured = float(noise[inside].std()) * 255
        assert measured == pytest.approx(kind.truth["noise_sigma"], rel=0.25, abs=0.5)
        flat = noise.amax(1) - noise.amin(1)
        assert (float(flat.median()) < 1.5 / 255) == kind.grey


def test_errors_are_those_to_the_truth(originals, monkeypatch):
    def said(image, network):
        found = classical(image)
        return dataclasses.replace(
            found, noise_sigma=dataclasses.replace(found.noise_sigma, value=7.0), jpeg_quality=None
        )

    monkeypatch.setattr(estimates, "estimate", said)
    scores = [each for one in score_estimator(None, originals, seed=0) for each in one]
    assert len(scores) == 2 * len(damage_kinds())
    errors = {each.kind: each for each in scores}
    assert errors["noise 10, colour"].noise_sigma == pytest.approx(3)
    assert errors["none"].noise_sigma == pytest.approx(7) and errors["none"].seen
    assert not errors["JPEG 50"].seen and errors["JPEG 50"].jpeg_quality is None
    table = estimate_table(scores)
    assert table.splitlines()[-2].startswith("| all, median |")
    assert len(table.splitlines()) == 2 + len(damage_kinds()) + 2


def test_the_command(originals, tmp_path):
    ran = run_here("evaluate", tmp_path / "hq", "--estimate", "builtin-estimate")
    assert ran.returncode == 0, ran.stderr
    assert "| blur 1.5 |" in ran.stdout
    ran = run_here("evaluate", tmp_path / "hq", "--estimate", "builtin-estimate", "--auto")
    assert ran.returncode == 2 and "for --estimate" in ran.stderr
    ran = run_here("evaluate", tmp_path / "hq", "--auto", "--old-photo")
    assert ran.returncode == 2 and "--old-photo came as well" in ran.stderr
