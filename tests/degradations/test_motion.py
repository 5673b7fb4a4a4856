import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.degradations import MixedKernels, degrade, get_preset
from bir_core.degradations.kernels import draw_kernel
from bir_core.degradations.motion import motion_kernel
from bir_core.errors import BIRError

LENGTHS = st.floats(1, 40)
ANGLES = st.floats(-math.pi, math.pi)


@given(LENGTHS, ANGLES, ANGLES)
def test_weighs_one_around_its_middle(length, theta, bend):
    kernel = motion_kernel(length, theta, bend).double()
    side = kernel.shape[-1]
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    assert side % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    assert (kernel.sum(1) * axis).sum().item() == pytest.approx(0, abs=1e-5)
    assert (kernel.sum(0) * axis).sum().item() == pytest.approx(0, abs=1e-5)


@given(LENGTHS)
def test_a_straight_path_is_an_even_line(length):
    # The second moment of an even line of this length; spreading to two pixels adds at most 1/4.
    kernel = motion_kernel(length)
    axis = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    moment = (kernel.sum(0) * axis**2).sum().item()
    assert length**2 / 12 - 0.02 <= moment <= length**2 / 12 + 0.26
    assert kernel.sum(1)[kernel.shape[-1] // 2].item() == pytest.approx(1, abs=1e-5)


@given(LENGTHS)
def test_theta_turns_from_columns_to_rows(length):
    along_columns, along_rows = motion_kernel(length), motion_kernel(length, math.pi / 2)
    torch.testing.assert_close(along_rows, along_columns.T, rtol=0, atol=1e-5)


def test_a_bent_path_is_shorter_across():
    half_circle = motion_kernel(30, 0, math.pi)
    columns = (half_circle.sum(0) > 1e-3).sum().item()
    rows = (half_circle.sum(1) > 1e-3).sum().item()
    diameter = 30 / (math.pi / 2)
    assert columns == pytest.approx(diameter, abs=2.5)
    assert rows == pytest.approx(diameter / 2, abs=2.5)


def test_steps_turn_the_path_where_they_come():
    """A right angle: half of the path to the right, half downwards, by hand."""
    corner = motion_kernel(20, math.pi / 4, 0, [0.0, math.pi / 2]).double()
    columns, rows = corner.sum(0), corner.sum(1)
    axis = torch.arange(len(columns)) - len(columns) // 2
    # The legs are even lines of 10; the centre of mass lies 2.5 from the corner's lines.
    for weights, place in ((columns, 2.5), (rows, -2.5)):
        assert float((weights * axis).sum()) == pytest.approx(0, abs=1e-5)
        heavy = (weights * (axis - place).abs().lt(1)).sum()
        assert float(heavy) == pytest.approx(0.5, abs=0.11)


@given(LENGTHS, ANGLES, st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_a_shaken_path_weighs_one_around_its_middle(length, theta, steps):
    kernel = motion_kernel(length, theta, 0.5, steps).double()
    axis = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    assert (kernel.sum(1) * axis).sum().item() == pytest.approx(0, abs=1e-5)
    assert (kernel.sum(0) * axis).sum().item() == pytest.approx(0, abs=1e-5)


def test_a_shaking_hand_draws_its_walk():
    """The direction at the end deviates by the shake, and the kernel is that of the steps."""
    generator = torch.Generator().manual_seed(0)
    kernels = MixedKernels(motion_probability=1.0, motion_shake=(1.5, 1.5))
    drawn = [draw_kernel(kernels, generator) for _ in range(1500)]
    ends = torch.tensor([sum(values["steps"]) for _, values in drawn])
    assert float(ends.std()) == pytest.approx(1.5, rel=0.08)
    kernel, values = drawn[0]
    again = motion_kernel(values["length"], values["theta"], values["bend"], values["steps"])
    assert torch.equal(kernel, again)


@pytest.mark.parametrize("length, bend", [(0.5, 0), (math.nan, 0), (5, 4), (5, math.nan)])
def test_refuses_an_impossible_path(length, bend):
    with pytest.raises(BIRError, match="length of at least 1 pixel"):
        motion_kernel(length, 0, bend)


def test_a_share_of_the_kernels_is_motion():
    generator = torch.Generator().manual_seed(0)
    kernels = MixedKernels(motion_probability=0.3, motion_length=(6, 9), motion_bend=(0.1, 0.2))
    drawn = [draw_kernel(kernels, generator)[1] for _ in range(2000)]
    motions = [values for values in drawn if values["kind"] == "motion"]
    assert len(motions) / 2000 == pytest.approx(0.3, abs=0.05)
    assert all(6 <= values["length"] <= 9 and 0.1 <= values["bend"] <= 0.2 for values in motions)


def test_without_motion_nothing_is_drawn_for_it():
    changed = MixedKernels(motion_probability=0.0, motion_length=(1, 2), motion_bend=(0, 1))
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    for _ in range(20):
        kernel, values = draw_kernel(MixedKernels(), first)
        other, others = draw_kernel(changed, second)
        assert values == others
        assert torch.equal(kernel, other)


def test_the_preset_moves_each_picture_by_its_own_path():
    hq = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    degraded = degrade(hq, get_preset("motion"), generator=torch.Generator().manual_seed(1))
    kinds = [kernel["kind"] for kernel in degraded.draws["kernels"]]
    assert degraded.lq.shape == hq.shape
    assert kinds == ["motion", "motion"]
    assert degraded.draws["kernels"][0] != degraded.draws["kernels"][1]
