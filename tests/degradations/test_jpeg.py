import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import load_vectors
from PIL import Image

from bir_core.degradations.jpeg import codec_jpeg, diff_jpeg
from bir_core.errors import BIRError


def smooth_image(height: int, width: int, *, grey: bool = False) -> torch.Tensor:
    """Waves with a period of some 20 pixels: nothing that JPEG cannot keep."""
    y, x = torch.meshgrid(torch.arange(height) / 3, torch.arange(width) / 3, indexing="ij")
    waves = [0.5 + 0.3 * torch.sin(x * a + y * b) for a, b in ((1, 0.3), (0.2, 1), (0.7, 0.7))]
    return torch.stack([waves[0]] * 3 if grey else waves)[None]


def test_diff_jpeg_equals_the_official_one():
    vectors, _ = load_vectors("diffbir_degradation")
    got = diff_jpeg(vectors["img"], vectors["jpeg_q"])
    torch.testing.assert_close(got, vectors["jpeg"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [diff_jpeg, codec_jpeg])
def test_every_image_has_its_own_quality(make):
    image = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    quality = torch.tensor([30.0, 60.0, 95.0])
    together = make(image, quality)
    for index in range(3):
        alone = make(image[index : index + 1], quality[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [diff_jpeg, codec_jpeg])
def test_less_quality_is_more_error(make):
    grain = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    image = (smooth_image(64, 64) + 0.1 * grain).clamp(0, 1)
    qualities = (10.0, 40.0, 70.0, 95.0)
    errors = [float((make(image, torch.tensor([q])) - image).abs().mean()) for q in qualities]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.5 * errors[-1]


@pytest.mark.parametrize("quality", [40.0, 75.0, 95.0])
def test_the_tensor_version_is_close_to_the_codec(quality):
    """Grey, so that the two ways to enlarge chroma do not matter, sides without black filling, and
    turned, because the tensor version has the tables transposed."""
    image = smooth_image(64, 80, grey=True)
    quality = torch.tensor([quality])
    real = codec_jpeg(image, quality)
    turned = diff_jpeg(image.mT, quality).mT
    assert float((turned - real).abs().mean()) < 1.5 / 255
    assert float((turned - real).abs().mean()) < float(
        (diff_jpeg(image, quality) - real).abs().mean()
    )


def test_the_codec_is_what_a_file_would_hold():
    image = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=63, subsampling="4:2:0")
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(codec_jpeg(image, torch.tensor([63.9])), expected)


@settings(max_examples=25)
@given(height=st.integers(1, 40), width=st.integers(1, 40), quality=st.floats(1, 99))
def test_any_size_stays_in_range(height, width, quality):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    for make in (diff_jpeg, codec_jpeg):
        result = make(image, torch.full((2,), quality))
        assert result.shape == image.shape
        assert float(result.min()) >= 0 and float(result.max()) <= 1


@pytest.mark.parametrize(
    "make, quality", [(diff_jpeg, 0.0), (diff_jpeg, 100.0), (codec_jpeg, 0.9), (codec_jpeg, 101.0)]
)
def test_an_impossible_quality_is_refused(make, quality):
    with pytest.raises(BIRError, match="JPEG quality should be"):
        make(torch.zeros(1, 3, 8, 8), torch.tensor([quality]))
