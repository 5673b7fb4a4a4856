"""JPEG compression: that of Real-ESRGAN's training, and the real codec."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from .libjpeg import through_jpeg

# ITU-T T.81, annex K, tables K.1 and K.2.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# JFIF: full-range YCbCr of BT.601.
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def _cosines() -> Tensor:
    """The orthonormal DCT-II of length 8 as a matrix (frequency, sample)."""
    frequency = torch.arange(8, dtype=torch.float64)[:, None]
    sample = torch.arange(8, dtype=torch.float64)[None]
    matrix = torch.cos((2 * sample + 1) * frequency * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _quantised(plane: Tensor, table: Tensor) -> Tensor:
    """A plane (B, C, H, W), sides multiples of 8, after DCT, rounding by `table` (B, 8, 8), inverse
    DCT."""
    batch, channels, height, width = plane.shape
    transform = _cosines().to(plane)
    step = table[:, None, None, :, None, :]  # (B, 1, 1, 8, 1, 8), as the blocks below
    blocks = plane.view(batch, channels, height // 8, 8, width // 8, 8) - 128
    coefficients = torch.einsum("ui,bchiwj,vj->bchuwv", transform, blocks, transform)
    coefficients = torch.round(coefficients / step) * step
    blocks = torch.einsum("ui,bchuwv,vj->bchiwj", transform, coefficients, transform)
    return blocks.reshape(batch, channels, height, width) + 128


def diff_jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG with 4:2:0 chroma on a batch of tensors, without entropy coding and 8 bit rounding.

    As in the training of Real-ESRGAN, whose numbers it reproduces: the quantisation tables are the
    standard ones transposed, they are not rounded to integers, sides are filled with black to a
    multiple of 16, and chroma is enlarged by repetition.

    Args:
        image: (B, 3, H, W) float in [0, 1], RGB.
        quality: (B,) real numbers in (0, 100).

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        BIRError: a quality outside (0, 100); at 100 the step of the standard formula would be 0.
    """
    if not bool(((quality > 0) & (quality < 100)).all()):
        raise BIRError(
            f"JPEG quality should be above 0 and below 100, but {quality.tolist()} came; "
            "change the range of the preset."
        )
    height, width = image.shape[-2:]
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).to(image)
    factor = (percent / 100).view(-1, 1, 1)
    luma_table = image.new_tensor(LUMA).T * factor  # (B, 8, 8)
    chroma_table = image.new_tensor(CHROMA).T * factor

    padded = F.pad(image * 255, (0, -width % 16, 0, -height % 16))
    ycbcr = torch.einsum("yc,bchw->byhw", image.new_tensor(_TO_YCBCR), padded)
    luma = _quantised(ycbcr[:, :1], luma_table)
    chroma = _quantised(F.avg_pool2d(ycbcr[:, 1:] + 128, 2), chroma_table) - 128
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    ycbcr = torch.cat([luma, chroma], dim=1)
    rgb = torch.einsum("cy,byhw->bchw", image.new_tensor(_TO_RGB), ycbcr)
    return rgb[..., :height, :width].clamp(0, 255) / 255


def codec_jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Each image encoded and decoded as a JPEG file in memory (libjpeg, 4:2:0 chroma).

    On a GPU the same is computed there, so that no picture has to leave it.

    Args:
        image: (B, 3, H, W) float in [0, 1], RGB; rounded to 8 bit first.
        quality: (B,) numbers in [1, 101); the fraction is cut off.

    Returns:
        (B, 3, H, W) in [0, 1], multiples of 1/255.

    Raises:
        BIRError: a quality outside 1..100.
    """
    qualities = [int(value) for value in quality.tolist()]
    if not all(1 <= value <= 100 for value in qualities):
        raise BIRError(
            f"JPEG quality should be in 1..100, but {quality.tolist()} came; change the preset."
        )
    pixels = (image.detach().float().clamp(0, 1) * 255).round()
    if image.device.type in ("cpu", "mps"):  # mps has no float64
        decoded = _through_files(pixels.to(torch.uint8).cpu(), qualities)
    else:
        tables = (codec_tables(LUMA, qualities), codec_tables(CHROMA, qualities))
        decoded = through_jpeg(pixels, *(table.to(image.device) for table in tables))
    return decoded.to(image) / 255


def codec_tables(standard: tuple[tuple[int, ...], ...], qualities: list[int]) -> Tensor:
    """Steps of libjpeg for whole qualities in 1..100, (B, 8, 8) float64."""
    percent = torch.tensor([5000 // q if q < 50 else 200 - 2 * q for q in qualities])
    steps = (torch.tensor(standard) * percent.view(-1, 1, 1) + 50) // 100
    return steps.clamp(1, 255).double()


def _through_files(pixels: Tensor, qualities: list[int]) -> Tensor:
    """(B, 3, H, W) uint8 on the CPU -> the same after encoding and decoding."""
    decoded = []
    for picture, quality in zip(pixels.permute(0, 2, 3, 1).numpy(), qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file) as opened:
            decoded.append(torch.from_numpy(np.array(opened)))
    return torch.stack(decoded).permute(0, 3, 1, 2).contiguous()
