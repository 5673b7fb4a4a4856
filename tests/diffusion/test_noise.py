"""Noise: per image, whatever its batch; and the official Brownian path."""

import importlib.util
import threading
from itertools import pairwise
from queue import SimpleQueue

import pytest
import torch
from parity import load_vectors

from bir_core.diffusion.noise import (
    Draws,
    brownian_noise,
    draw_normal,
    drawn_ahead,
    image_generators,
    normal_noise,
)
from bir_core.errors import BIRError


def test_noise_of_an_image_does_not_depend_on_its_batch():
    batch = draw_normal(image_generators(7, 3), torch.zeros(3, 4, 5, 6))
    alone = draw_normal(image_generators(9, 1), torch.zeros(1, 4, 5, 6))
    assert torch.equal(batch[2:], alone)
    assert not torch.equal(batch[0], batch[1])


def test_noise_takes_the_type_of_the_latent_but_not_its_numbers():
    half = draw_normal(image_generators(0, 1), torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16))
    full = draw_normal(image_generators(0, 1), torch.zeros(1, 4, 2, 2))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())


def test_each_call_draws_anew_and_leaves_the_global_generator():
    state = torch.get_rng_state()
    noise = normal_noise(image_generators(3, 2), torch.zeros(2, 1, 8, 8))
    assert not torch.equal(noise(2.0, 1.0), noise(2.0, 1.0))
    assert torch.equal(state, torch.get_rng_state())


def test_brownian_noise_equals_official():
    pytest.importorskip("torchsde", reason="torchsde is not installed")
    vectors, _ = load_vectors("diffbir_brownian")
    sigmas = vectors["sigmas"].tolist()
    noise = brownian_noise([1234], torch.zeros(1, 4, 4, 4), torch.tensor([1e4, 1.0, 0.1, 0.0]))
    for i, official in enumerate(vectors["noise"]):
        # Normal numbers come from a logarithm and a cosine, whose last bits differ with the
        # instruction set, and dividing by the root of a part of the path enlarges that.
        torch.testing.assert_close(noise(sigmas[i], sigmas[i + 1]), official, rtol=0, atol=2e-5)


def test_brownian_noise_is_one_path_whatever_the_steps():
    pytest.importorskip("torchsde", reason="torchsde is not installed")
    noise = brownian_noise([5, 6], torch.zeros(2, 1, 3, 3), torch.tensor([10.0, 0.1]))
    levels = [10.0, 4.0, 0.5]
    parts = sum(noise(high, low) * (high - low) ** 0.5 for high, low in pairwise(levels))
    whole = noise(levels[0], levels[2]) * (levels[0] - levels[2]) ** 0.5
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_brownian_noise_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BIRError, match=r"pip install comfyui-bir\[brownian\]"):
        brownian_noise([0], torch.zeros(1, 1, 1, 1), torch.tensor([10.0, 0.1]))


def test_brownian_noise_of_an_image_does_not_depend_on_its_batch():
    pytest.importorskip("torchsde", reason="torchsde is not installed")
    sigmas = torch.tensor([1e4, 7.0, 0.5, 0.0])
    batch = brownian_noise([7, 8, 9], torch.zeros(3, 4, 5, 6), sigmas)(1e4, 7.0)
    alone = brownian_noise([9], torch.zeros(1, 4, 5, 6), sigmas)(1e4, 7.0)
    assert torch.equal(batch[2:], alone)
    assert not torch.equal(batch[0], batch[1])


def told_noise(told):
    """Noise that tells a queue of each draw, and by which thread it was made."""

    def noise(sigma, sigma_next):
        told.put((sigma, sigma_next, threading.current_thread()))
        return torch.full((1,), sigma - sigma_next)

    return noise


def test_the_next_noise_is_drawn_while_a_step_runs():
    """Before it is asked for, by another thread, one ahead and no more."""
    intervals, told = [(9.0, 4.0), (4.0, 1.0), (1.0, 0.5)], SimpleQueue()
    with drawn_ahead(told_noise(told), intervals) as ahead:
        for sigma, sigma_next in intervals:
            *drawn, thread = told.get()
            assert drawn == [sigma, sigma_next]
            assert thread != threading.main_thread()
            assert told.empty()
            assert float(ahead(sigma, sigma_next)) == sigma - sigma_next
    assert told.empty()


def test_noise_that_was_not_foreseen_is_drawn_all_the_same():
    with drawn_ahead(told_noise(SimpleQueue()), [(9.0, 4.0), (4.0, 1.0)]) as ahead:
        assert float(ahead(7.0, 1.0)) == 6
        assert float(ahead(4.0, 1.0)) == 3


def test_no_thread_is_left_when_a_sampling_is_cancelled():
    intervals, before = [(9.0, 4.0), (4.0, 1.0)], set(threading.enumerate())

    class Cancelled(Exception):
        pass

    noise = told_noise(SimpleQueue())
    with pytest.raises(Cancelled), drawn_ahead(noise, intervals) as ahead:
        ahead(9.0, 4.0)
        raise Cancelled
    assert set(threading.enumerate()) == before


def test_an_error_of_the_noise_reaches_the_step():
    def broken(sigma, sigma_next):
        raise BIRError("no noise")

    with pytest.raises(BIRError, match="no noise"), drawn_ahead(broken, [(2.0, 1.0)]) as ahead:
        ahead(2.0, 1.0)


def test_noise_drawn_ahead_has_the_same_numbers():
    pytest.importorskip("torchsde", reason="torchsde is not installed")
    sigmas, like = torch.tensor([1e4, 7.0, 0.5, 0.0]), torch.zeros(2, 4, 5, 6)
    noise = brownian_noise([7, 8], like, sigmas)
    intervals = [(1e4, 7.0), (7.0, 0.5)]
    with Draws([7, 8]).of_sampler(like, sigmas, intervals) as ahead:
        for interval in intervals:
            assert torch.equal(ahead(*interval), noise(*interval))
