"""Damage before an enlargement."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bir_core.degradations import EnlargedDegradation, degrade, get_preset
from bir_core.errors import BIRError

PRESET = get_preset("enlarged")
QUIET = replace(PRESET.damage, blur_probability=0.0, noise_probability=0.0, jpeg_probability=0.0)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pictures(batch=2, side=48):
    small = torch.rand(batch, 3, side // 4, side // 4, generator=seeded(1))
    return F.interpolate(small, scale_factor=4, mode="bilinear")


def test_without_damage_it_is_the_resize_alone():
    hq = pictures()
    preset = EnlargedDegradation(damage=QUIET, enlargement=(2, 2), resize_modes=("area",))
    result = degrade(hq, preset, generator=seeded(0))
    # Means of 2 x 2 pixels, each then twice as wide and high.
    expected = F.interpolate(F.avg_pool2d(hq, 2), scale_factor=2, mode="nearest")
    assert float((result.lq - expected).abs().max()) < 1.01 / 255  # rounded twice
    assert result.draws["enlargement"].tolist() == [2, 2]


def test_not_enlarged_and_not_damaged_it_is_the_picture():
    hq = pictures()
    preset = EnlargedDegradation(damage=QUIET, enlargement=(2, 3), enlarge_probability=0.0)
    result = degrade(hq, preset, generator=seeded(0))
    assert float((result.lq - hq).abs().max()) <= 0.501 / 255
    assert result.draws["enlargement"].tolist() == [1, 1]


def test_noise_is_that_of_the_small_picture():
    damage = replace(QUIET, noise_probability=1.0, noise_sigma=(20, 20), grey_probability=0.0)
    flat = torch.full((1, 3, 128, 128), 0.5)
    preset = EnlargedDegradation(damage=damage, enlargement=(2, 2), resize_modes=("area",))
    lq = degrade(flat, preset, generator=seeded(0)).lq
    # 64 x 64 x 3 draws: the deviation is known to 1 / sqrt(2 n), five times.
    assert float(lq.std() * 255) == pytest.approx(20, rel=5 / (2 * 12288) ** 0.5)
    assert torch.equal(lq[..., ::2, ::2], lq[..., 1::2, 1::2])


def test_late_jpeg_has_its_grid_on_the_large_picture():
    """At the lowest quality only the means of blocks are left, and steps between them."""
    damage = replace(QUIET, jpeg_probability=1.0, jpeg_quality=(1, 1))
    hq = pictures(1, 64)

    def flat_columns(late):
        preset = EnlargedDegradation(
            damage=damage,
            enlargement=(3, 3),
            late_jpeg_probability=late,
            resize_modes=("bilinear",),
        )
        lq = degrade(hq, preset, generator=seeded(0)).lq
        steps = (lq[..., 1:] - lq[..., :-1]).abs().mean(dim=(0, 1, 2))
        at_edges = steps[7::8].mean()
        return float(at_edges / steps.mean())

    assert flat_columns(1.0) > 2 > flat_columns(0.0)


def test_a_grey_picture_stays_grey_and_is_the_target():
    preset = replace(PRESET, grey_picture_probability=1.0)
    result = degrade(pictures(4), preset, generator=seeded(0))
    for image in (result.lq, result.hq):
        assert float((image - image[:, :1]).abs().max()) < 2.5 / 255  # JPEG rounds its colours
    assert bool(result.draws["noise_grey"].all())


def test_every_image_of_a_batch_has_an_entry_in_each_draw():
    draws = degrade(pictures(8), PRESET, generator=seeded(3)).draws
    assert {len(value) for value in draws.values()} == {8}
    assert 1 < draws["enlargement"].max() <= 4 and draws["enlargement"].min() == 1


def test_damage_that_reduces_is_refused():
    with pytest.raises(BIRError, match="scale of 1, but 4 came"):
        EnlargedDegradation(damage=get_preset("simple_x4"), enlargement=(1, 2))
