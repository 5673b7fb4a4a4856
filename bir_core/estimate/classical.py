"""What needs no network: noise by wavelets, sharpness, greyness, contrast and colour cast."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images import luma
from .patches import Measured, spread_patches

# The median of |x| of a normal distribution of deviation 1.
MEDIAN_OF_NORMAL = 0.6745
# Of a Gaussian pyramid (Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE
# Transactions on Communications 1983), here without taking fewer pixels.
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# Of the pixels, those with the strongest edges are looked at; within so many pixels of one.
EDGES, NEAR_EDGE = 0.1, 9
# Coarse detail of less energy, in steps of 8 bit squared, is no edge.
NO_EDGES = 0.01
# Of a picture without edges: nothing says that it is not sharp.
SHARP = 1.0
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


def sharpness(image: Tensor) -> Measured:
    """Energy of the finest detail at the strongest edges, by that of detail twice as coarse.

    A step has 0.88, sharp photographs 0.25 and more; enlarged twice by bicubic interpolation or
    blurred by a Gaussian of a pixel they have 0.05 to 0.18, also after noise and JPEG in between.
    Noise on top makes it larger, never smaller. The finest detail is what a Laplacian of four
    neighbours sees, the other one the second band of a pyramid.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Returns:
        From 0 on; the spread is over patches. 1 where there are no edges.
    """
    brightness = luma(spread_patches(image)) * 255
    once = _smoothed(brightness, 1)
    twice = _smoothed(once, 2)
    coarse = F.max_pool2d(
        (twice - _smoothed(twice, 4)).abs(), NEAR_EDGE, stride=1, padding=NEAR_EDGE // 2
    )
    edges = coarse >= torch.quantile(coarse.flatten(), 1 - EDGES)
    fine, coarser = (
        (band.square() * edges).flatten(1).sum(dim=1)
        for band in (_laplacian(brightness), once - twice)
    )
    if coarser.sum() < NO_EDGES * edges.sum():
        return Measured(SHARP, 0.0)
    value = fine.sum() / coarser.sum()
    # Of each patch as much as it has edges.
    spread = (fine - value * coarser).abs().sum() / coarser.sum()
    return Measured(float(value), float(spread))


def _smoothed(planes: Tensor, distance: int) -> Tensor:
    """(B, 1, H, W) by a binomial filter whose taps lie `distance` pixels apart."""
    taps = planes.new_tensor(BINOMIAL)
    margin = len(BINOMIAL) // 2 * distance
    padded = F.pad(planes, (margin,) * 4, mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, -1, 1), dilation=distance)
    return F.conv2d(rows, taps.view(1, 1, 1, -1), dilation=distance)


def _laplacian(planes: Tensor) -> Tensor:
    """(B, 1, H, W): each pixel without the mean of its four neighbours."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="reflect")
    around = (
        padded[..., :-2, 1:-1]
        + padded[..., 2:, 1:-1]
        + padded[..., 1:-1, :-2]
        + padded[..., 1:-1, 2:]
    )
    return planes - around / 4


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
