"""The arithmetic of libjpeg against the codec itself, bit by bit."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from bir_core.degradations.jpeg import CHROMA, LUMA, codec_jpeg, codec_tables
from bir_core.degradations.libjpeg import through_jpeg

pytestmark = pytest.mark.skipif(
    not features.check_feature("libjpeg_turbo"), reason="Pillow has another JPEG codec"
)


def through_file(pixels, quality):
    file = io.BytesIO()
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).double()


def ours(pixels, *qualities):
    return through_jpeg(pixels, *(codec_tables(table, [*qualities]) for table in (LUMA, CHROMA)))


@pytest.mark.parametrize("quality", [1, 3, 30, 49, 50, 75, 92, 100])
@pytest.mark.parametrize("grain", [1, 3, 8, 20])
@pytest.mark.parametrize("contrast", [1.0, 20.0])
def test_equals_the_codec(quality, grain, contrast):
    """From noise of single pixels to flat areas, up to black and white with the largest steps."""
    coarse = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(grain))
    pixels = ((coarse - 0.5) * contrast + 0.5).clamp(0, 1).mul(255).to(torch.uint8)
    pixels = pixels.repeat_interleave(grain, 1).repeat_interleave(grain, 2)
    assert torch.equal(ours(pixels[None], quality)[0], through_file(pixels, quality))


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    quality=st.integers(1, 100),
    seed=st.integers(0, 1000),
)
def test_equals_the_codec_at_every_size(height, width, quality, seed):
    pixels = torch.randint(
        0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)
    )
    pixels = pixels.to(torch.uint8)
    assert torch.equal(ours(pixels[None], quality)[0], through_file(pixels, quality))


def test_each_picture_of_a_batch_has_its_own_quality():
    pixels = torch.randint(0, 256, (2, 3, 21, 35), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    made = ours(pixels, 20, 90)
    for one, alone, quality in zip(made, pixels, (20, 90), strict=True):
        assert torch.equal(one, through_file(alone, quality))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_picture():
    image = torch.rand(3, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    quality = torch.tensor([5.0, 60.5, 95.0])
    there = codec_jpeg(image.cuda(), quality)
    assert torch.equal(there.cpu(), codec_jpeg(image, quality))
