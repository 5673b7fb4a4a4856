"""RePaint's cost against its schedule, walked step by step, and ADM's published number."""

import pytest

from bir_core.costs.pixel_diffusion import (
    adm_multiply_adds,
    network_calls,
    repaint_multiply_adds,
)


def walked(steps, jump, resamplings):
    """RePaint's way through the noise levels: calls of the network, and all steps."""
    left = dict.fromkeys(range(0, steps - jump, jump), resamplings - 1)
    level, calls, back = steps, 0, 0
    while level:
        level -= 1
        calls += 1
        if left.get(level):
            left[level] -= 1
            level += jump
            back += jump
    return calls, calls + back


@pytest.mark.parametrize("settings", [(250, 10, 10), (250, 10, 1), (100, 5, 3), (30, 10, 4)])
def test_calls_are_those_of_the_schedule(settings):
    assert network_calls(*settings) == walked(*settings)[0]


def test_of_4570_steps_2410_call_the_network():
    assert walked(250, 10, 10) == (2410, 4570)
    assert network_calls() == 2410


def test_adm_takes_what_is_published():
    assert adm_multiply_adds() == pytest.approx(1.12e12, rel=0.001)


def test_the_cost_of_a_picture_grows_with_its_pixels():
    assert repaint_multiply_adds(256, 256) == 2410 * adm_multiply_adds()
    assert repaint_multiply_adds(512, 256) == 2 * repaint_multiply_adds(256, 256)
