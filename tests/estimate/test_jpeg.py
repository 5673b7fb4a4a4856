"""The quality in the tables of a file."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bir_core.degradations.jpeg import codec_jpeg
from bir_core.estimate.jpeg import grid_quality, table_quality
from bir_core.pictures.jpeg_tables import luma_table


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 51, 75, 90, 95, 99, 100])
def test_what_pillow_was_asked_for(picture, tmp_path, quality):
    picture.save(tmp_path / "picture.jpg", quality=quality)
    found = table_quality(luma_table(tmp_path / "picture.jpg"))
    assert found.value == quality and found.spread == 0


def test_the_content_counts_and_not_the_name(picture, tmp_path):
    picture.save(tmp_path / "picture.jpg", "PNG")
    assert luma_table(tmp_path / "picture.jpg") is None
    picture.convert("L").save(tmp_path / "grey.png", "JPEG", quality=60)
    assert table_quality(luma_table(tmp_path / "grey.png")).value == 60


def test_a_foreign_table_has_a_spread(picture, tmp_path):
    flat = [16] * 64
    picture.save(tmp_path / "picture.jpg", qtables=[flat, flat])
    found = table_quality(luma_table(tmp_path / "picture.jpg"))
    assert 60 < found.value < 95 and found.spread > 3


def textured():
    """(1, 3, 160, 200): a soft picture with detail of all sizes."""
    draws = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 40, 50, generator=draws)
    soft = F.interpolate(small, scale_factor=4, mode="bicubic")
    return (soft + 0.03 * torch.randn(soft.shape, generator=draws)).clamp(0, 1)


@pytest.mark.parametrize(
    ("quality", "cut"),
    [*((quality, (0, 0)) for quality in (20, 40, 65, 80, 90)), (20, (3, 5)), (65, (7, 1))],
)
def test_the_grid_shows_the_quality(quality, cut):
    coded = codec_jpeg(textured(), torch.tensor([float(quality)]))
    found = grid_quality(coded[..., cut[0] :, cut[1] :])
    assert found is not None and found.value == pytest.approx(quality, abs=1)
    assert found.spread < 2


def test_without_jpeg_or_after_a_change_there_is_no_grid():
    image = textured()
    coded = codec_jpeg(image, torch.tensor([50.0]))
    noisy = coded + 5 / 255 * torch.randn(coded.shape, generator=torch.Generator().manual_seed(1))
    resized = F.interpolate(coded, (130, 170), mode="bilinear", antialias=True)
    for changed in (image, noisy, resized, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 9, 300)):
        assert grid_quality((changed.clamp(0, 1) * 255).round() / 255) is None
