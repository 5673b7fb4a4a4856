"""Schedules against the official tables."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import load_vectors

from bir_core.diffusion.schedules import (
    ddim_timesteps,
    model_sigmas,
    q_sample,
    sampling_schedule,
    sd_alphas_cumprod,
    sd_betas,
    sigmas_from_alphas_cumprod,
    spaced_timesteps,
    v_target,
    zero_terminal_snr,
)
from bir_core.errors import BIRError

VECTORS, METADATA = load_vectors("diffbir_schedules")
KINDS = {"eps": False, "zsnr": True}


def assert_equal(ours, official, rtol=1e-6, atol=1e-7):
    torch.testing.assert_close(ours, official, rtol=rtol, atol=atol, check_dtype=False)


def test_betas_equal_official():
    assert_equal(sd_betas(), VECTORS["betas_eps"], rtol=1e-12)
    assert_equal(zero_terminal_snr(sd_betas()), VECTORS["betas_zsnr"], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_alphas_cumprod_equal_official(kind):
    assert_equal(sd_alphas_cumprod(KINDS[kind]), VECTORS[f"alphas_cumprod_{kind}"], rtol=1e-9)


def test_zero_snr_ends_in_noise_alone():
    abar = sd_alphas_cumprod(zero_snr=True)
    assert abar[-1] == 0
    assert torch.isinf(sigmas_from_alphas_cumprod(abar)[-1])
    assert_equal(abar.sqrt(), VECTORS["sqrt_ac_zsnr_f32"])
    assert_equal((1 - abar).sqrt(), VECTORS["sqrt_1mac_zsnr_f32"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 50])
def test_spaced_schedule_equals_official(kind, steps):
    schedule = sampling_schedule("spaced", sd_alphas_cumprod(KINDS[kind]), steps)
    official = {
        name: VECTORS[f"spaced.{kind}.{steps}.{name}"].flip(0)
        for name in ("timesteps", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
    }
    assert torch.equal(schedule.timesteps[:-1], official["timesteps"])
    abar = schedule.alphas_cumprod
    assert abar[-1] == 1
    assert_equal(abar[:-1].sqrt(), official["sqrt_alphas_cumprod"])
    assert_equal((1 - abar[:-1]).sqrt(), official["sqrt_one_minus_alphas_cumprod"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_schedule_equals_official(kind, steps):
    schedule = sampling_schedule("ddim", sd_alphas_cumprod(KINDS[kind]), steps)
    prefix = f"ddim.{kind}.{steps}"
    assert torch.equal(schedule.timesteps[:-1], VECTORS[f"{prefix}.timesteps"].flip(0))
    assert_equal(schedule.alphas_cumprod[:-1], VECTORS[f"{prefix}.alphas"].flip(0))
    assert_equal(schedule.alphas_cumprod[1:], VECTORS[f"{prefix}.alphas_prev"].flip(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 50])
def test_edm_schedule_equals_official(kind, steps):
    schedule = sampling_schedule("edm", sd_alphas_cumprod(KINDS[kind]), steps)
    assert torch.equal(schedule.timesteps, VECTORS[f"edm.{kind}.{steps}.timesteps"])
    assert_equal(schedule.sigmas, VECTORS[f"edm.{kind}.{steps}.sigmas"])


@pytest.mark.parametrize("kind", KINDS)
def test_dpm_schedule_equals_official(kind):
    schedule = sampling_schedule("dpm", sd_alphas_cumprod(KINDS[kind]), 10)
    assert_equal(schedule.timesteps, VECTORS[f"dpm.{kind}.10.model_t"], atol=1e-4)
    log_alpha = 0.5 * schedule.alphas_cumprod.log()
    assert_equal(log_alpha, VECTORS[f"dpm.{kind}.10.log_alpha"], rtol=2e-6)
    assert_equal(-schedule.sigmas.log(), VECTORS[f"dpm.{kind}.10.lambda"], rtol=5e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_process_equals_official(kind):
    abar = sd_alphas_cumprod(KINDS[kind])[VECTORS["q.t"]]
    x0, noise = VECTORS["q.x0"], VECTORS["q.noise"]
    assert_equal(q_sample(x0, noise, abar), VECTORS[f"q.{kind}.x_t"])
    assert_equal(v_target(x0, noise, abar), VECTORS[f"q.{kind}.v"])


@given(st.integers(1, 1000))
def test_spaced_timesteps_cover_the_trained_range(steps):
    timesteps = spaced_timesteps(steps)
    assert len(set(timesteps)) == steps
    assert timesteps == sorted(timesteps)
    assert timesteps[-1] == 999
    assert timesteps[0] == (999 if steps == 1 else 0)


@given(st.integers(1, 200), st.sampled_from([1.0, 0.75, 0.5, 0.2]))
def test_spaced_sigmas_walk_down_from_the_models_table(steps, denoise):
    table = torch.linspace(0.03, 14.6, 1000)
    sigmas = model_sigmas("spaced", table, steps, denoise)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())
    if denoise == 1:
        assert torch.equal(sigmas[:-1].flip(0), table[torch.tensor(spaced_timesteps(steps))])


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_edm_sigmas_are_the_official_ones_of_the_models_table(steps):
    abar = sd_alphas_cumprod()
    table = sigmas_from_alphas_cumprod(abar).float()
    assert_equal(model_sigmas("edm", table, steps), sampling_schedule("edm", abar, steps).sigmas)


def test_no_denoising_is_no_step():
    assert model_sigmas("spaced", torch.linspace(0.03, 14.6, 1000), 20, 0.0).numel() == 0


@pytest.mark.parametrize("steps", [3, 9, 27, 36, 37, 101, 111])
def test_ddim_refuses_steps_that_run_past_the_schedule(steps):
    with pytest.raises(BIRError, match=f"{steps} steps run past"):
        ddim_timesteps(steps)


@pytest.mark.parametrize("plan", ["spaced", "ddim", "edm", "dpm"])
@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(plan, steps):
    with pytest.raises(BIRError, match=f"between 1 and 1000, but {steps} came"):
        sampling_schedule(plan, sd_alphas_cumprod(), steps)


def test_the_cut_of_the_dpm_schedule_is_the_official_one():
    for kind, zero_snr in KINDS.items():
        kept = int(METADATA[f"dpm_total_N_{kind}"])
        last = sampling_schedule("dpm", sd_alphas_cumprod(zero_snr), 10).timesteps[0]
        assert float(last) == pytest.approx((1 - 1 / kept) * 1000, abs=1e-3)
