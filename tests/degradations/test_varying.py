"""Damage that changes over a picture, each step against its formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bir_core.degradations import degrade, get_preset
from bir_core.degradations.fields import WAVES, draw_waves, smooth_fields
from bir_core.degradations.jpeg import codec_jpeg
from bir_core.degradations.noise import gaussian_noise
from bir_core.degradations.varying import LEVELS, varying_blur, varying_jpeg
from bir_core.errors import BIRError

VARYING = get_preset("varying")
ALONE = {"blur_probability": 0.0, "noise_probability": 0.0, "jpeg_probability": 0.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def soft_pictures(batch: int, height: int, width: int) -> torch.Tensor:
    small = torch.rand(batch, 3, -(-height // 4), -(-width // 4), generator=seeded(1))
    return F.interpolate(small, scale_factor=4, mode="bilinear")[..., :height, :width].contiguous()


def by_loops(drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Fields by their formula, from the waves that were drawn."""
    longer = max(height, width)
    fields = torch.empty(len(drawn), 1, height, width)
    for field, waves in zip(fields, drawn.tolist(), strict=True):
        for row in range(height):
            for column in range(width):
                y, x = (row + 0.5) / longer, (column + 0.5) / longer
                total = sum(
                    math.cos(2 * math.pi * (down * y + right * x) + phase)
                    for down, right, phase in waves
                )
                normal = total * math.sqrt(2 / len(waves))
                field[0, row, column] = 0.5 * (1 + math.erf(normal / math.sqrt(2)))
    return fields


def test_fields_are_the_waves_of_the_formula():
    waves = draw_waves((0.2, 1.5), 3, seeded(0))
    assert waves.shape == (3, WAVES, 3)
    lengths = waves[..., :2].norm(dim=-1)
    assert lengths.min() >= 0.2 and lengths.max() < 1.5
    expected = by_loops(waves, 9, 14)
    torch.testing.assert_close(smooth_fields(waves, 9, 14), expected, rtol=0, atol=1e-5)


def test_fields_take_all_values_about_equally_often():
    fields = smooth_fields(draw_waves((0.2, 1.5), 3000, seeded(1)), 4, 4)[:, 0, 0, 0]
    shares = torch.histc(fields, 5, 0, 1) / len(fields)
    # The sum of six waves is nearly normal.
    assert (shares - 0.2).abs().max() < 0.03


def test_a_smaller_picture_has_the_same_field():
    waves = draw_waves((0.2, 1.5), 1, seeded(2))
    large = F.avg_pool2d(smooth_fields(waves, 64, 96), 4)
    torch.testing.assert_close(smooth_fields(waves, 16, 24), large, rtol=0, atol=0.01)


def test_each_pixel_is_blurred_by_its_own_width():
    """A point of light shows for each pixel how much of it the kernel there takes."""
    sigma = torch.linspace(0, 3, 41)[None, None, None].expand(1, 1, 41, 41)
    spread = torch.zeros(41)
    weights = torch.zeros(41)
    for column in range(12, 29):
        for offset in range(-12, 13):
            point = torch.zeros(1, 1, 41, 41)
            point[..., 20, column + offset] = 1
            share = float(varying_blur(point, sigma, (0.0, 3.0))[0, 0, :, column].sum())
            weights[column] += share
            spread[column] += share * offset**2
    inside = slice(12, 29)
    torch.testing.assert_close(weights[inside], torch.ones(17), rtol=0, atol=1e-3)
    # The samples of a narrow Gaussian have a smaller variance than the Gaussian itself.
    expected = sigma[0, 0, 0, inside] ** 2
    torch.testing.assert_close(spread[inside], expected, rtol=0.02, atol=0.05)


def test_at_a_level_the_blur_is_the_gaussian():
    picture = soft_pictures(1, 24, 28)
    sigma = 0.5 + 2.0 * 3 / (LEVELS - 1)
    axis = torch.arange(-12, 13, dtype=torch.float64)
    line = torch.exp(-((axis / sigma) ** 2) / 2)
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None].expand(3, 1, 25, 25)
    padded = F.pad(picture.double(), (12, 12, 12, 12), mode="reflect")
    expected = F.conv2d(padded, kernel, groups=3)
    got = varying_blur(picture, torch.full((1, 1, 24, 28), sigma), (0.5, 2.5))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)


def test_blocks_come_from_the_nearest_quality():
    picture = soft_pictures(2, 40, 37) + 0.1 * torch.rand(2, 3, 40, 37, generator=seeded(3))
    quality = 15 + 80 * smooth_fields(draw_waves((0.5, 1.5), 2, seeded(4)), 40, 37)
    got = varying_jpeg(picture, quality, (15.0, 95.0))
    levels = [15 + 80 * index / (LEVELS - 1) for index in range(LEVELS)]
    used = set()
    for image in range(2):
        for top in range(0, 40, 16):
            for left in range(0, 37, 16):
                row, column = min(top + 8, 39), min(left + 8, 36)
                wanted = float(quality[image, 0, row, column])
                level = min(levels, key=lambda level, wanted=wanted: abs(level - wanted))
                used.add(level)
                block = (slice(top, top + 16), slice(left, left + 16))
                whole = codec_jpeg(picture[image : image + 1], torch.tensor([level]))
                assert torch.equal(got[image][(..., *block)], whole[0][(..., *block)])
    assert len(used) > 2


def test_noise_has_the_deviation_of_its_field():
    preset = replace(VARYING, **ALONE | {"noise_probability": 1.0}, grey_probability=0.5)
    hq = 0.3 + 0.4 * soft_pictures(8, 24, 20)
    made = degrade(hq, preset, generator=seeded(0), noise=seeded(9))
    grey = made.draws["noise_grey"]
    assert 0 < int(grey.sum()) < 8
    white = gaussian_noise(hq, torch.ones(8), grey, seeded(9))
    expected = hq + 40 * by_loops(made.draws["noise_waves"], 24, 20) * white
    assert (made.lq - expected.clamp(0, 1)).abs().max() < 0.51 / 255


def test_the_steps_follow_each_other():
    """Blur in the large picture, noise and JPEG in the small one."""
    preset = replace(
        VARYING,
        blur_probability=1.0,
        noise_probability=1.0,
        jpeg_probability=1.0,
        resize_modes=("area",),
    )
    hq = soft_pictures(1, 49, 66)
    made = degrade(hq, preset, generator=seeded(0), noise=seeded(9), scale=2)
    assert made.lq.shape == (1, 3, 24, 33) and torch.equal(made.hq, hq[..., :48, :])
    blurred = varying_blur(made.hq, 3 * by_loops(made.draws["blur_waves"], 48, 66), (0.0, 3.0))
    white = gaussian_noise(made.lq, torch.ones(1), made.draws["noise_grey"], seeded(9))
    noisy = F.avg_pool2d(blurred, 2) + 40 * by_loops(made.draws["noise_waves"], 24, 33) * white
    quality = 15 + 80 * by_loops(made.draws["jpeg_waves"], 24, 33)
    expected = varying_jpeg(noisy, quality, (15.0, 95.0))
    # A rounding before JPEG may fall to the other side.
    assert float((made.lq - expected).abs().mean()) < 0.1 / 255


def test_without_any_step_nothing_changes():
    hq = soft_pictures(2, 20, 24)
    made = degrade(hq, replace(VARYING, **ALONE), generator=seeded(0))
    torch.testing.assert_close(made.lq, (hq * 255).round() / 255)


def test_equal_bounds_are_one_strength():
    hq = soft_pictures(1, 32, 32)
    steady = torch.full((1, 1, 32, 32), 1.2)
    assert torch.equal(
        varying_blur(hq, steady, (1.2, 1.2)), varying_blur(hq, steady + 0.3, (1.2, 1.2))
    )
    jpeg = varying_jpeg(hq, torch.full((1, 1, 32, 32), 40.0), (40.0, 40.0))
    assert torch.equal(jpeg, codec_jpeg(hq, torch.tensor([40.0])))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma should be a range"),
        ({"noise_sigma": (-1.0, 1.0)}, "noise_sigma should be a range"),
        ({"jpeg_quality": (50.0, 101.0)}, "jpeg_quality should be a range"),
        ({"cycles": (-1.0, 1.0)}, "cycles should be a range"),
        ({"grey_probability": 2.0}, "grey_probability should be a probability"),
        ({"scale": 0}, "scale should be at least 1"),
        ({"resize_modes": ("nearest",)}, "resize_modes should be"),
    ],
)
def test_impossible_ranges_are_refused(wrong, message):
    with pytest.raises(BIRError, match=message):
        replace(VARYING, **wrong)
