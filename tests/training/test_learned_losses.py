"""Losses of networks in a recipe's table: against their formulas, resumed, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from training_steps import first_step

from bir_core import load_model
from bir_core.checkpoints.distances import LPIPS_FILES, read_lpips
from bir_core.errors import BIRError
from bir_core.networks.discriminators import PatchDiscriminator
from bir_core.networks.distances import LPIPS
from bir_core.networks.perceptual import VGG16, VGG19
from bir_core.training.losses import hinge_discriminator, hinge_generator
from bir_core.training.methods.table import load_recipe
from bir_core.training.perceptual import VGG19_FILE, VGG19Loss, read_vgg19
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles

SMALL = ("data.batch=2", "data.patch=32", "validation.every=0", "save_every=100")
LPIPS_ONLY = "losses={ lpips = { weight = 0.5, levels = 2 } }"
ADVERSARIAL = (
    "losses={ l1 = { weight = 1.0 }, gan = { weight = 0.1, start = START, features = 4, "
    "feature_matching = 0.2 } }"
)


@pytest.fixture(scope="module")
def torch_cache(tmp_path_factory):
    """Random weights where torch keeps those of others."""
    folder = tmp_path_factory.mktemp("torch")
    path = folder / "hub" / LPIPS_FILES["vgg"]
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    distance = LPIPS(VGG16(5))
    for head in distance.heads:
        torch.nn.init.uniform_(head)
    save_file(distance.state_dict(), path)
    (folder / "hub/checkpoints").mkdir()
    torch.save(VGG19().state_dict(), folder / "hub/checkpoints" / VGG19_FILE)
    return folder


@pytest.fixture
def weights(torch_cache, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(torch_cache))


def recipe_of(*changes):
    return load_recipe("smoke_restoration_module", (*SMALL, *changes))


def gradients_of(loss, parameters):
    return torch.autograd.grad(loss, parameters)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        # Sums of some thousand products in float32, in another order.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()) + 1e-12)


def test_a_step_of_lpips_is_that_of_its_formula(weights, pictures, tmp_path):
    recipe = recipe_of(LPIPS_ONLY)
    before, batch, shown, gradients = first_step(recipe, StartFiles(), pictures, tmp_path / "out")
    distance = read_lpips("vgg", levels=2)
    expected = distance(before.model(batch.lq), batch.hq).mean()
    assert shown["network/lpips"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert shown["network/total"] == pytest.approx(0.5 * float(expected.detach()), rel=1e-4)
    wanted = gradients_of(0.5 * expected, list(before.model.parameters()))
    assert_same(gradients["network"], wanted)


def test_a_step_of_vgg19_is_that_of_its_formula(weights, pictures, tmp_path):
    recipe = recipe_of("losses={ vgg19 = { weight = 2.0 } }")
    before, batch, shown, gradients = first_step(recipe, StartFiles(), pictures, tmp_path / "out")
    expected = VGG19Loss(read_vgg19(None))(before.model(batch.lq), batch.hq)
    assert shown["network/total"] == pytest.approx(2 * float(expected.detach()), rel=1e-4)
    wanted = gradients_of(2 * expected, list(before.model.parameters()))
    assert_same(gradients["network"], wanted)


def test_a_step_of_the_gan_is_that_of_its_formula(pictures, tmp_path):
    recipe = recipe_of(ADVERSARIAL.replace("START", "1"))
    before, batch, shown, gradients = first_step(recipe, StartFiles(), pictures, tmp_path / "out")
    discriminator = before.others["discriminator"]
    restored = before.model(batch.lq)
    # In the order of the trainer, since each call makes one power iteration of the norms.
    logits, features = discriminator(restored)
    with torch.no_grad():
        _, wanted_features = discriminator(batch.hq)
    matching = torch.stack(
        [(a - b).square().mean() for a, b in zip(features, wanted_features, strict=True)]
    ).mean()
    total = (restored - batch.hq).abs().mean() - 0.1 * logits.mean() + 0.2 * matching
    assert shown["network/total"] == pytest.approx(float(total.detach()), rel=1e-4)
    assert shown["network/feature_matching"] == pytest.approx(float(matching.detach()), rel=1e-4)
    assert_same(gradients["network"], gradients_of(total, list(before.model.parameters())))
    real, _ = discriminator(batch.hq)
    fake, _ = discriminator(restored.detach())
    judged = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    assert shown["discriminator/total"] == pytest.approx(float(judged.detach()), rel=1e-4)
    assert_same(gradients["discriminator"], gradients_of(judged, list(discriminator.parameters())))


def test_the_gan_counts_from_its_start_and_learns_before(pictures, tmp_path):
    recipe = recipe_of(ADVERSARIAL.replace("START", "2"))
    before, batch, shown, gradients = first_step(recipe, StartFiles(), pictures, tmp_path / "out")
    assert "network/gan" not in shown and "network/feature_matching" not in shown
    assert shown["network/total"] == pytest.approx(
        float((before.model(batch.lq) - batch.hq).abs().mean().detach()), rel=1e-4
    )
    assert any(float(value.abs().max()) > 0 for value in gradients["discriminator"])


@pytest.mark.parametrize("losses", [LPIPS_ONLY, ADVERSARIAL.replace("START", "3")])
def test_resumes_to_the_same_weights(weights, losses, pictures, tmp_path):
    def train(iterations, output, **more):
        recipe = recipe_of(losses, f"iterations={iterations}")
        return run_recipe(recipe, data=pictures, output=output, device="cpu", **more)

    whole = load_model(train(6, tmp_path / "whole")).state_dict()
    train(2, tmp_path / "cut")
    cut = load_model(train(6, tmp_path / "cut", resume=True)).state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, -0.5, 1.0])
    assert float(hinge_discriminator(real, fake)) == pytest.approx((0 + 0.5 + 2) / 3 * 2)
    assert float(hinge_generator(fake)) == pytest.approx(0.5)


def test_a_patch_discriminator_sees_24_pixels():
    torch.manual_seed(0)
    network = PatchDiscriminator(4).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    logits, features = network(image)
    assert logits.shape == (1, 1, 16, 16)
    assert [feature.shape[1] for feature in features] == [4, 4, 8, 8]
    (gradient,) = torch.autograd.grad(logits[0, 0, 8, 8], image)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 24


@pytest.mark.parametrize(
    ("changes", "files", "message"),
    [
        ((LPIPS_ONLY,), StartFiles(), "run `bir weights measures`"),
        (("losses={ vgg19 = { weight = 1.0 } }",), StartFiles(), "weights of VGG19"),
        ((), StartFiles(perceptual="vgg19.pth"), "takes no --perceptual"),
    ],
)
def test_weights_that_are_absent_or_needless(
    changes, files, message, pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BIRError, match=message):
        run_recipe(
            recipe_of(*changes), data=pictures, output=tmp_path / "out", device="cpu", files=files
        )
