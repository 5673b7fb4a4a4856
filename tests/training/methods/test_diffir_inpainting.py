"""Training of DiffIR for inpainting."""

import pytest
import torch
from tolerances import CANCELLED_GRADIENT
from torch.nn import functional as F
from training_steps import first_step

from bir_core import load_model, restore
from bir_core.errors import BIRError
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import OFFICIAL_CONFIGS, DiffIRConfig
from bir_core.networks.discriminators import NLayerDiscriminator
from bir_core.networks.perceptual import DilatedResNet50
from bir_core.training import loop
from bir_core.training.methods import diffir_inpainting
from bir_core.training.methods.diffir_inpainting import (
    inpainting_stage1_training,
    inpainting_stage2_training,
    restore_hole,
)
from bir_core.training.methods.table import load_recipe
from bir_core.training.perceptual import ResNetLoss
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state


@pytest.fixture(scope="module")
def stage1_file(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("s1") / "out"
    return train("smoke_inpainting_s1", pictures, out, "iterations=5")


def train(recipe, pictures, output, *changes, files=None, **more):
    recipe = load_recipe(recipe, changes)
    return run_recipe(recipe, data=pictures, output=output, device="cpu", files=files, **more)


def shown(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def fell(output, name, share):
    values = shown(output, name)
    assert len(values) == 20
    return values[-1] < share * values[0]


def test_both_stages_learn_and_the_model_opens(pictures, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    short = ("iterations=20", "validation.every=10")
    first = train("smoke_inpainting_s1", pictures, tmp_path / "1", *short, validation=pictures)
    assert fell(tmp_path / "1", "network/total", 0.5)
    assert fell(tmp_path / "1", "network/known", 0.5)
    assert fell(tmp_path / "1", "discriminator/total", 0.8)
    quality = shown(tmp_path / "1", "validation/psnr")
    assert len(quality) == 2 and all(5 < value < 60 for value in quality)
    assert load_model(first).info.architecture == "diffir_s1"
    files = StartFiles(stage1=first)
    second = train("smoke_inpainting_s2", pictures, tmp_path / "2", *short, files=files)
    assert fell(tmp_path / "2", "network/total", 0.7)
    assert fell(tmp_path / "2", "network/prior", 0.8)
    model = load_model(second, architecture="diffir_s2")
    assert model.info.task == "inpainting"
    image, mask = torch.rand(1, 3, 24, 40), torch.zeros(1, 1, 24, 40)
    mask[..., 4:12, 8:30] = 1
    restored = restore(image, model, mask=mask)
    outside = mask.expand_as(image) == 0
    assert torch.equal(restored[outside], image[outside])
    assert not torch.equal(restored, image)


@pytest.mark.parametrize("stage", [1, 2])
def test_one_step_is_its_formula(pictures, stage1_file, tmp_path, monkeypatch, stage):
    torch.manual_seed(3)
    encoder = DilatedResNet50()
    monkeypatch.setattr(diffir_inpainting, "read_dilated_resnet50", lambda path: encoder)
    changes = (
        "weights.known=3",
        "weights.adversarial=0.7",
        "weights.features=5",
        "weights.perceptual=2",
        "weights.penalty=0.01",
        "optimizer.clip=0",
        "discriminator_optimizer.clip=0",
        "optimizer.rate=1e-9",  # the discriminator's update sees the generator after its step
    )
    recipe = load_recipe(f"smoke_inpainting_s{stage}", changes)
    files = StartFiles(stage1=stage1_file if stage == 2 else None)
    before, batch, losses, gradients = first_step(recipe, files, pictures, tmp_path)
    model, discriminator = before.model, before.others["discriminator"]
    masked, hole = batch.lq[:, :3], batch.lq[:, 3:]
    assert torch.equal(masked, batch.hq * (1 - hole))
    assert 0 < hole.mean() < 1
    stage1 = model if stage == 1 else load_model(stage1_file)

    def predict():
        z_1 = stage1.encode(batch.lq, batch.hq)
        if stage == 1:
            return model.G(batch.lq, z_1), 0.0
        z_1 = z_1.detach()
        noisy = 0.05097095 * z_1 + 0.99870014 * torch.randn(4, 256, generator=batch.generator)
        z = model.reverse(noisy, model.encode_condition(batch.lq))[-1]
        return model.G(batch.lq, z), (z - z_1).abs().mean()

    restored, prior = predict()
    logits, features = discriminator(restored)
    _, wanted = discriminator(batch.hq)
    matching = [((a - b) ** 2).mean() for a, b in zip(features, wanted, strict=True)]
    parts = {
        "known": ((restored - batch.hq).abs() * (1 - hole)).mean(),
        "adversarial": (1 + (-logits).exp()).log().mean(),
        "features": sum(matching) / 5,
        "perceptual": ResNetLoss(encoder)(restored, batch.hq),
    }
    weights = {"known": 3, "adversarial": 0.7, "features": 5, "perceptual": 2}
    total = sum(weights[name] * part for name, part in parts.items()) + prior
    for name, value in {**parts, "total": total}.items():
        assert losses[f"network/{name}"] == pytest.approx(float(value.detach()), rel=1e-4)
    close(gradients["network"], torch.autograd.grad(total, list(model.parameters())))

    with torch.no_grad():
        restored, _ = predict()
    discriminator.requires_grad_(True)
    image = batch.hq.clone().requires_grad_()
    of_real, of_fake = discriminator(image)[0], discriminator(restored)[0]
    (slope,) = torch.autograd.grad(of_real.sum(), image, create_graph=True)
    penalty = slope.flatten(1).norm(dim=1).square().mean()
    small = F.interpolate(hole, of_fake.shape[-2:], mode="nearest")
    judged = small * F.softplus(of_fake) + (1 - small) * F.softplus(-of_fake)
    total = F.softplus(-of_real).mean() + judged.mean() + 0.01 * penalty
    assert losses["discriminator/penalty"] == pytest.approx(float(penalty.detach()), rel=1e-3)
    assert losses["discriminator/total"] == pytest.approx(float(total.detach()), rel=1e-3)
    wanted = torch.autograd.grad(total, list(discriminator.parameters()))
    close(gradients["discriminator"], wanted)


def close(gradients, wanted):
    largest = max(float(each.abs().max()) for each in wanted)
    for ours, theirs in zip(gradients, wanted, strict=True):
        # Biases before a batch norm have no gradient but rounding.
        atol = 2e-3 * float(theirs.abs().max()) + CANCELLED_GRADIENT * largest
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol)


def test_validation_pastes_the_prediction_into_the_hole():
    config = DiffIRConfig(task="inpainting", dim=8, num_refinement_blocks=0, n_encoder_res=1)
    hq, hole = torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) < 0.5).float()
    lq = torch.cat([hq * (1 - hole), hole], dim=1)
    for network in (DiffIRStage1(config), DiffIRStage2(config)):
        with torch.no_grad():
            restored = restore_hole(network, lq, hq)
            predicted = network(lq, hq) if isinstance(network, DiffIRStage1) else network(lq)
        known = hole.expand_as(hq) == 0
        assert torch.equal(restored[known], hq[known])
        if isinstance(network, DiffIRStage1):
            assert torch.equal(restored[~known], predicted[~known])


def test_it_goes_on_to_the_same_bytes(pictures, stage1_file, tmp_path):
    """With the discriminator, its running means and its moments."""
    options = {"files": StartFiles(stage1=stage1_file)}
    changes = ("data.batch=2", "save_every=3")
    name = "smoke_inpainting_s2"
    train(name, pictures, tmp_path / "whole", *changes, "iterations=5", **options)
    train(name, pictures, tmp_path / "cut", *changes, "iterations=3", **options)
    state = read_state(tmp_path / "cut" / "state.safetensors")
    assert set(state.part("other.discriminator")) == set(NLayerDiscriminator(4).state_dict())
    more = {**options, "resume": True}
    train(name, pictures, tmp_path / "cut", *changes, "iterations=5", **more)
    for file in ("state.safetensors", "model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_a_user_may_get_wrong(stage1_file):
    perceptual = load_recipe("smoke_inpainting_s1", ("weights.perceptual=1",))
    with pytest.raises(BIRError, match="encoder_epoch_20.pth .* perceptual weight to 0"):
        inpainting_stage1_training(perceptual, StartFiles())
    needless = StartFiles(perceptual=stage1_file)
    with pytest.raises(BIRError, match="weight is 0 takes no --perceptual"):
        inpainting_stage1_training(load_recipe("smoke_inpainting_s1"), needless)
    wider = load_recipe("smoke_inpainting_s2", ("network.dim=16",))
    with pytest.raises(BIRError, match="Expected a stage 1 of the recipe's network"):
        inpainting_stage2_training(wider, StartFiles(stage1=stage1_file))
    with pytest.raises(BIRError, match="degradation` that cuts holes for inpainting"):
        load_recipe("smoke_inpainting_s1", ("data.degradation=simple_x1",))
    with pytest.raises(BIRError, match="a network of inpainting"):
        load_recipe("smoke_inpainting_s1", ("network.task=deblur", "data.degradation=pairs"))


RECIPES = [
    f"inpainting_{data}_s{stage}" for data in ("celeba", "places", "places_big") for stage in (1, 2)
]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_official_ones(name):
    recipe = load_recipe(name)
    big = "big" in name
    assert recipe.network == OFFICIAL_CONFIGS["inpainting_big" if big else "inpainting"]
    assert (recipe.data.patch, recipe.data.batch) == (256, 15 if big else 4)
    assert recipe.data.augmentation == ("none" if "celeba" in name else "places")
    # 40 epochs of all of CelebA-HQ's 26000 pictures, or of 25000 batches.
    assert recipe.iterations == 40 * (26_000 // 4 if "celeba" in name else 25_000)
    weights = recipe.weights
    assert (weights.known, weights.adversarial, weights.features) == (10, 10, 100)
    assert (weights.perceptual, weights.penalty) == (30, 0.001)
    for optimizer, rate in ((recipe.optimizer, 2e-4), (recipe.discriminator_optimizer, 1e-4)):
        assert (optimizer.rate_at(0), optimizer.rate_at(10**6)) == (rate, rate)
        assert (optimizer.betas, optimizer.clip) == ((0.9, 0.999), 1)
    assert recipe.ema == 0
