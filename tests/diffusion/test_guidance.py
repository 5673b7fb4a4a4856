"""Restoration guidance against the official code (v2.0.0), its formula and its purpose."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import load_vectors
from torch.nn import functional as F

from bir_core.diffusion.denoisers import discrete_denoiser, with_cfg
from bir_core.diffusion.guidance import (
    RestorationGuidance,
    descent,
    guided,
    next_sigma,
    pool_weight,
    posterior_weight,
    region_weight,
    with_guidance,
)
from bir_core.diffusion.multistep_samplers import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
)
from bir_core.diffusion.noise import image_generators, normal_noise
from bir_core.diffusion.samplers import (
    sample_ddim,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_spaced,
    scale_noise,
)
from bir_core.diffusion.schedules import sampling_schedule, sd_alphas_cumprod
from bir_core.errors import BIRError

VECTORS, METADATA = load_vectors("diffbir_guidance")
CASES = json.loads(METADATA["cases"])
SCHEDULE = sampling_schedule("spaced", sd_alphas_cumprod(), 10)


def decode(latent):
    """The decoder of the vectors."""
    enlarged = F.interpolate(latent, scale_factor=8)
    return torch.tanh(torch.einsum("oc,bchw->bohw", VECTORS["dec_M2"].to(latent), enlarged))


def encode(image):
    return torch.einsum("oc,bchw->bohw", VECTORS["enc_M"], F.avg_pool2d(image, 8))


def network(x, timestep, hint, context):
    prompt = context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)
    return 0.1 * x * (1 + timestep / 1000) + 0.2 * hint * prompt


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_weight_map_equals_official():
    ours = region_weight((VECTORS["target"] + 1) / 2)
    torch.testing.assert_close(ours, VECTORS["w_map"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "w_mse"])
def test_gradient_equals_official(loss):
    weight = None if loss == "mse" else VECTORS["w_map"]
    ours = descent(VECTORS["pred"], VECTORS["target"], weight, 0.5)
    torch.testing.assert_close(ours, VECTORS[f"{loss}_delta"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "w_mse"])
def test_gradient_is_that_of_the_loss(loss):
    weight = torch.ones_like(VECTORS["w_map"]) if loss == "mse" else VECTORS["w_map"]
    pred = VECTORS["pred"].clone().requires_grad_(True)
    value = (weight * (pred - VECTORS["target"]) ** 2).mean(dim=(1, 2, 3)).sum()
    torch.testing.assert_close(value.detach()[None], VECTORS[f"{loss}_loss"])
    (gradient,) = torch.autograd.grad(value, pred)
    ours = descent(pred.detach(), VECTORS["target"], weight, 0.25)
    torch.testing.assert_close(ours, -gradient * 3000 * 0.25)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['space']}-{case['loss']}")
def test_trajectory_equals_official(case):
    image = VECTORS["target_img"]
    guidance = RestorationGuidance(
        latent=encode(image),
        scale=case["g_scale"],
        weight=region_weight((image + 1) / 2) if case["loss"] == "w_mse" else None,
        image=image if case["space"] == "rgb" else None,
        decode=decode if case["space"] == "rgb" else None,
        start=case["g_start"],
        stop=case["g_stop"],
        repeats=case["repeat"],
    )
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(), 4)
    hint = VECTORS["c_img"]
    cond, uncond = ({"hint": hint, "context": VECTORS[name]} for name in ("c_txt", "u_txt"))
    denoiser = discrete_denoiser(with_cfg(network, cond, uncond, 4.0), schedule, "eps")
    draws = iter(VECTORS[f"noise.{case['i']}"])
    trajectory = []
    sample_spaced(
        with_guidance(denoiser, guidance, schedule),
        scale_noise(VECTORS["x_T"], float(schedule.sigmas[0])),
        schedule.sigmas,
        noise_sampler=lambda *_: next(draws),
        callback=lambda step: trajectory.append(step.x),
    )
    # The pixel trajectory without weights overshoots and magnifies rounding.
    tolerance = 1e-3 if (case["space"], case["loss"]) == ("rgb", "mse") else 1e-5
    for i, official in enumerate(VECTORS[f"traj.{case['i']}"]):
        sigma = schedule.sigmas[i + 1]
        ours = trajectory[i] / (1 + sigma**2).sqrt()
        assert (ours - official).abs().max() <= tolerance * official.abs().max()
    official = VECTORS[f"out.{case['i']}"]
    assert (trajectory[-1] - official).abs().max() <= tolerance * official.abs().max()


def test_flat_regions_weigh_most():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    weight = region_weight(image)
    assert float(weight[..., :14].min()) == 1
    assert float(weight[..., 15].max()) < 0.01
    pooled = pool_weight(weight)
    assert pooled.shape == (1, 1, 4, 4)
    torch.testing.assert_close(
        pooled[0, 0, 0], torch.tensor([1.0, 0.75, 0.75, 1.0]), atol=0.01, rtol=0
    )


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20))
def test_weight_map_of_any_even_size(half_height, half_width):
    weight = region_weight(torch.rand(2, 3, 2 * half_height, 2 * half_width))
    assert weight.shape == (2, 1, 2 * half_height, 2 * half_width)
    assert bool(((weight >= 0) & (weight <= 1)).all())


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 3, 4, 5), (1, 4, 4, 4)])
def test_weight_map_refuses_other_shapes(shape):
    with pytest.raises(BIRError, match="RGB image of even height and width"):
        region_weight(torch.zeros(shape))


def test_posterior_weight_is_the_coefficient_of_the_schedule():
    schedules, _ = load_vectors("diffbir_schedules")
    for kind, zero_snr in (("eps", False), ("zsnr", True)):
        schedule = sampling_schedule("spaced", sd_alphas_cumprod(zero_snr), 10)
        sigmas = schedule.sigmas.tolist()
        official = schedules[f"spaced.{kind}.10.posterior_mean_coef1"].flip(0)
        ours = [posterior_weight(sigmas[i], sigmas[i + 1]) for i in range(10)]
        torch.testing.assert_close(torch.tensor(ours), official, rtol=1e-5, atol=0)


def test_next_sigma_also_between_the_levels():
    sigmas = torch.tensor([14.0, 5.0, 1.0, 0.0])
    assert [next_sigma(s, sigmas) for s in (14.0, 13.9999, 9.0, 5.0, 0.5)] == [5, 5, 5, 1, 0]
    assert next_sigma(5.00001, sigmas) == 1
    assert next_sigma(torch.inf, sigmas) == 14
    assert next_sigma(1.0, sigmas[:3]) == 0


def ideal(x, sigma):
    """The exact denoiser of normal data around 0, as a bound network."""
    return x / (1 + sigma**2)


def run(sampler, guidance, seed=0, batch=2):
    sigmas = SCHEDULE.sigmas
    x = random(batch, 4, 8, 8, seed=seed) * (1 + sigmas[0] ** 2).sqrt()
    denoiser = ideal if guidance is None else with_guidance(ideal, guidance, SCHEDULE)
    options = {}
    if sampler in STOCHASTIC:
        options["noise_sampler"] = normal_noise(image_generators(seed, batch), x)
    return sampler(denoiser, x, sigmas, **options)


STOCHASTIC = (sample_spaced, sample_euler_ancestral, sample_dpmpp_2m_sde, sample_dpmpp_3m_sde)
SAMPLERS = (*STOCHASTIC, sample_ddim, sample_euler, sample_heun, sample_dpmpp_2m)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_larger_scale_comes_closer_with_every_sampler(sampler):
    target = random(2, 4, 8, 8, seed=5)
    distances = [
        float((run(sampler, RestorationGuidance(latent=target, scale=scale)) - target).norm())
        for scale in (0.0, 0.001, 0.003, 0.006, 0.01)
    ]
    assert all(
        later < 0.99 * earlier for earlier, later in zip(distances[:-1], distances[1:], strict=True)
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_scale_zero_is_bit_equal_to_no_guidance(sampler):
    guidance = RestorationGuidance(latent=random(2, 4, 8, 8, seed=5), scale=0.0)
    assert torch.equal(run(sampler, guidance), run(sampler, None))


def test_guidance_is_active_between_start_and_stop_only():
    denoised = random(1, 4, 4, 4)
    guidance = RestorationGuidance(latent=denoised + 1, scale=0.1, start=500, stop=100)
    moved = [
        t
        for t in (0, 99, 100, 400, 498, 499, 999)
        if not torch.equal(
            guided(denoised, guidance, sigma=2.0, sigma_next=1.0, timestep=t), denoised
        )
    ]
    assert moved == [100, 400, 498]


@pytest.mark.parametrize("form", ["latent", "rgb"])
def test_an_image_of_a_batch_is_guided_as_if_alone(form):
    pixels = (
        {"image": random(3, 3, 32, 32, seed=1).tanh(), "decode": decode} if form == "rgb" else {}
    )
    latent, denoised = random(3, 4, 4, 4, seed=2), random(3, 4, 4, 4, seed=3)
    levels = {"sigma": 2.0, "sigma_next": 1.0, "timestep": 500.0}
    together = guided(denoised, RestorationGuidance(latent=latent, scale=0.5, **pixels), **levels)
    for i in range(3):
        own = {**pixels, "image": pixels["image"][i : i + 1]} if pixels else {}
        guidance = RestorationGuidance(latent=latent[i : i + 1], scale=0.5, **own)
        alone = guided(denoised[i : i + 1], guidance, **levels)
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("form", ["latent", "rgb"])
def test_inside_inference_mode(form):
    """ComfyUI's nodes run there, where tensors cannot take part in autograd."""
    levels = {"sigma": 2.0, "sigma_next": 1.0, "timestep": 500.0}
    results = []
    for mode in (False, True):
        with torch.inference_mode(mode):
            image = random(1, 3, 32, 32, seed=1).tanh()
            pixels = {"image": image, "decode": decode} if form == "rgb" else {}
            weight = region_weight((image + 1) / 2)
            guidance = RestorationGuidance(
                latent=random(1, 4, 4, 4, seed=2),
                scale=0.5,
                weight=weight if form == "rgb" else pool_weight(weight),
                **pixels,
            )
            results.append(guided(random(1, 4, 4, 4, seed=3), guidance, **levels))
    torch.testing.assert_close(*results)


def test_the_mask_says_where_to_invent_restore_and_keep():
    latent, denoised = random(1, 4, 4, 6), random(1, 4, 4, 6, seed=1)
    mask = torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0]).expand(1, 1, 4, 6)
    levels = {"sigma": 2.0, "sigma_next": 1.0, "timestep": 500.0}
    plain = guided(denoised, RestorationGuidance(latent=latent, scale=0.01), **levels)
    guidance = RestorationGuidance(latent=latent, scale=0.01, mask=mask)
    masked = guided(denoised, guidance, **levels)
    assert torch.equal(masked[..., :2], denoised[..., :2])
    assert torch.equal(masked[..., 2:4], plain[..., 2:4])
    torch.testing.assert_close(masked[..., 4:], latent[..., 4:])
    assert not torch.allclose(plain[..., 4:], latent[..., 4:], atol=0.1)


def test_repeats_pull_again():
    latent, denoised = random(1, 4, 4, 4), random(1, 4, 4, 4, seed=1)
    levels = {"sigma": 2.0, "sigma_next": 1.0, "timestep": 500.0}
    once = RestorationGuidance(latent=latent, scale=0.001)
    twice = RestorationGuidance(latent=latent, scale=0.001, repeats=2)
    expected = guided(guided(denoised, once, **levels), once, **levels)
    torch.testing.assert_close(guided(denoised, twice, **levels), expected)


def test_pixels_need_a_decoder():
    with pytest.raises(BIRError, match="one of them is missing"):
        RestorationGuidance(
            latent=torch.zeros(1, 4, 4, 4), scale=1, image=torch.zeros(1, 3, 32, 32)
        )


def test_maps_of_another_size_are_refused():
    for name in ("weight", "mask"):
        with pytest.raises(BIRError, match=r"\(4, 4\), but \(5, 4\) came"):
            RestorationGuidance(
                latent=torch.zeros(1, 4, 4, 4), scale=1, **{name: torch.zeros(1, 1, 5, 4)}
            )


def test_a_picture_of_another_size_is_refused():
    guidance = RestorationGuidance(latent=torch.zeros(1, 4, 4, 4), scale=1)
    with pytest.raises(BIRError, match=r"\(8, 8\) latents .* but \(4, 4\) came"):
        guided(torch.zeros(1, 4, 8, 8), guidance, sigma=2.0, sigma_next=1.0, timestep=500)
