"""The trials, on random networks and on functions that are right or wrong on purpose."""

import pytest
import torch
from diffbir_models import (
    TINY_SWINIR,
    TINY_UNET,
    filled,
    text_encoder,
    text_tower_weights,
    tiny_networks,
)
from torch import nn

from bir_core.checkpoints import load_model
from bir_core.checkpoints.architectures import ARCHITECTURES
from bir_core.diffbir.restoration_modules import RestorationModule
from bir_core.errors import BIRError
from bir_core.images import resize
from bir_core.memory import CPU
from bir_core.metrics import psnr
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.damage import DamageConfig, DamageFinder
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.estimator import Estimator, EstimatorConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR
from bir_core.networks.unet import SDUNet
from bir_core.verification.trials import (
    SPANDREL,
    TRIALS,
    VAE_SIDE,
    compared,
    damaged_pair,
    sample_picture,
    try_module,
)


def run(name, network):
    with torch.no_grad():
        return TRIALS[name].run(network, CPU)


def diffir(stage, task, scale):
    sizes = {"dim": 8, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "n_encoder_res": 1}
    config = DiffIRConfig(task=task, scale=scale, num_refinement_blocks=1, **sizes)
    return (DiffIRStage2 if stage == 2 else DiffIRStage1)(config).eval()


def test_every_architecture_has_a_trial():
    assert set(TRIALS) == {row.name for row in ARCHITECTURES} | {SPANDREL}


def test_the_picture_is_always_the_same_and_has_detail():
    picture = sample_picture(64, 96)
    assert torch.equal(picture, sample_picture(64, 96))
    assert picture.shape == (1, 3, 64, 96)
    assert picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.1
    assert (picture[..., 1:] - picture[..., :-1]).abs().max() > 0.05


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_damaged_picture(scale):
    lq, original = damaged_pair(32, 40, scale)
    assert lq.shape == (1, 3, 32, 40) and original.shape == (1, 3, 32 * scale, 40 * scale)
    assert torch.equal(original, sample_picture(32 * scale, 40 * scale))
    enlarged = resize(lq, *original.shape[-2:]).clamp(0, 1)
    assert 15 < psnr(enlarged, original).item() < 32


def test_numbers_of_a_comparison():
    picture = sample_picture(32, 32)
    findings = compared(picture + 0.05, picture, "original")
    numbers = findings.numbers
    assert numbers["mean_difference_to_original"] == pytest.approx(0.05, rel=1e-4)
    expected = psnr((picture + 0.05).clamp(0, 1), picture).item()
    assert numbers["psnr_to_original_db"] == pytest.approx(expected)
    assert numbers["largest"] == pytest.approx(picture.max().item() + 0.05)
    assert (numbers["width"], numbers["height"]) == (32, 32)
    assert findings.doubts == ()


def test_doubts_and_failures_of_a_comparison():
    picture = sample_picture(32, 32)
    inverted, flat = compared(1 - picture, picture, "x"), compared(0.5 + 0 * picture, picture, "x")
    assert "far from the x" in inverted.doubts[0]
    assert "one flat colour" in flat.doubts[-1]
    with pytest.raises(BIRError, match="NaN or infinity"):
        compared(picture * float("nan"), picture, "x")
    with pytest.raises(BIRError, match=r"shape \(1, 3, 32, 32\), but \(1, 3, 32, 31\)"):
        compared(picture[..., 1:], picture, "x")


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    ("task", "scale"), [("sr", 4), ("sr", 2), ("sr", 1), ("deblur", 1), ("inpainting", 1)]
)
def test_diffir(stage, task, scale):
    numbers = run(f"diffir_s{stage}", diffir(stage, task, scale)).numbers
    assert numbers["height"] == 64 * scale
    assert numbers["width"] == (69 if stage == 2 else 64) * scale
    reference = "original" if stage == 1 else "enlarged_input"
    if stage == 2 and task == "inpainting":
        reference = "picture_without_hole"
    assert f"psnr_to_{reference}_db" in numbers
    assert ("gained_db" in numbers) == (reference == "enlarged_input")


@pytest.mark.parametrize("scale", [1, 4])
def test_a_good_restorer_is_not_doubted(scale):
    network = (
        CompactRestorer(CompactConfig(scale=scale, features=8, layers=1))
        .eval()
        .requires_grad_(False)
    )
    for layer in network.body:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    findings = run("compact", network)
    assert findings.doubts == ()
    assert findings.numbers["psnr_to_enlarged_input_db"] > 20
    draw_near_identity(network, torch.Generator().manual_seed(0))
    network.body[-1].weight.mul_(50)
    assert "far from the enlarged input" in run("compact", network).doubts[0]


@pytest.mark.parametrize("name", ["builtin-diffir-x4", "builtin-diffir-x1"])
def test_a_trained_network_gains_and_a_random_one_loses(name):
    model = load_model(name)
    trained = run(model.info.architecture, model)
    assert trained.doubts == ()
    assert trained.numbers["gained_db"] > 0
    random = run("diffir_s2", diffir(2, "sr", model.info.scale))
    assert random.numbers["gained_db"] < -1


def test_what_a_function_gains():
    module = RestorationModule(lambda image: image, 1, "x")
    assert try_module(module, CPU).numbers["gained_db"] == 0
    lq, original = damaged_pair(64, 64, 1)
    perfect = RestorationModule(lambda image: 0.5 * (image + original), 1, "x")
    # Half of the error is a quarter of its square.
    assert try_module(perfect, CPU).numbers["gained_db"] == pytest.approx(6.02, abs=0.01)


def test_swinir_and_a_network_of_spandrel():
    assert run("swinir", filled(SwinIR(TINY_SWINIR), 5000)).numbers["width"] == 64
    module = RestorationModule(
        lambda image: image.repeat_interleave(2, 2).repeat_interleave(2, 3), 2, "x"
    )
    findings = try_module(module, CPU)
    assert findings.doubts == () and findings.numbers["width"] == 128
    wrong = RestorationModule(lambda image: image, 2, "x")
    with pytest.raises(BIRError, match="of a changed network"):
        try_module(wrong, CPU)


def test_an_estimator_should_find_the_noise_that_was_added():
    model = Estimator(EstimatorConfig(features=2, hidden=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # more activity then gives larger numbers
        model.convolutions[-1].bias.fill_(1)
    findings = run("estimator", model)
    clean, noisy = findings.numbers.values()
    assert noisy > clean and findings.doubts == ()
    with torch.no_grad():
        model.judge[-1].weight.neg_()
    assert "no more noise" in run("estimator", model).doubts[0]


def test_vae():
    findings = run("sd_vae", tiny_networks()["sd_vae"])
    assert findings.numbers["width"] == VAE_SIDE
    assert findings.numbers["scaled_latent_deviation"] > 0
    assert "picture before encoding" in findings.doubts[0]  # random weights


class Fixed(nn.Module):
    """A UNet that gives a share of its input and a share of what is always the same."""

    def __init__(self, share):
        super().__init__()
        self.config, self.share = TINY_UNET, share
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, timesteps, context):
        assert timesteps.tolist() == [999] and context.shape == (1, 77, TINY_UNET.context_dim)
        other = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
        return self.share * x + (1 - self.share**2) ** 0.5 * other


@pytest.mark.parametrize(
    ("share", "predicts"), [(0.99, "eps"), (0.0, "v"), (0.6, "unclear"), (-0.99, "unclear")]
)
def test_what_a_unet_predicts(share, predicts):
    findings = run("sd_unet", Fixed(share))
    assert findings.numbers["predicts"] == predicts
    assert findings.numbers["noise_correlation"] == pytest.approx(share, abs=0.05)
    assert findings.numbers["share_that_noise_changes"] == pytest.approx(share**2, abs=0.05)
    assert (findings.doubts != ()) == (predicts == "unclear")


def test_a_network_that_nobody_trained_predicts_nothing():
    """Its output has little to do with the noise, but is not the same for another."""
    findings = run("sd_unet", tiny_networks()["sd_unet"])
    assert findings.numbers["predicts"] == "unclear"
    assert "changes" in findings.doubts[0]


def test_unet_and_ir_controlnet():
    networks = tiny_networks()
    assert run("sd_unet", networks["sd_unet"]).numbers["output_rms"] > 0
    findings = run("ir_controlnet", networks["ir_controlnet"])
    assert findings.numbers["residuals"] == 3
    assert findings.numbers["largest_rms_of_the_condition"] > 0
    assert findings.doubts == ()
    untrained = IRControlNet.from_unet(SDUNet(TINY_UNET)).requires_grad_(False)
    assert "before its training" in run("ir_controlnet", untrained).doubts[0]
    deaf = networks["ir_controlnet"]
    deaf.input_blocks[0][0].weight[:, 4:] = 0
    assert "do not depend on the condition" in run("ir_controlnet", deaf).doubts[0]


def test_text_encoder():
    encoder = text_encoder(text_tower_weights(4000)[0])
    findings = run("text_encoder", encoder)
    assert findings.numbers["difference_of_a_word_rms"] > 0
    assert findings.doubts == ()
    encoder.token_embedding.weight[:] = 0
    assert "what the empty text gives" in run("text_encoder", encoder).doubts[0]


@pytest.mark.parametrize("name", ["sd_unet", "ir_controlnet", "sd_vae"])
def test_numbers_that_are_not_finite(name):
    network = tiny_networks()[name]
    next(network.parameters()).fill_(float("inf"))
    with pytest.raises(BIRError, match="NaN or infinity"):
        run(name, network)


def test_a_finder_that_finds_all_or_nothing_is_doubted():
    network = DamageFinder(DamageConfig(features=(4, 6))).eval().requires_grad_(False)
    nn.init.zeros_(network.last.weight)
    nn.init.constant_(network.last.bias, 5.0)
    findings = run("damage_finder", network)
    assert findings.numbers["share_taken_for_damage"] == 1
    assert len(findings.doubts) == 2
    nn.init.constant_(network.last.bias, -5.0)
    assert len(run("damage_finder", network).doubts) == 1
    nn.init.constant_(network.last.bias, float("nan"))
    with pytest.raises(BIRError, match="The logits"):
        run("damage_finder", network)
