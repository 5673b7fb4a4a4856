"""Denoisers and classifier-free guidance."""

import json
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from parity import load_vectors

from bir_core.diffusion.denoisers import (
    discrete_denoiser,
    nearest_timestep,
    rescaled_cfg_scale,
    with_cfg,
    with_tiles,
)
from bir_core.diffusion.samplers import sample_spaced, scale_noise
from bir_core.diffusion.schedules import q_sample, sampling_schedule, sd_alphas_cumprod, v_target
from bir_core.errors import BIRError

X0 = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(1, 3, 4, 4)
NOISE = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(st.integers(0, 9), st.sampled_from(["eps", "v"]), st.booleans())
def test_a_perfect_network_gives_the_clean_latent(index, parameterization, zero_snr):
    """From x_t and the true eps or v the denoiser must find x0, at the infinite level too."""
    assume(not (parameterization == "eps" and zero_snr and index == 0))
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(zero_snr), 10)
    abar, sigma = schedule.alphas_cumprod[index], float(schedule.sigmas[index])
    x = scale_noise(q_sample(X0, NOISE, abar), sigma)

    def network(x, timestep):
        assert timestep == schedule.timesteps[index]
        return NOISE if parameterization == "eps" else v_target(X0, NOISE, abar)

    denoised = discrete_denoiser(network, schedule, parameterization)(x, sigma)
    torch.testing.assert_close(denoised, X0, rtol=1e-4, atol=1e-4)


def test_the_network_sees_unit_variance():
    schedule = sampling_schedule("edm", sd_alphas_cumprod(), 10)
    seen = []

    def network(x, timestep):
        seen.append(x)
        return torch.zeros_like(x)

    discrete_denoiser(network, schedule, "v")(NOISE * 1e4, 1e4)
    torch.testing.assert_close(seen[0], NOISE, rtol=1e-5, atol=1e-6)


def test_an_eps_network_cannot_start_from_noise_alone():
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(zero_snr=True), 4)
    denoiser = discrete_denoiser(lambda x, t: x, schedule, "eps")
    with pytest.raises(BIRError, match="finite noise level"):
        denoiser(NOISE, float(schedule.sigmas[0]))


def test_a_level_between_two_is_told_the_nearer_timestep():
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(zero_snr=True), 4)
    high, low = schedule.sigmas[1:3].tolist()
    sigmas = (high, low * 0.6 + high * 0.4, low, math.inf)
    assert [nearest_timestep(sigma, schedule.levels) for sigma in sigmas] == [666, 333, 333, 999]


def test_growing_scale_equals_official():
    _, metadata = load_vectors("diffbir_schedules")
    for timestep, official in json.loads(metadata["rescale_cfg"]).items():
        assert rescaled_cfg_scale(8.0, float(timestep)) == pytest.approx(official, rel=1e-9)


@given(st.floats(0, 1), st.integers(0, 999))
def test_a_scale_up_to_one_does_not_grow(scale, timestep):
    assert rescaled_cfg_scale(scale, timestep) == scale


def counting_network(batches):
    def network(x, level, context):
        batches.append(len(x))
        return x * context

    return network


COND = {"context": torch.full((2, 1, 1, 1), 3.0)}
UNCOND = {"context": torch.full((2, 1, 1, 1), 1.0)}


def test_cfg_extrapolates_in_one_batch():
    batches = []
    guided = with_cfg(counting_network(batches), COND, UNCOND, 4.0)
    out = guided(torch.ones(2, 1, 2, 2), 0.0)
    torch.testing.assert_close(out, torch.full((2, 1, 2, 2), 1.0 + 4 * (3 - 1)))
    assert batches == [4]


@pytest.mark.parametrize(("uncond", "scale"), [(UNCOND, 1.0), (None, 4.0)])
def test_uncond_is_not_run_where_it_has_no_weight(uncond, scale):
    batches = []
    guided = with_cfg(counting_network(batches), COND, uncond, scale)
    out = guided(torch.ones(2, 1, 2, 2), 0.0)
    torch.testing.assert_close(out, torch.full((2, 1, 2, 2), 3.0))
    assert batches == [2]


def test_cfg_may_follow_the_level():
    guided = with_cfg(counting_network([]), COND, UNCOND, lambda level: level)
    out = guided(torch.ones(2, 1, 1, 1), 5.0)
    torch.testing.assert_close(out, torch.full((2, 1, 1, 1), 1.0 + 5 * 2))


def tile_local_network(x, timestep, hint, context):
    """The network of the official tiled vectors: a ramp tells where in its tile a pixel lies."""
    prompt = context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)
    rows = torch.linspace(-1, 1, x.shape[-2])[:, None]
    columns = torch.linspace(-1, 1, x.shape[-1])
    return 0.1 * x * (1 + timestep / 1000) + 0.2 * hint * prompt + 0.1 * rows + 0.05 * columns


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_tiled_sampling_equals_official(tile_batch):
    vectors, metadata = load_vectors("diffbir_tiled_sampler")
    size, stride = int(metadata["tile_size"]), int(metadata["tile_stride"])
    network = with_tiles(
        tile_local_network, size, size - stride, weights="official", tile_batch=tile_batch
    )
    hint = vectors["c_img"]
    cond, uncond = ({"hint": hint, "context": vectors[name]} for name in ("c_txt", "u_txt"))
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(), 4)
    denoiser = discrete_denoiser(with_cfg(network, cond, uncond, 4.0), schedule, "eps")
    draws = iter(vectors["noise"])
    x = scale_noise(vectors["x_T"], float(schedule.sigmas[0]))
    out = sample_spaced(denoiser, x, schedule.sigmas, noise_sampler=lambda *_: next(draws))
    assert (out - vectors["out"]).abs().max() <= 1e-5 * vectors["out"].abs().max()


def batch_of_two(height, width):
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(2, 4, height, width, generator=generator),
        "hint": torch.randn(2, 4, height, width, generator=generator),
        "context": torch.randn(2, 5, 3, generator=generator),
        "level": 700.0,
    }


def test_one_tile_is_bit_equal_to_none():
    inputs = batch_of_two(10, 12)
    x, level = inputs.pop("x"), inputs.pop("level")
    tiled = with_tiles(tile_local_network, 16, 8)(x, level, **inputs)
    assert torch.equal(tiled, tile_local_network(x, level, **inputs))


def test_each_sample_of_a_batch_keeps_its_conditions_on_tiles():
    inputs = batch_of_two(20, 27)
    x, level = inputs.pop("x"), inputs.pop("level")
    network = with_tiles(tile_local_network, 8, 4, tile_batch=3)
    together = network(x, level, **inputs)
    for i in range(2):
        own = {name: value[i : i + 1] for name, value in inputs.items()}
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1], level, **own))
