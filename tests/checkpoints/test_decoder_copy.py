"""The copy of a decoder that gradients go through."""

import pytest
import torch
from parity import fill_by_rule_w

from bir_core.checkpoints.decoder_copy import copy_decoder, decoder_config
from bir_core.errors import BIRError
from bir_core.networks.autoencoder import SDVAE, VAEConfig

CONFIG = VAEConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae() -> SDVAE:
    network = SDVAE(CONFIG).eval().requires_grad_(False)
    fill_by_rule_w(network, 0)
    return network


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    return torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))


def test_decodes_like_the_original(vae: SDVAE, latent: torch.Tensor) -> None:
    copy = copy_decoder(vae.state_dict(), device=CPU, dtype=torch.float32)
    assert torch.equal(copy.decode(latent), vae.decode(latent))


def test_needs_no_encoder_and_finds_its_sizes(vae: SDVAE) -> None:
    decoding = {
        name: value
        for name, value in vae.state_dict().items()
        if not name.startswith(("encoder.", "quant_conv."))
    }
    assert decoder_config(decoding) == CONFIG
    copy_decoder(decoding, device=CPU, dtype=torch.float32)


def test_gradient_goes_through_weights_of_an_inference_mode(
    vae: SDVAE, latent: torch.Tensor
) -> None:
    """ComfyUI loads and runs everything in it."""
    expected = latent.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(vae.decode(expected).square().sum(), expected)
    with torch.inference_mode():
        weights = {name: value.clone() for name, value in vae.state_dict().items()}
        copy = copy_decoder(weights, device=CPU, dtype=torch.float32)
        with torch.inference_mode(False), torch.enable_grad():
            x = latent.clone().requires_grad_(True)
            (ours,) = torch.autograd.grad(copy.decode(x).square().sum(), x)
    torch.testing.assert_close(ours, gradient)


def test_copy_is_not_the_original(vae: SDVAE, latent: torch.Tensor) -> None:
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    copy = copy_decoder(weights, device=CPU, dtype=torch.float32)
    before = copy.decode(latent)
    for value in weights.values():
        value.zero_()
    assert torch.equal(copy.decode(latent), before)


@pytest.mark.parametrize(
    "missing", ["post_quant_conv.weight", "decoder.conv_in.weight", "decoder.up"]
)
def test_other_networks_are_refused(vae: SDVAE, missing: str) -> None:
    weights = {n: v for n, v in vae.state_dict().items() if not n.startswith(missing)}
    with pytest.raises(BIRError, match="choose the space latent"):
        copy_decoder(weights, device=CPU, dtype=torch.float32)
