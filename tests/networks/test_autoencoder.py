"""The autoencoder against numbers of the official code."""

import pytest
import torch
from parity import assert_rule_check, fill_by_rule_w, load_vectors, vae_settings

from bir_core.errors import BIRError
from bir_core.networks.autoencoder import SDVAE, VAEConfig


@pytest.fixture(scope="module")
def official():
    vectors, metadata = load_vectors("diffbir_vae_small")
    vae = SDVAE(VAEConfig(**vae_settings(metadata["config"]))).requires_grad_(False)
    check = fill_by_rule_w(vae, int(metadata["rule_base"]))
    assert_rule_check(check, metadata["rule_check"])
    return vae, vectors


def assert_close_to_maximum(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_encoding_equals_official(official):
    vae, vectors = official
    assert_close_to_maximum(vae.encode(vectors["img"]), vectors["mode"])
    moments = torch.cat(vae.posterior(vectors["img"]), dim=1)
    assert_close_to_maximum(moments, vectors["moments"])


def test_decoding_equals_official(official):
    vae, vectors = official
    assert_close_to_maximum(vae.decode(vectors["dec_in"]), vectors["dec_out"])
    large = vae.decode(vectors["tile_dec_in"])[..., ::4, ::4]
    assert_close_to_maximum(large, vectors["full_dec_out_sub4"])


def test_a_sample_is_the_mode_and_scaled_noise(official):
    vae, vectors = official
    image = vectors["img"]
    sample = vae.encode(image, generator=torch.Generator().manual_seed(3))
    mean, log_variance = vae.posterior(image)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(sample, mean + log_variance.exp().sqrt() * noise)
    assert not torch.equal(sample, vae.encode(image))


def test_the_log_variance_is_limited(official):
    vae, vectors = official
    _, log_variance = vae.posterior(1e4 * vectors["img"])
    bias = vae.quant_conv.bias.clone()
    vae.quant_conv.bias[4:] += 100
    try:
        _, limited = vae.posterior(vectors["img"])
    finally:
        vae.quant_conv.bias.copy_(bias)
    assert limited.max() == 20
    assert log_variance.min() >= -30


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda vae: vae.encode(torch.zeros(1, 3, 20, 16)), "divide by 8, but 20 x 16"),
        (lambda vae: vae.encode(torch.zeros(1, 4, 16, 16)), "(B, 3, H, W)"),
        (lambda vae: vae.decode(torch.zeros(1, 3, 2, 2)), "(B, 4, H, W)"),
    ],
)
def test_wrong_input_is_said(official, call, sentence):
    with pytest.raises(BIRError) as caught:
        call(official[0])
    assert sentence in str(caught.value)


def test_impossible_configuration_is_said():
    with pytest.raises(BIRError, match="should divide by 32"):
        VAEConfig(ch=48)
