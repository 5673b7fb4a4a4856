"""What libjpeg makes of a picture, as arithmetic on tensors of any device.

A JPEG file loses nothing after its coefficients are rounded, so that encoding and decoding come to
transforms and roundings. Their integers are those of the default methods of libjpeg 6b and of
libjpeg-turbo: the slow integer DCT (Loeffler, Ligtenberg and Moschytz, ICASSP 1989, with constants
of 13 bits), 4:2:0 chroma, and its enlargement by a triangle filter. All values are whole numbers
far below 2^53 in float64, and so exact.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# sqrt(8) times the rows of the DCT-II in steps of 2^-13, as sums of the rounded constants.
# The first halves of its even rows, which are symmetric, and of its odd rows, which are not.
_EVEN = (
    (8192, 8192, 8192, 8192),
    (10703, 4433, -4433, -10703),
    (8192, -8192, -8192, 8192),
    (4433, -10704, 10704, -4433),
)
_ODD = (
    (11363, 9633, 6437, 2260),
    (9633, -2259, -11362, -6436),
    (6437, -11362, 2261, 9633),
    (2260, -6436, 9633, -11363),
)
# RGB to YCbCr and back, in steps of 2^-16.
_TO_YCBCR = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_CR_TO_RED, _CB_TO_BLUE, _CB_TO_GREEN, _CR_TO_GREEN = 91881, 116130, -22554, -46802


def _dct() -> Tensor:
    """The matrix (frequency, sample); its transpose is the inverse."""
    rows = []
    for even, odd in zip(_EVEN, _ODD, strict=True):
        rows.append([*even, *reversed(even)])
        rows.append([*odd, *(-value for value in reversed(odd))])
    return torch.tensor(rows, dtype=torch.float64)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Whole numbers divided by 2^bits, rounded to the nearest, halves up."""
    return torch.floor((values + 2 ** (bits - 1)) / 2**bits)


def _rounded_in_blocks(plane: Tensor, table: Tensor) -> Tensor:
    """A plane (B, C, H, W) of 0..255, sides multiples of 8, after DCT, rounding by `table`
    (B, 8, 8) and inverse DCT."""
    batch, channels, height, width = plane.shape
    transform = _dct().to(plane.device)
    blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8) - 128
    rows = _shifted(torch.einsum("vj,bchiwj->bchiwv", transform, blocks), 11)
    found = _shifted(torch.einsum("ui,bchiwv->bchuwv", transform, rows), 15)
    step = table[:, None, None, :, None, :]
    # The transforms are 8 times the orthonormal ones; halves are rounded away from 0.
    kept = found.sign() * torch.floor((found.abs() + 4 * step) / (8 * step)) * step
    columns = _shifted(torch.einsum("ui,bchuwv->bchiwv", transform, kept), 11)
    values = _shifted(torch.einsum("vj,bchiwv->bchiwj", transform, columns), 18)
    return (values + 128).clamp(0, 255).reshape(plane.shape)


def _continued(plane: Tensor, height: int, width: int) -> Tensor:
    """Last row and column repeated up to a size."""
    missing = (0, width - plane.shape[-1], 0, height - plane.shape[-2])
    return F.pad(plane, missing, mode="replicate")


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _halved(chroma: Tensor) -> Tensor:
    """Sums of 2 x 2 pixels over 4; halves and quarters are rounded down in every other column."""
    total = F.avg_pool2d(chroma, 2) * 4
    bias = 1 + torch.arange(total.shape[-1], device=total.device) % 2
    return torch.floor((total + bias) / 4)


def _doubled(chroma: Tensor) -> Tensor:
    """Twice the sides: of the neighbours along each axis the nearer counts thrice."""
    if chroma.shape[-1] <= 2:  # too narrow for the filter, as libjpeg has it
        return chroma.repeat_interleave(2, -2).repeat_interleave(2, -1)
    padded = F.pad(chroma, (1, 1, 1, 1), mode="replicate")
    above, middle, below = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    tall = torch.stack([3 * middle + above, 3 * middle + below], dim=-2).flatten(-3, -2)
    left, centre, right = tall[..., :-2], tall[..., 1:-1], tall[..., 2:]
    wide = torch.stack([3 * centre + left + 8, 3 * centre + right + 7], dim=-1).flatten(-2)
    return torch.floor(wide / 16)


def _to_rgb(ycbcr: Tensor) -> Tensor:
    y, cb, cr = ycbcr[:, 0], ycbcr[:, 1] - 128, ycbcr[:, 2] - 128
    red = y + _shifted(_CR_TO_RED * cr, 16)
    green = y + _shifted(_CB_TO_GREEN * cb + _CR_TO_GREEN * cr, 16)
    blue = y + _shifted(_CB_TO_BLUE * cb, 16)
    return torch.stack([red, green, blue], dim=1).clamp(0, 255)


def through_jpeg(pixels: Tensor, luma_table: Tensor, chroma_table: Tensor) -> Tensor:
    """Pictures encoded as JPEG with 4:2:0 chroma and decoded.

    Args:
        pixels: (B, 3, H, W), whole numbers in 0..255 of any type, RGB.
        luma_table, chroma_table: (B, 8, 8) steps in 1..255, of vertical and horizontal frequency.

    Returns:
        (B, 3, H, W) float64, whole numbers in 0..255.
    """
    height, width = pixels.shape[-2:]
    image = pixels.double()
    matrix = torch.tensor(_TO_YCBCR, dtype=torch.float64, device=image.device)
    ycbcr = torch.einsum("yc,bchw->byhw", matrix, image)
    luma = _shifted(ycbcr[:, :1], 16)
    # Their halves are rounded down, those of luma up.
    chroma = torch.ceil((ycbcr[:, 1:] - 2**15) / 2**16) + 128
    luma = _rounded_in_blocks(_continued(luma, _up(height, 8), _up(width, 8)), luma_table)
    # To the right the picture goes on before it is halved, downwards afterwards.
    chroma = _halved(_continued(chroma, _up(height, 2), _up(width, 16)))
    rows, columns = chroma.shape[-2:]
    chroma = _rounded_in_blocks(_continued(chroma, _up(rows, 8), columns), chroma_table)
    chroma = _doubled(chroma[..., :rows, : (width + 1) // 2])
    return _to_rgb(torch.cat([luma[..., :height, :width], chroma[..., :height, :width]], dim=1))
