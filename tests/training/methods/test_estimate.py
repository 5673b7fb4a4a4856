"""Training of the estimator, and its losses."""

import math

import pytest
import torch

from bir_core import inspect, load_model
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.networks.estimator import PatchEstimates
from bir_core.training.data import BatchSource, ExampleDataset, open_source
from bir_core.training.degrading import recipe_degradation
from bir_core.training.methods.estimate import TARGETS, drawn_targets, estimate_losses
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe


def train(changes, data, output, **more):
    recipe = load_recipe("smoke_estimate", changes)
    return run_recipe(recipe, data=data, output=output, device="cpu", **more)


@pytest.mark.parametrize("name", ["enlarged", "simple_x1", "jpeg_90", "clean_x1"])
def test_the_targets_are_what_was_drawn(name):
    generator = torch.Generator().manual_seed(0)
    degraded = degrade(torch.rand(16, 3, 24, 24), get_preset(name), generator=generator)
    targets = dict(zip(TARGETS, drawn_targets(degraded).unbind(1), strict=True))
    draws = degraded.draws
    always = torch.ones(16, dtype=torch.bool)
    for step in ("blur", "noise", "jpeg"):
        probability = getattr(
            getattr(get_preset(name), "damage", get_preset(name)), f"{step}_probability"
        )
        happened = draws.get(step, always if probability else ~always)
        target = targets[
            {"blur": "blur_sigma", "noise": "noise_sigma", "jpeg": "jpeg_quality"}[step]
        ]
        assert torch.equal(target > 0, happened)
    for place, kernel in enumerate(draws.get("kernels", [])):
        if targets["blur_sigma"][place]:
            mean = (kernel["sigma_x"] ** 2 + kernel["sigma_y"] ** 2) / 2
            assert float(targets["blur_sigma"][place]) == pytest.approx(math.sqrt(mean))
    noisy = targets["noise_sigma"] > 0
    if noisy.any():
        assert torch.equal(targets["noise_sigma"][noisy], draws["noise_sigma"][noisy])
    assert torch.equal(targets["jpeg"] > 0, targets["jpeg_quality"] > 0)
    assert targets["enlargement"].min() == 1
    assert (targets["enlargement"].max() > 1) == (name == "enlarged")


def test_batches_carry_the_targets_through_mixtures_and_crops(pictures):
    recipe = load_recipe(
        "smoke_estimate",
        (
            "data.degradation=mixture",
            "data.mixture={one={preset='enlarged'},two={preset='jpeg_90',change={jpeg_quality=[5.0,6.0]}}}",
        ),
    )
    source = BatchSource(
        ExampleDataset(open_source(pictures, recipe.data), recipe.data, scale=1, seed=0),
        recipe.data,
        recipe_degradation(recipe),
        torch.device("cpu"),
        seed=0,
    )
    batches = [batch for parts in source.iterations(1, 6) for batch in parts]
    targets = torch.cat([batch.hq[..., 0, 0] for batch in batches])
    assert all(batch.lq.shape == (4, 3, 32, 32) for batch in batches)
    assert all(batch.hq.shape == (4, 6, 32, 32) for batch in batches)
    assert 0 < int((targets[:, 2] == 5).sum()) < 24
    assert all(
        torch.equal(batch.hq, batch.hq[..., :1, :1].expand_as(batch.hq)) for batch in batches
    )


def test_the_loss_is_the_likelihood_of_laplace_and_bernoulli():
    found = PatchEstimates(
        values=torch.tensor([[1.0, 12.0, 70.0, 2.0], [0.5, 1.0, 50.0, 1.5]]),
        spreads=torch.tensor([[0.5, 5.0, 10.0, 0.25], [1.0, 10.0, 25.0, 1.0]]),
        logits=torch.tensor([[0.3, 2.0], [5.0, -1.0]]),
    )
    targets = torch.tensor([[1.5, 10.0, 80.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]])
    values = estimate_losses(found, targets)
    first = 0.5 / 0.5 + math.log(0.5) + 2 / 5 + math.log(0.5) + 1 + math.log(0.4) + math.log(0.25)
    second = 0.5 + 0.1 + 0.5  # without JPEG its quality does not count
    # The kind of noise counts in the first only.
    chances = [math.log1p(math.exp(-0.3)), math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0))]
    expected = (first + second) / 2 + sum(chances) / 4
    assert float(values["total"]) == pytest.approx(expected, rel=1e-5)
    assert float(values["jpeg_quality_error"]) == pytest.approx(10)
    assert float(values["noise_sigma_error"]) == pytest.approx(1.5)


def test_it_resumes_to_the_same_weights_and_says_what_it_is(pictures, tmp_path):
    whole = train(("iterations=8", "save_every=100"), pictures, tmp_path / "whole")
    train(("iterations=3", "save_every=100"), pictures, tmp_path / "cut")
    cut = train(("iterations=8", "save_every=100"), pictures, tmp_path / "cut", resume=True)
    for name, value in load_model(whole).state_dict().items():
        assert torch.equal(value, load_model(cut).state_dict()[name])
    info = inspect(whole)
    assert (info.architecture, info.task, info.scale) == ("estimator", "estimation", 1)


def test_it_learns_the_damage_of_a_batch(pictures, tmp_path, one_batch, caplog):
    changes = ("iterations=150", "save_every=1000", "network.features=4", "network.hidden=24")
    with caplog.at_level("INFO", "bir_core.training"):
        train((*changes, "optimizer.rate=5e-3"), pictures, tmp_path)
    lines = [line for line in caplog.messages if "noise_sigma_error" in line]
    errors = [float(line.split("noise_sigma_error ")[1].split(",")[0]) for line in lines]
    totals = [float(line.split("network/total ")[1].split(",")[0]) for line in lines]
    # It begins above 0, with errors of about a unit and spreads of one.
    assert max(totals) < -3 and errors[-1] < 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.degradation=codeformer", "blur, noise and JPEG once each"),
        ("data.degradation=masks_train", "blur, noise and JPEG once each"),
        ("data.degradation=motion", "blur has a sigma"),
        ("validation.every=5", "validation.every"),
    ],
)
def test_recipes_that_give_no_targets_are_refused(change, sentence):
    with pytest.raises(BIRError, match=sentence):
        load_recipe("smoke_estimate", (change,))
