"""What needs no network: noise by wavelets, greyness, contrast and colour cast."""

import torch
from torch import Tensor

from ..images import luma
from .patches import Measured, spread_patches

# The median of |x| of a normal distribution of deviation 1.
MEDIAN_OF_NORMAL = 0.6745
# Channels of a grey picture differ by no more than this after JPEG, in steps of 8 bit.
GREY_STEPS = 6.0
# Pixels of a side that brightness and colours are looked at.
MOST_PIXELS = 512
DARKEST, BRIGHTEST = 0.01, 0.99
PARTS = 4


def wavelet_noise(image: Tensor) -> Measured:
    """Noise by the median of the finest diagonal wavelet coefficients (Donoho and Johnstone, "Ideal
    spatial adaptation by wavelet shrinkage", Biometrika 1994), here of Haar's.

    It takes fine texture for noise, and after JPEG or an enlargement it finds too little.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Returns:
        Standard deviation in steps of 8 bit, the mean of the channels; the spread is over patches.
    """
    detail = _diagonal(spread_patches(image)).flatten(2).abs()
    of_patches = detail.median(dim=2).values.mean(dim=1) * 255 / MEDIAN_OF_NORMAL
    value = detail.transpose(0, 1).flatten(1).median(dim=1).values.mean() * 255 / MEDIAN_OF_NORMAL
    return Measured(float(value), float((of_patches - value).abs().median()))


def _diagonal(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H / 2, W / 2): Haar's coefficients, as large as the noise is."""
    high = image[..., ::2] - image[..., 1::2]
    return (high[..., ::2, :] - high[..., 1::2, :]) / 2


def greyness(image: Tensor) -> Measured:
    """Share of the pixels of (1, 3, H, W) whose channels are equal: 1 is a grey picture."""
    shares = []
    for part in _parts(image):
        difference = (part.amax(0) - part.amin(0)) * 255
        shares.append((difference <= GREY_STEPS).float().mean())
    return _of_parts(torch.stack(shares))


def contrast(image: Tensor) -> Measured:
    """Distance of the brightness that 1 % of the pixels of (1, 3, H, W) reach to the one that 1 %
    do not, in [0, 1]. A faded picture has little."""
    ranges = []
    for part in _parts(image):
        bounds = torch.tensor([DARKEST, BRIGHTEST])
        low, high = torch.quantile(luma(part[None, :, :, None]).flatten(), bounds)
        ranges.append(high - low)
    return _of_parts(torch.stack(ranges))


def colour_cast(image: Tensor) -> tuple[float, float, float]:
    """How far the mean of red, green and blue lies from that of all three, in steps of 8 bit: what
    a picture has of a colour if the world is grey on the average (Buchsbaum, J. Franklin Inst.
    1980)."""
    means = torch.stack([part.mean(dim=1) for part in _parts(image)]).mean(dim=0) * 255
    red, green, blue = (means - means.mean()).tolist()
    return red, green, blue


def _parts(image: Tensor) -> list[Tensor]:
    """Pixels of (1, 3, H, W), (3, n) each, that lie between those of the other parts. A picture
    that has fewer pixels than parts gives one."""
    height, width = image.shape[-2:]
    rows, columns = -(-height // MOST_PIXELS), -(-width // MOST_PIXELS)
    pixels = image[0, :, ::rows, ::columns].float().cpu().flatten(1)
    count = PARTS if pixels.shape[1] >= PARTS else 1
    return [pixels[:, start::count] for start in range(count)]


def _of_parts(values: Tensor) -> Measured:
    mean = values.mean()
    return Measured(float(mean), float((values - mean).abs().mean()))
