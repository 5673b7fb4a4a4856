"""The pairs that MATLAB's imresize makes, against its formula written as loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.degradations import degrade, get_preset
from bir_core.images import resize


def keys(x: float) -> float:
    """Keys (1981), equation 4 with a = -1/2."""
    x, a = abs(x), -0.5
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def by_loops(line: list[float], count: int) -> list[float]:
    """A line of pixels at `count` places, all in Python's double precision."""
    length = len(line)
    scale = count / length
    shrink = min(scale, 1.0)
    mirrored = line + line[::-1]
    result = []
    for place in range(1, count + 1):  # MATLAB counts pixels from 1
        centre = place / scale + 0.5 * (1 - 1 / scale)
        first = math.floor(centre - 2 / shrink)
        total = weighed = 0.0
        for source in range(first, first + math.ceil(4 / shrink) + 2):
            weight = shrink * keys(shrink * (centre - source))
            total += weight
            weighed += weight * mirrored[(source - 1) % (2 * length)]
        result.append(weighed / total)
    return result


def picture_by_loops(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(H, W) float64, columns first."""
    tall = zip(*(by_loops(line, height) for line in picture.T.tolist()), strict=True)
    rows = [by_loops(list(line), width) for line in tall]
    return torch.tensor(rows, dtype=torch.float64)


def eight_bits(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_equals_the_formula_at_any_sizes(height, width, to_height, to_width):
    picture = torch.rand(
        height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    expected = picture_by_loops(picture, to_height, to_width)
    got = resize(picture[None, None], to_height, to_width, "matlab")[0, 0]
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 4, 3])
def test_the_presets_round_the_formula_to_8_bits(scale):
    hq = eight_bits(12 * scale + 1, 9 * scale + scale - 1)
    preset = get_preset("bicubic_x2" if scale == 2 else "bicubic_x4")
    made = degrade(hq, preset, generator=torch.Generator(), scale=scale)
    assert made.hq.equal(hq[..., : 12 * scale, : 9 * scale])
    for channel in range(3):
        exact = picture_by_loops(made.hq[0, channel].double() * 255, 12, 9).clamp(0, 255)
        levels = made.lq[0, channel].double() * 255
        # A half may be rounded to either side.
        assert (levels - exact).abs().max() <= 0.5 + 1e-4
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_a_point_is_spread_by_the_stretched_kernel():
    """By hand: pixel 7 of 16 reduced to 4 has the distances -4.5, -0.5, 3.5 and 7.5 of 4 pixels."""
    line = torch.zeros(1, 1, 1, 16, dtype=torch.float64)
    line[..., 7] = 1
    got = resize(line, 1, 4, "matlab")[0, 0, 0]
    near, far = (lambda x: 1.5 * x**3 - 2.5 * x**2 + 1), (lambda x: -((x - 2) ** 2) * (x - 1) / 2)
    places = [(7 - centre) / 4 for centre in (1.5, 5.5, 9.5, 13.5)]
    expected = [near(abs(x)) / 4 if abs(x) < 1 else far(abs(x)) / 4 for x in places]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_differs_from_torch_at_the_border_alone():
    picture = eight_bits(64, 64)
    ours, torchs = (resize(picture, 16, 16, mode) for mode in ("matlab", "bicubic"))
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], torchs[..., 2:-2, 2:-2], rtol=0, atol=1e-6)
    assert (ours - torchs).abs().max() > 1 / 255
