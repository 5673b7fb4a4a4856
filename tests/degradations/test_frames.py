import math

import pytest
import torch

from bir_core.degradations.frames import average_frames
from bir_core.errors import BIRError


@pytest.mark.parametrize("gamma", [2.2, 1.0])
def test_equals_the_formula(gamma):
    frames = torch.rand(5, 1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.empty(3, 4, 6, dtype=torch.float64)
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(6)).tolist():
        values = [float(frame[(0, *place)]) for frame in frames]
        mean = sum(value**gamma for value in values) / 5
        expected[tuple(place)] = mean ** (1 / gamma)
    got = average_frames(iter(frames), gamma)
    torch.testing.assert_close(got[0].double(), expected, rtol=0, atol=1e-6)


def test_a_light_outweighs_the_dark_in_linear_values():
    frames = [torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)]
    assert float(average_frames(frames).mean()) == pytest.approx(0.5 ** (1 / 2.2), abs=1e-6)
    assert float(average_frames(frames, 1.0).mean()) == 0.5


def test_equal_frames_stay():
    frame = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(average_frames([frame] * 7), frame, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "frames, gamma, message",
    [
        ([], 2.2, "at least one frame"),
        ([torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 6)], 2.2, "one size, but 5x4 and 6x4"),
        ([torch.zeros(1, 3, 4, 5)], 0.0, "gamma above 0, but 0 came"),
        ([torch.zeros(1, 3, 4, 5)], math.nan, "gamma above 0, but nan came"),
    ],
)
def test_impossible_frames_are_refused(frames, gamma, message):
    with pytest.raises(BIRError, match=message):
        average_frames(frames, gamma)
