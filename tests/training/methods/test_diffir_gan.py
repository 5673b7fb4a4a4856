"""The GAN stage of DiffIR."""

import pytest
import torch
from tolerances import CANCELLED_GRADIENT
from training_steps import first_step

from bir_core import load_model
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.networks.discriminators import UNetDiscriminator
from bir_core.networks.perceptual import VGG19
from bir_core.training import loop
from bir_core.training.data import open_source
from bir_core.training.methods import diffir_gan
from bir_core.training.methods.diffir_gan import gan_training
from bir_core.training.methods.table import load_recipe
from bir_core.training.perceptual import VGG19Loss
from bir_core.training.run import make_source, run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state


@pytest.fixture(scope="module")
def stages(pictures, tmp_path_factory):
    """Short trainings of both stages before."""
    out = tmp_path_factory.mktemp("stages")
    options = {"data": pictures, "device": "cpu"}
    stage1 = run_recipe(load_recipe("smoke_s1", ("iterations=5",)), output=out / "1", **options)
    recipe = load_recipe("smoke_s2", ("iterations=30", "encoder_iterations=10"))
    stage2 = run_recipe(recipe, output=out / "2", files=StartFiles(stage1=stage1), **options)
    return StartFiles(stage1=stage1, start_from=stage2)


def train(pictures, files, output, *changes, **more):
    recipe = load_recipe("smoke_gan", changes)
    return run_recipe(recipe, data=pictures, files=files, output=output, device="cpu", **more)


def shown(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_it_learns_and_its_model_opens(pictures, stages, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    model = train(pictures, stages, tmp_path, "iterations=40", validation=pictures)
    for name, share in (("network/pixel", 0.9), ("network/prior", 0.7)):
        values = shown(tmp_path, name)
        assert len(values) == 40
        assert values[-1] < share * max(values[:15])
    quality = shown(tmp_path, "validation/psnr")
    assert len(quality) == 2 and all(10 < value < 60 for value in quality)
    restored = load_model(model, architecture="diffir_s2")(torch.rand(1, 3, 8, 8))
    assert restored.shape == (1, 3, 32, 32)


def test_the_discriminator_learns(pictures, stages, one_batch, tmp_path, monkeypatch):
    """Against a generator that stands still; in the game of both its loss may as well rise."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    train(pictures, stages, tmp_path, "iterations=30", "optimizer.rate=1e-9")
    values = shown(tmp_path, "discriminator/total")
    assert values[-1] < 0.85 * values[0]


@pytest.mark.parametrize("degradation", ["simple_x4", "realesrgan_x4_usm"])
def test_one_step_is_its_formula(pictures, stages, tmp_path, monkeypatch, degradation):
    torch.manual_seed(3)
    vgg19 = VGG19()
    monkeypatch.setattr(diffir_gan, "read_vgg19", lambda path: vgg19)
    recipe = load_recipe(
        "smoke_gan",
        (
            f"data.degradation={degradation}",
            "weights.pixel=0.5",
            "weights.prior=0.7",
            "weights.perceptual=0.3",
            "weights.gan=0.9",
        ),
    )
    before, batch, losses, gradients = first_step(recipe, stages, pictures, tmp_path)
    sharpened = degradation.endswith("usm")
    assert batch.hq.shape[1] == (6 if sharpened else 3)
    target = batch.hq[:, :3]
    real = batch.hq[:, 3:] if sharpened else batch.hq
    assert torch.equal(target, real) != sharpened
    model, discriminator = before.model, before.others["discriminator"]
    model.requires_grad_(True)
    stage1 = load_model(stages.stage1)
    assert all(
        torch.equal(value, load_model(stages.start_from).state_dict()[name])
        for name, value in model.state_dict().items()
    )

    with torch.no_grad():
        z_1 = stage1.encode(batch.lq, target)
    noise = torch.randn(4, 256, generator=batch.generator)
    # The schedule's last abar is 0.00259804.
    z = model.reverse(0.05097095 * z_1 + 0.99870014 * noise, model.encode_condition(batch.lq))[-1]
    restored = model.G(batch.lq, z)
    pixel = (restored - target).abs().mean()
    prior = (z - z_1).abs().mean()
    perceptual = VGG19Loss(vgg19)(restored, target)
    gan = -torch.sigmoid(discriminator(restored)).log().mean()
    total = 0.5 * pixel + 0.7 * prior + 0.3 * perceptual + 0.9 * gan
    parts = {"pixel": pixel, "prior": prior, "perceptual": perceptual, "gan": gan, "total": total}
    for name, value in parts.items():
        assert losses[f"network/{name}"] == pytest.approx(float(value.detach()), rel=1e-4)
    wanted = torch.autograd.grad(total, list(model.parameters()))
    close(gradients["network"], wanted)

    # The discriminator sees what the generator restored before its step.
    of_real, of_fake = discriminator(real), discriminator(restored.detach())
    total = -of_real.sigmoid().log().mean() - (1 - of_fake.sigmoid()).log().mean()
    assert losses["discriminator/total"] == pytest.approx(float(total.detach()), rel=1e-4)
    wanted = torch.autograd.grad(total, list(discriminator.parameters()))
    close(gradients["discriminator"], wanted)


def close(gradients, wanted):
    largest = max(float(each.abs().max()) for each in wanted)
    for ours, theirs in zip(gradients, wanted, strict=True):
        atol = 2e-3 * float(theirs.abs().max()) + CANCELLED_GRADIENT * largest
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol)


def test_a_batch_of_a_sharpening_degradation_also_has_the_picture_before(pictures):
    changes = ("data.degradation=realesrgan_x4_usm", "data.pool=4", "data.batch=2")
    recipe = load_recipe("smoke_gan", changes)
    accelerator = loop.make_accelerator("cpu")
    source = make_source(recipe, open_source(pictures, recipe.data), accelerator)
    assert source.degrade is not None
    hq = torch.rand(2, 3, 40, 40)
    lq, both = source.degrade(hq, torch.Generator().manual_seed(0))
    preset = get_preset("realesrgan_x4_usm")
    expected = degrade(hq, preset, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lq, expected.lq)
    assert torch.equal(both, torch.cat([expected.hq, hq], dim=1))
    batches = [batch for part in source.iterations(1, 4) for batch in part]
    assert all(batch.hq.shape == (2, 6, 32, 32) for batch in batches)
    assert not load_recipe("smoke_gan").keeps_unsharpened
    assert not load_recipe("smoke_s2", changes).keeps_unsharpened


def test_it_goes_on_to_the_same_bytes(pictures, stages, tmp_path):
    """With the discriminator, its spectral norms and its moments."""
    changes = ("data.batch=2", "data.accumulate=2", "save_every=3")
    whole = train(pictures, stages, tmp_path / "whole", *changes, "iterations=5")
    train(pictures, stages, tmp_path / "cut", *changes, "iterations=3")
    state = read_state(tmp_path / "cut" / "state.safetensors")
    assert set(state.part("other.discriminator")) == set(UNetDiscriminator(8).state_dict())
    cut = train(pictures, stages, tmp_path / "cut", *changes, "iterations=5", resume=True)
    assert cut.read_bytes() == whole.read_bytes()
    for name in ("state.safetensors", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_a_user_may_get_wrong(stages, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    perceptual = load_recipe("smoke_gan", ("weights.perceptual=1",))
    with pytest.raises(BIRError, match="VGG19 at .*--perceptual, or set .* perceptual weight to 0"):
        gan_training(perceptual, stages)
    needless = StartFiles(
        stage1=stages.stage1, start_from=stages.start_from, perceptual=stages.stage1
    )
    with pytest.raises(BIRError, match="weight is 0 takes no --perceptual"):
        gan_training(load_recipe("smoke_gan"), needless)
    wider = load_recipe("smoke_gan", ("network.dim=16",))
    with pytest.raises(BIRError, match="Expected a stage 1 of the recipe's network"):
        gan_training(wider, stages)
    slower = load_recipe("smoke_gan", ("network.linear_end=0.9",))
    with pytest.raises(BIRError, match="Expected a stage 2 of the recipe's network"):
        gan_training(slower, stages)
    swapped = StartFiles(stage1=stages.stage1, start_from=stages.stage1)
    with pytest.raises(BIRError):
        gan_training(load_recipe("smoke_gan"), swapped)
    with pytest.raises(BIRError, match="`weights` of 0 or more"):
        load_recipe("smoke_gan", ("weights.gan=-1",))
    with pytest.raises(BIRError, match="degradation` that cuts holes for inpainting"):
        load_recipe("smoke_gan", ("data.degradation=masks_train",))


@pytest.mark.parametrize("name", ["realsr_x4", "realsr_x2", "realsr_x1", "srgan_x4"])
def test_recipes_go_on_from_stage_2(name):
    recipe, before = load_recipe(f"{name}_gan"), load_recipe(f"{name}_s2")
    assert recipe.network == before.network
    assert recipe.data == before.data
    assert recipe.iterations == 400_000
    weights = recipe.weights
    assert (weights.pixel, weights.prior, weights.perceptual, weights.gan) == (1, 1, 1, 1)
    assert recipe.discriminator_features == 64
    if name == "srgan_x4":
        return
    second = load_recipe(f"{name}_gan_v2")
    assert not recipe.keeps_unsharpened and second.keeps_unsharpened
    assert get_preset(second.data.degradation).scale == recipe.scale


def test_rates():
    """RealSR: 1e-4 * 0.5^(i // 300000) for G with i from 1, and 1e-4 for D; SRGAN: 2e-4 and 1e-4,
    halved at 200000."""
    recipe = load_recipe("realsr_x4_gan")
    for i in (1, 299_999, 300_000, 400_000):
        assert recipe.optimizer.rate_at(i - 1) == pytest.approx(1e-4 * 0.5 ** (i // 300_000))
        assert recipe.discriminator_optimizer.rate_at(i - 1) == pytest.approx(1e-4)
    recipe = load_recipe("srgan_x4_gan")
    for position, factor in ((0, 1), (199_999, 1), (200_000, 0.5)):
        assert recipe.optimizer.rate_at(position) == pytest.approx(2e-4 * factor)
        assert recipe.discriminator_optimizer.rate_at(position) == pytest.approx(1e-4 * factor)
