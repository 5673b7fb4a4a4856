"""Measures of one picture: against the definitions, and against what `bir evaluate` measures."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_weights import write_distances

from bir_core.errors import BIRError
from bir_core.evaluation.faults import color_drift, consistency, seam_score
from bir_core.evaluation.metrics import METRICS, Settings
from bir_core.evaluation.one_picture import NUMBERS, difference_map, lpips_if_there, measure
from bir_core.images import resize
from bir_core.metrics import psnr
from bir_core.tiling import tiles

NO_LPIPS = "its weights are absent"


def picture(height=64, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255


def test_equals_bir_evaluate(tmp_path):
    write_distances(tmp_path)
    image, reference = picture(), picture(seed=1)
    lpips = lpips_if_there(tmp_path)
    found = measure(image, reference=reference, lpips=lpips, border=2)
    settings = Settings(2, tmp_path, torch.device("cpu"))
    for ours, theirs in (("psnr", "psnr_y"), ("ssim", "ssim_y"), ("lpips", "lpips_alex")):
        expected = METRICS[theirs].build(settings)(image, reference)
        assert found.values[ours] == pytest.approx(float(expected), abs=1e-6)


def test_every_number_is_there_or_its_reason():
    image, lq = picture(), picture(16, 24)
    for reference in (None, picture(seed=1)):
        for low in (None, lq):
            for tile in (0, 32, 512):
                found = measure(image, reference=reference, lq=low, lpips=NO_LPIPS, tile=tile)
                assert set(found.values) | set(found.absent) == set(NUMBERS)
                assert not set(found.values) & set(found.absent)
                assert len(found.text().splitlines()) == len(NUMBERS)
                assert all(line in found.text() for line in found.short())
    assert "LPIPS not measured: its weights" in found.text()


def test_absent_weights_are_named(tmp_path):
    assert "bir weights measures" in lpips_if_there(tmp_path)


def test_small_pictures_have_what_can_be_measured(tmp_path):
    write_distances(tmp_path)
    found = measure(picture(8, 9), reference=picture(8, 9, 1), lpips=lpips_if_there(tmp_path))
    assert list(found.values) == ["psnr", "color_drift"]
    assert "11 x 11" in found.absent["ssim"] and "sides" in found.absent["lpips"]


def test_colors_that_drift_are_found_whatever_the_detail():
    image = torch.full((1, 3, 100, 130), 0.5)
    lighter = image + 0.1

    # Grey: Delta E is the difference of L*, here from the definition by hand.
    def lightness(value):
        linear = ((value + 0.055) / 1.055) ** 2.4
        return 116 * linear ** (1 / 3) - 16

    expected = lightness(0.6) - lightness(0.5)
    assert float(color_drift(lighter, image)) == pytest.approx(expected, abs=1e-3)
    assert float(color_drift(lighter, image[..., :50, :65])) == pytest.approx(expected, abs=1e-3)
    noise = 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    assert float(color_drift(image + noise, image)) < 2
    assert float(color_drift(image, image)) == 0


@given(st.integers(33, 120), st.integers(33, 120), st.integers(16, 32), st.integers(0, 7))
def test_steps_at_tile_borders_are_seams(height, width, tile, overlap):
    flat = picture(height, width) * 0.1 + 0.4
    seamed = flat.clone()
    for index, part in enumerate(tiles(height, width, tile, overlap)):
        part.crop(seamed).add_(0.2 * (index % 2 * 2 - 1))
    assert float(seam_score(flat, tile, overlap)) < 1.5
    assert seam_score(seamed, tile, overlap) > seam_score(flat, tile, overlap)


def test_seams_of_flat_pictures_and_single_tiles():
    flat = torch.full((2, 3, 40, 40), 0.5)
    assert seam_score(flat, 16, 4).tolist() == [1, 1]
    flat[1, ..., 16:] = 0.6
    assert seam_score(flat, 16, 0).tolist() == [1, math.inf]
    with pytest.raises(BIRError, match="more than one tile"):
        seam_score(flat, 40, 0)
    with pytest.raises(BIRError, match="smaller overlap"):
        seam_score(flat, 8, 7)
    with pytest.raises(BIRError, match="overlap"):
        measure(flat[:1], lpips=NO_LPIPS, tile=16, overlap=16)


def test_what_is_reduced_again_agrees_with_its_origin():
    lq = picture(16, 24)
    enlarged = resize(lq, 64, 96).clamp(0, 1)
    again = resize(enlarged, 16, 24).clamp(0, 1)
    assert consistency(enlarged, lq).tolist() == psnr(again, lq).tolist()
    assert consistency(enlarged, lq) > consistency(picture(), lq)
    assert consistency(lq, lq).tolist() == [math.inf]


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.25, 16))
def test_sides_may_be_rounded(height, width, scale):
    lq = picture(height, width)
    image = torch.zeros(1, 3, max(1, int(height * scale)), max(1, int(width * scale)))
    assert consistency(image, lq).isfinite().all()


def test_what_cannot_be_compared_is_refused():
    image = picture()
    for lq in (picture(24, 24), picture(16, 40)):
        with pytest.raises(BIRError, match="proportions"):
            measure(image, lq=lq, lpips=NO_LPIPS)
    with pytest.raises(BIRError, match="resize or crop"):
        measure(image, reference=picture(32, 48), lpips=NO_LPIPS)
    with pytest.raises(BIRError, match="finite"):
        measure(image * math.nan, lpips=NO_LPIPS)


def test_the_map_is_the_largest_difference_of_the_channels():
    image, other = torch.zeros(2, 1, 3, 4, 5)
    image[:, 1, 2, 3], other[:, 0, 2, 3], image[:, 2, 0, 0] = 0.1, 0.05, 1
    found = difference_map(image, other, 4)
    assert found[0, :, 2, 3].tolist() == pytest.approx([0.4] * 3)
    assert found[0, :, 0, 0].tolist() == [1] * 3 and float(found.sum()) == pytest.approx(4.2)
