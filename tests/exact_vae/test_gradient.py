"""The gradient through the tiled autoencoder equals that through the whole one."""

import pytest
import torch
from exact_vae.test_passes import network, uneven
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SPLIT_NETWORK

from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.exact_vae.gradient import (
    gradient_bytes,
    gradient_working_bytes,
    run_tiled_with_gradient,
)
from bir_core.exact_vae.operations import decoder_operations, encoder_operations

CPU = torch.device("cpu")
SMALL, DEEP, GROWING = network(), network(ch_mult=(1, 2, 2, 4)), network(ch_mult=(4, 4))


def back(function, x, cotangent):
    x = x.clone().requires_grad_()
    output = function(x)
    return output.detach(), torch.autograd.grad(output, x, cotangent(output))[0]


def pull(output):
    """As of a loss: towards something else, more in one part."""
    ramp = torch.linspace(0, 2, output.shape[-1])
    return ramp * (0.3 - output.detach())


def check(network, list_operations, x, tile):
    operations = list_operations(network)
    whole, expected = back(network, x, pull)
    tiled, ours = back(
        lambda each: run_tiled_with_gradient(operations, each, tile=tile, device=CPU), x, pull
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)
    atol = SPLIT_NETWORK * float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=0, atol=atol)


@settings(max_examples=8)
@given(st.integers(2, 14), st.integers(2, 14), st.integers(8, 30), st.integers(1, 2))
def test_decoder_at_any_size(height, width, tile, batch):
    check(SMALL.decoder, decoder_operations, uneven(batch, 4, height, width), tile)


@pytest.mark.parametrize("vae", [DEEP, GROWING], ids=["deep", "growing"])
def test_other_depths_and_the_encoder(vae):
    check(vae.decoder, decoder_operations, uneven(1, 4, 7, 9), 16)
    multiple = vae.config.size_multiple
    check(vae.encoder, encoder_operations, uneven(1, 3, 5 * multiple, 6 * multiple), 16)


@pytest.mark.parametrize("vae", [network(ch_mult=(1, 2, 2)), GROWING], ids=["deep", "growing"])
@pytest.mark.parametrize("tile", [16, 48])
def test_memory_is_what_was_computed(vae, tile):
    operations, latent = decoder_operations(vae.decoder), uneven(1, 4, 24, 32)

    def peak(function):
        return peak_tensors_of(lambda: back(function, latent, pull)[1])[1]

    tiled = peak(lambda x: run_tiled_with_gradient(operations, x, tile=tile, device=CPU))
    parked = gradient_bytes(operations, 24, 32)
    pictures = 5 * 3 * 24 * 32 * vae.config.size_multiple**2 * 4
    working = gradient_working_bytes(operations, tile, torch.float32)
    assert parked < tiled <= parked + pictures + working
    assert peak(vae.decoder) > 2 * tiled


def test_every_tile_may_cancel():
    operations, latent = decoder_operations(SMALL.decoder), uneven(1, 4, 12, 12)
    calls = []

    def callback():
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt

    def run():
        back(
            lambda x: run_tiled_with_gradient(operations, x, tile=8, device=CPU, callback=callback),
            latent,
            pull,
        )

    limit = 0
    run()
    limit, total = len(calls), len(calls)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):  # in the last tile of the way back
        run()
    assert len(calls) == total
