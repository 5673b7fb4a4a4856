"""Training of the compact restoration module, and its losses."""

import math

import pytest
import torch
from torch.nn import functional as F

from bir_core import inspect, load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.errors import BIRError
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.training.data import Batch
from bir_core.training.image_losses import ImageLosses, LossTable, LossTerm
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

FORMULAS = {
    "l1": lambda error: error.abs().mean(),
    "l2": lambda error: error.square().mean(),
    "charbonnier": lambda error: (error.square() + 1e-6).sqrt().mean(),
    "log_squared_error": lambda error: (
        (error.square().mean(dim=(1, 2, 3)) + 1e-6).log().mean() / math.log(10)
    ),
}


def train(changes, data, output, **more):
    recipe = load_recipe("smoke_restoration_module", changes)
    return run_recipe(recipe, data=data, output=output, device="cpu", **more)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_gradient_of_each_loss_is_that_of_its_formula(name):
    draws = torch.Generator().manual_seed(0)
    restored = torch.rand(3, 3, 6, 5, generator=draws, dtype=torch.float64).requires_grad_()
    hq = torch.rand(3, 3, 6, 5, generator=draws, dtype=torch.float64)
    batch = Batch(hq[:, :, ::2, ::2].float(), hq.float(), draws)
    losses = ImageLosses(LossTable(**{name: LossTerm(weight=0.5)}))
    values = losses(restored, batch)
    (gradient,) = torch.autograd.grad(values["total"], restored)
    expected = 0.5 * FORMULAS[name](restored - hq)
    (wanted,) = torch.autograd.grad(expected, restored)
    # float32 inside: 24 bits, and sums over 270 values.
    assert torch.allclose(values["total"].double(), expected, rtol=1e-5)
    assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-7)
    assert set(values) == {"total", name}


def test_a_loss_counts_from_its_start_on():
    table = LossTable(l1=LossTerm(weight=1.0), l2=LossTerm(weight=2.0, start=5))
    restored, hq = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    at = [ImageLosses(table)(restored, Batch(hq, hq, None, iteration=n)) for n in (4, 5)]
    assert float(at[0]["total"]) == pytest.approx(0.5) and "l2" not in at[0]
    assert float(at[1]["total"]) == pytest.approx(0.5 + 2 * 0.25)


@pytest.mark.parametrize(
    "losses",
    [
        "{}",
        "{ l1 = { weight = 1.0, start = 9 } }",
        "{ l1 = { weight = -1.0 } }",
        "{ gan = { weight = 1.0 } }",
        "{ lpips = { weight = 1.0, levels = 6 } }",
        "{ l1 = { weight = 1.0 }, gan = { weight = 1.0, feature_matching = -1.0 } }",
    ],
)
def test_a_table_without_a_loss_is_refused(losses):
    with pytest.raises(BIRError, match="loss|levels|feature_matching"):
        load_recipe("smoke_restoration_module", (f"losses={losses}",))


@pytest.mark.parametrize("loss", FORMULAS)
def test_each_loss_resumes_to_the_same_weights(loss, pictures, tmp_path):
    changes = (f"losses={{ {loss} = {{ weight = 1.0 }} }}", "validation.every=0")
    whole = train((*changes, "iterations=12", "save_every=100"), pictures, tmp_path / "whole")
    train((*changes, "iterations=5", "save_every=100"), pictures, tmp_path / "cut")
    cut = train(
        (*changes, "iterations=12", "save_every=100"), pictures, tmp_path / "cut", resume=True
    )
    for name, value in load_model(whole).state_dict().items():
        assert torch.equal(value, load_model(cut).state_dict()[name])
    assert read_state(tmp_path / "cut" / "state.safetensors").iteration == 12


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_file_says_what_it_is(scale, tmp_path):
    config = CompactConfig(scale=scale, features=8, layers=3)
    model = CompactRestorer(config)
    draw_near_identity(model, torch.Generator().manual_seed(0))
    save_checkpoint(model, tmp_path / "model.safetensors")
    info = inspect(tmp_path / "model.safetensors")
    assert (info.architecture, info.scale, info.config) == ("compact", scale, config)
    image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    restored = load_model(tmp_path / "model.safetensors")(image)
    assert torch.equal(restored, model(image))
    # The start is close to the picture, enlarged by repetition.
    assert float((restored - F.interpolate(image, scale_factor=scale)).abs().mean()) < 0.1


def test_other_pixels_than_those_in_reach_do_not_matter():
    config = CompactConfig(scale=2, features=4, layers=2)
    model = CompactRestorer(config)
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    changed = image.clone()
    changed[..., 0] += 1
    difference = (model(image) - model(changed)).detach().abs().sum(dim=(0, 1, 2))
    reached = 2 * (config.layers + 2 + 1)  # a pixel for each convolution
    assert float(difference[:reached].min()) > 0 and float(difference[reached:].max()) == 0


def test_a_start_of_another_scale_gives_its_chain(pictures, tmp_path):
    model = CompactRestorer(CompactConfig(scale=2, features=8, layers=2))
    save_checkpoint(model, tmp_path / "x2.safetensors")
    start = StartFiles(start_from=tmp_path / "x2.safetensors")
    changes = ("iterations=1", "validation.every=0", "optimizer.rate=1e-9")
    trained = load_model(train(changes, pictures, tmp_path / "x4", files=start))
    assert trained.config.scale == 4
    for number in (0, 2, 4):
        assert torch.allclose(trained.body[number].weight, model.body[number].weight, atol=1e-6)
    other = CompactRestorer(CompactConfig(scale=4, features=9, layers=2))
    save_checkpoint(other, tmp_path / "other.safetensors")
    with pytest.raises(BIRError, match="at most 8 features and 2 layers.* has 9 and 2"):
        train(
            changes,
            pictures,
            tmp_path / "refused",
            files=StartFiles(start_from=tmp_path / "other.safetensors"),
        )


@pytest.mark.parametrize("sizes", [(8, 2), (8, 5), (11, 2), (13, 4)])
def test_a_smaller_start_grows_and_computes_the_same_at_first(sizes, pictures, tmp_path):
    small = CompactRestorer(CompactConfig(scale=4, features=8, layers=2))
    draw_near_identity(small, torch.Generator().manual_seed(3))
    for layer in small.body:  # biases and slopes that a training could have left
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.bias, std=0.1)
        else:
            torch.nn.init.normal_(layer.weight, mean=0.2, std=0.1)
    save_checkpoint(small, tmp_path / "small.safetensors")
    features, layers = sizes
    sized = (f"network.features={features}", f"network.layers={layers}", "validation.every=0")
    start = StartFiles(start_from=tmp_path / "small.safetensors")

    def trained(name, *changes):
        return load_model(train((*sized, *changes), pictures, tmp_path / name, files=start))

    still = trained("still", "iterations=1", "optimizer.rate=1e-12")
    assert (still.config.features, still.config.layers) == sizes
    image = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(still(image), small(image), atol=1e-5)
    # What was added takes part in the learning.
    moved = trained("moved", "iterations=3", "optimizer.rate=1e-3")
    for before, after in zip(still.parameters(), moved.parameters(), strict=True):
        assert not torch.equal(before[-1], after[-1])


def test_a_chain_with_another_layer_is_no_compact_file():
    tensors = CompactRestorer(CompactConfig(scale=2, features=4, layers=2)).state_dict()
    with pytest.raises(BIRError, match="first keys"):
        inspect(tensors | {"body.last.weight": torch.zeros(1)})
