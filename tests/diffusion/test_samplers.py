"""Samplers against the official code on its stand-in network, and against each other."""

import json
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import load_vectors

from bir_core.diffusion.denoisers import discrete_denoiser, rescaled_cfg_scale, with_cfg
from bir_core.diffusion.midpoint_samplers import (
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_sde,
)
from bir_core.diffusion.multistep_samplers import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
    sample_dpmpp_m2,
    sample_lms,
)
from bir_core.diffusion.noise import image_generators, normal_noise
from bir_core.diffusion.samplers import (
    sample_ddim,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_spaced,
    scale_noise,
    unscale,
)
from bir_core.diffusion.schedules import sampling_schedule, sd_alphas_cumprod

VECTORS, METADATA = load_vectors("diffbir_samplers")
MORE_VECTORS, MORE_METADATA = load_vectors("diffbir_samplers_more")  # of a corner of the latents
CASES = {case["i"]: case for case in json.loads(METADATA["cases"])}
MORE_CASES = {case["i"]: case for case in json.loads(MORE_METADATA["cases"])}
SAMPLERS = {
    "spaced": ("spaced", sample_spaced),
    "ddim": ("ddim", sample_ddim),
    "dpm++_m2": ("dpm", sample_dpmpp_m2),
    "edm_euler": ("edm", sample_euler),
    "edm_euler_a": ("edm", sample_euler_ancestral),
    "edm_heun": ("edm", sample_heun),
    "edm_dpm_2": ("edm", sample_dpm_2),
    "edm_dpm_2_a": ("edm", sample_dpm_2_ancestral),
    "edm_lms": ("edm", sample_lms),
    "edm_dpm++_2s_a": ("edm", sample_dpmpp_2s_ancestral),
    "edm_dpm++_sde": ("edm", sample_dpmpp_sde),
    "edm_dpm++_2m": ("edm", sample_dpmpp_2m),
    "edm_dpm++_2m_sde": ("edm", sample_dpmpp_2m_sde),
    "edm_dpm++_3m_sde": ("edm", sample_dpmpp_3m_sde),
}
CHURNING = (sample_euler, sample_heun, sample_dpm_2)
STOCHASTIC = (
    sample_euler_ancestral,
    sample_dpm_2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_sde,
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
)


def stand_in(x, timestep, hint, context):
    """The network of the vectors; hint and context with one entry per sample."""
    prompt = context.mean(dim=(1, 2))[:, None, None, None]
    return 0.1 * x * (1 + timestep / 1000) + 0.2 * hint * prompt


def options(case, sampler):
    extra = case["extra"]
    if sampler in CHURNING:
        return {name: extra[name] for name in ("s_churn", "s_tmin", "s_tmax", "s_noise")}
    if sampler in STOCHASTIC:
        return {"eta": extra["eta"], "s_noise": extra["s_noise"]}
    if sampler is sample_lms:
        return {"order": extra["order"]}
    return {}


def run_case(case, callback=None, vectors=VECTORS):
    """Sample a case of the vectors. Returns the result and the timesteps the network was told."""
    height, width = vectors[f"out.{case['i']}"].shape[-2:]
    plan, sampler = SAMPLERS[case["sampler"]]
    schedule = sampling_schedule(
        plan, sd_alphas_cumprod(case["schedule"] == "zero-snr"), case["steps"]
    )
    told = []

    def network(x, timestep, **cond):
        told.append(timestep)
        return stand_in(x, timestep, **cond)

    hint = VECTORS["c_img"][..., :height, :width]
    scale = case["cfg_scale"]
    guided = with_cfg(
        network,
        {"hint": hint, "context": VECTORS["c_txt"]},
        {"hint": hint, "context": VECTORS["u_txt"]},
        (lambda t: rescaled_cfg_scale(scale, t)) if case["rescale_cfg"] else scale,
    )
    denoiser = discrete_denoiser(guided, schedule, case["param"])
    settings = options(case, sampler)
    if f"noise.{case['i']}" in vectors:
        draws = iter(vectors[f"noise.{case['i']}"])
        settings["noise_sampler"] = lambda sigma, sigma_next: next(draws)
    elif sampler in STOCHASTIC:  # without eta its draws do not count
        settings["noise_sampler"] = lambda sigma, sigma_next: torch.ones_like(hint)
    x = scale_noise(VECTORS["x_T"][..., :height, :width], float(schedule.sigmas[0]))
    x = sampler(denoiser, x, schedule.sigmas, callback=callback, **settings)
    return unscale(x, float(schedule.sigmas[-1])), told, schedule


# Up to 50 steps, each of which errs by an EPS or two of numbers that guidance makes some times
# larger than the result. A wrong coefficient of one step is 1e-3 and more.
TOLERANCE = 5e-5


def relative_error(ours, official):
    return float((ours - official).abs().max() / official.abs().max())


@pytest.mark.parametrize("index", CASES)
def test_equals_official(index):
    out, told, _ = run_case(CASES[index])
    assert relative_error(out, VECTORS[f"out.{index}"]) <= TOLERANCE
    official = list(dict.fromkeys(VECTORS[f"calls_t.{index}"].tolist()))
    assert list(dict.fromkeys(told)) == pytest.approx(official, abs=1e-3)


@pytest.mark.parametrize("index", MORE_CASES)
def test_equals_official_in_a_corner(index):
    case = MORE_CASES[index]
    out, told, _ = run_case(case, vectors=MORE_VECTORS)
    assert relative_error(out, MORE_VECTORS[f"out.{index}"]) <= TOLERANCE
    official = list(dict.fromkeys(MORE_VECTORS[f"calls_t.{index}"].tolist()))
    assert list(dict.fromkeys(told)) == pytest.approx(official, abs=1e-3)


def test_every_official_case_is_tested():
    assert sorted([*CASES, *MORE_CASES]) == list(range(44))


@pytest.mark.parametrize("index", [i for i in CASES if f"traj.{i}" in VECTORS])
def test_trajectory_equals_official(index):
    steps = []
    _, _, schedule = run_case(CASES[index], steps.append)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert {step.steps for step in steps} == {4}
    for step, official in zip(steps, VECTORS[f"traj.{index}"], strict=True):
        ours = unscale(step.x, float(schedule.sigmas[step.index + 1]))
        assert relative_error(ours, official) <= TOLERANCE


@pytest.mark.parametrize("index", CASES)
def test_callback_sees_every_step_and_its_estimate(index):
    steps = []
    out, _, schedule = run_case(CASES[index], steps.append)
    assert [step.index for step in steps] == list(range(CASES[index]["steps"]))
    torch.testing.assert_close(unscale(steps[-1].x, float(schedule.sigmas[-1])), out)
    if schedule.sigmas[-1] == 0:
        tolerance = {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(steps[-1].denoised, out, **tolerance)


def ideal_denoiser(mean=0.7, deviation=0.4):
    """The exact denoiser of data that is normal: its samplers can be checked in closed form."""

    def denoise(x, sigma):
        signal = deviation**2 / (deviation**2 + sigma**2)
        return mean + signal * (x - mean)

    return denoise


def smooth_sigmas(steps):
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([(80 ** (1 / 7) * (1 - ramp) + 0.002 ** (1 / 7) * ramp) ** 7, ramp[:1]])


@pytest.mark.parametrize(
    "sampler",
    [
        sample_euler,
        sample_heun,
        sample_dpm_2,
        partial(sample_lms, order=2),
        sample_dpmpp_2m,
        sample_ddim,
    ],
)
def test_deterministic_samplers_approach_the_exact_flow(sampler):
    """For normal data the flow takes mean + sqrt(s^2 + sigma^2) z to mean + s z."""
    z = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    exact = 0.7 + 0.4 * z
    errors = []
    for steps in (20, 80):
        sigmas = smooth_sigmas(steps)
        x = 0.7 + (0.4**2 + sigmas[0] ** 2).sqrt() * z
        errors.append(float((sampler(ideal_denoiser(), x, sigmas) - exact).abs().max()))
    order = 1 if sampler in (sample_euler, sample_ddim) else 2
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 2.5**order


@pytest.mark.parametrize("sampler", [*STOCHASTIC, sample_spaced])
def test_stochastic_samplers_give_the_data_distribution(sampler):
    sigmas = smooth_sigmas(60)
    generators = image_generators(0, 1)
    x = torch.randn(1, 1, 128, 128, generator=generators[0], dtype=torch.float64) * sigmas[0]
    out = sampler(ideal_denoiser(), x, sigmas, noise_sampler=normal_noise(generators, x))
    assert float(out.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(out.std()) == pytest.approx(0.4, abs=0.04)


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_spaced_is_the_ancestral_euler_sampler(steps, seed):
    """The posterior of DDPM is the ancestral step with eta 1, written in sigma."""
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(), steps)
    sigmas = schedule.sigmas.double()
    results = []
    for sampler in (sample_spaced, sample_euler_ancestral):
        generators = image_generators(seed, 2)
        x = torch.full((2, 1, 2, 2), 3.0, dtype=torch.float64)
        noise = normal_noise(generators, x)
        results.append(sampler(ideal_denoiser(), x, sigmas, noise_sampler=noise))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_without_eta_no_noise_is_drawn_that_counts(sampler):
    sigmas = smooth_sigmas(12)
    x = torch.full((1, 1, 2, 2), 80.0, dtype=torch.float64)
    quiet, loud = (
        sampler(ideal_denoiser(), x, sigmas, eta=0.0, noise_sampler=lambda *_, s=s: x * s)
        for s in (0.0, 5.0)
    )
    torch.testing.assert_close(quiet, loud)


def test_a_callback_may_cancel():
    class Cancelled(Exception):
        pass

    def cancel(step):
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_case(CASES[0], cancel)
