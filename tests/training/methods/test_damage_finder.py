"""Training of the network that finds damage."""

import pytest
import torch

from bir_core import load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.networks.damage import DamageConfig, DamageFinder
from bir_core.training.data import Batch, open_source
from bir_core.training.degrading import PairMaker, recipe_degradation
from bir_core.training.loop import make_accelerator
from bir_core.training.losses import dice_loss
from bir_core.training.methods.damage_finder import DamageLoss
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import make_source, run_recipe
from bir_core.training.start_files import StartFiles

STILL = ("validation.every=0", "save_every=100")


def train(changes, data, output, **more):
    recipe = load_recipe("smoke_scratches", changes)
    return run_recipe(recipe, data=data, output=output, device="cpu", **more)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_dice_is_that_of_its_formula():
    target = torch.zeros(2, 1, 10, 10)
    target[0, 0, :5] = 1  # 50 pixels
    sure = 100 * (2 * target - 1)
    assert float(dice_loss(sure, target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(-sure, target)) == pytest.approx(1 - 1 / 201)
    half = torch.zeros_like(target)  # 0.5 everywhere: 25 in common, 100 and 50 in all
    assert float(dice_loss(half, target)) == pytest.approx(1 - 51 / 151)
    # Nothing to find and nothing found is perfect.
    nothing = torch.full_like(target, -100)
    assert float(dice_loss(nothing, torch.zeros_like(target))) == pytest.approx(0, abs=1e-6)


def test_the_target_is_where_the_damage_is():
    hq = torch.rand(4, 3, 64, 64, generator=seeded(1))
    old, new = get_preset("old_photo"), get_preset("jpeg_90")
    recipe = load_recipe("smoke_scratches")
    lq, target = PairMaker(((1.0, old),), 1, recipe.target)(hq, seeded(3))
    expected = degrade(hq, old, generator=seeded(3), scale=1)
    assert torch.equal(lq, expected.lq)
    assert torch.equal(target, expected.damage.expand(-1, 3, -1, -1))
    _, target = PairMaker(((1.0, new),), 1, recipe.target)(hq, seeded(3))
    assert target.shape == hq.shape and float(target.abs().max()) == 0


@pytest.mark.parametrize("name", ["smoke_scratches", "builtin_scratches"])
def test_a_share_of_the_pictures_has_nothing_to_find(name):
    recipe = load_recipe(name)
    maker = recipe_degradation(recipe)
    hq = torch.full((60, 3, 32, 32), 0.5)
    hq[..., ::7] = 0.8
    _, target = maker(hq, seeded())
    empty = float((target.amax(dim=(1, 2, 3)) == 0).float().mean())
    assert 0.15 < empty < 0.95


def test_the_loss_is_the_sum_of_its_parts():
    model = DamageFinder(DamageConfig(features=(4, 6))).requires_grad_(False)
    lq, target = torch.rand(2, 3, 8, 8, generator=seeded()), torch.zeros(2, 3, 8, 8)
    target[0, :, :4] = 1
    values = DamageLoss(model, dice=0.5)(Batch(lq, target, seeded()))
    assert float(values["total"]) == pytest.approx(float(values["entropy"] + 0.5 * values["dice"]))
    probability = model(lq).sigmoid()[:, 0]
    likelihood = torch.where(target[:, 0] == 1, probability, 1 - probability)
    assert float(values["entropy"]) == pytest.approx(float(-likelihood.log().mean()), rel=1e-4)


def test_it_learns(pictures, tmp_path, one_batch):
    recipe = load_recipe("smoke_scratches")
    source = make_source(recipe, open_source(pictures, recipe.data), make_accelerator("cpu"))
    (batch,) = next(source.iterations(1, 1))

    def loss(iterations):
        changes = (*STILL, f"iterations={iterations}")
        network = load_model(train(changes, pictures, tmp_path / str(iterations)))
        assert network.info.architecture == "damage_finder"
        return float(DamageLoss(network, 1.0)(batch)["total"])

    assert loss(100) < 0.6 * loss(1)


def test_it_resumes_to_the_same_weights(pictures, tmp_path):
    changes = (*STILL, "channels_last=true", "ema=0.9")
    whole = train((*changes, "iterations=12"), pictures, tmp_path / "whole")
    train((*changes, "iterations=5"), pictures, tmp_path / "cut")
    cut = train((*changes, "iterations=12"), pictures, tmp_path / "cut", resume=True)
    for name, value in load_model(whole).state_dict().items():
        assert torch.equal(value, load_model(cut).state_dict()[name])


def test_validation_measures_what_was_found(pictures, tmp_path):
    changes = ("validation.every=2", "iterations=2")
    train(changes, pictures, tmp_path, validation=pictures)
    assert (tmp_path / "best.safetensors").exists()


def test_a_start_of_other_sizes_is_refused(pictures, tmp_path):
    save_checkpoint(DamageFinder(DamageConfig(features=(4, 4))), tmp_path / "other.safetensors")
    start = StartFiles(start_from=tmp_path / "other.safetensors")
    with pytest.raises(BIRError, match="Expected a finder of scratches of the recipe's sizes"):
        train(("iterations=1",), pictures, tmp_path / "refused", files=start)
    same = (*STILL, "iterations=1", "network.features=[4, 4]", "optimizer.rate=1e-12")
    model = load_model(train(same, pictures, tmp_path / "same", files=start))
    own = load_model(tmp_path / "other.safetensors").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, own[name], atol=1e-6)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ("dice=-1", "dice"),
        ("data.mixture.damaged.weight=0", "damages the surface"),
        ("data.mixture.damaged.preset=masks_train", "holes"),
        ("network.features=[4]", "two levels"),
        ("data.patch=34", "divide by 4"),
    ],
)
def test_wrong_recipes_end_in_a_sentence(change, sentence):
    changes = (change, "data.mixture.damaged.change={}") if "masks" in change else (change,)
    with pytest.raises(BIRError, match=sentence):
        load_recipe("smoke_scratches", changes)
