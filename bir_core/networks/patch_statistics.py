"""Statistics of a patch in which noise, blur, JPEG and enlargement are plain to see.

finest detail   noise: quantiles of Haar's diagonal coefficients (Donoho and Johnstone, Biometrika
                1994), also of the quietest places, and how alike the channels are
spectrum        blur and enlargement: where the power ends
steps           JPEG: differences that are larger at the edges of blocks of 8 pixels
blocks          JPEG: how many coefficients of each frequency are 0 (Fan and de Queiroz,
                "Identification of bitmap compression history", 2003)
edges           blur: how much less steep they become when blurred once more (Zhuo and Sim, "Defocus
                map estimation from a single image", Pattern Recognition 2011)
"""

import math

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional as F

from ..images import luma

BLOCK = 8
LEAST_SIDE = 3 * BLOCK
QUANTILES = (0.25, 0.5, 0.75)
PLACES = (0.1, 0.5, 0.9)
PLACE = 4  # side in coefficients of a place whose detail is averaged
RINGS, CHROMA_RINGS, LINES = 12, 8, 16
# Below this a coefficient was 0 before the picture was rounded to 8 bits.
ZERO = 1.0
# What is added before a logarithm, in steps of 8 bit.
FLOOR = 0.1
COUNT = 4 * (len(QUANTILES) + len(PLACES) + 1) + 3 + RINGS + CHROMA_RINGS + LINES + BLOCK
COUNT += 2 * BLOCK - 1
# Of the steepest tenth of a patch, how the sharpest of it and the rest lose their steepness.
STEEPEST, EDGES = 0.9, (0.5, 0.75, 0.95)
REBLURS = (1.0, 2.0)
COUNT += len(EDGES) * len(REBLURS)


@torch.no_grad()
def patch_statistics(patches: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 1], sides of at least `LEAST_SIDE` -> (B, COUNT) numbers of order 1."""
    steps = patches.float() * 255
    grey = luma(steps)
    chroma = steps[:, :1] - steps[:, 2:]
    return torch.cat(
        [
            _detail(torch.cat([steps, grey], dim=1)),
            _likeness(_diagonal(steps)),
            _rings(grey, RINGS),
            _rings(chroma, CHROMA_RINGS),
            _lines(grey),
            *_blocks(grey[:, 0]),
            *(_edges(grey, sigma) for sigma in REBLURS),
        ],
        dim=1,
    )


def _log(value: Tensor) -> Tensor:
    return (value + FLOOR).log()


def _diagonal(image: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h / 2, w / 2): Haar's coefficients, as large as white noise is."""
    height, width = image.shape[-2] // 2 * 2, image.shape[-1] // 2 * 2
    high = image[..., 0:width:2] - image[..., 1:width:2]
    return (high[..., 0:height:2, :] - high[..., 1:height:2, :]) / 2


def _detail(image: Tensor) -> Tensor:
    """Quantiles of the finest detail, of its means over places, and the median of the next scale;
    of each of them for all channels."""
    detail = _diagonal(image).abs()
    of_pixels = torch.quantile(detail.flatten(2), detail.new_tensor(QUANTILES), dim=2)
    of_places = F.avg_pool2d(detail, PLACE).flatten(2)
    of_places = torch.quantile(of_places, detail.new_tensor(PLACES), dim=2)
    coarser = _diagonal(F.avg_pool2d(image, 2)).abs().flatten(2).median(dim=2).values[None]
    return _log(torch.cat([of_pixels, of_places, coarser])).permute(1, 0, 2).flatten(1)


def _likeness(detail: Tensor) -> Tensor:
    """Correlations of red and green, green and blue, blue and red."""
    detail = detail.flatten(2)
    other = detail.roll(-1, dims=1)
    scale = (detail.square().mean(2) * other.square().mean(2)).sqrt()
    return (detail * other).mean(2) / (scale + FLOOR**2)


def _power(image: Tensor) -> Tensor:
    """(B, 1, h, w) -> (B, h, w) power at each frequency, of a white picture its variance."""
    height, width = image.shape[-2:]
    window = torch.hann_window(height, device=image.device)[:, None] * torch.hann_window(
        width, device=image.device
    )
    image = image[:, 0] - image.mean(dim=(2, 3))[..., None]
    return torch.fft.fft2(image * window).abs().square() / window.square().sum()


def _frequencies(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of the rows and the columns of a spectrum, in [0, 1], where 1 is that of a checkerboard."""
    height, width = image.shape[-2:]
    rows, columns = (2 * torch.fft.fftfreq(side, device=image.device) for side in (height, width))
    return rows.abs(), columns.abs()


def _rings(image: Tensor, count: int) -> Tensor:
    """Mean power in rings of the spectrum, up to the frequency 1 of an axis."""
    power = _power(image).flatten(1)
    rows, columns = _frequencies(image)
    ring = (torch.hypot(rows[:, None], columns) * count).long().clamp(max=count - 1).flatten()
    return _of_groups(power, ring, count)


def _lines(image: Tensor) -> Tensor:
    """Mean power along rows and columns of the spectrum: resizing works on each by itself."""
    power = _power(image)
    rows, columns = _frequencies(image)
    found = [
        _of_groups(power.mean(axis), (lines * LINES).long().clamp(max=LINES - 1), LINES)
        for axis, lines in ((2, rows), (1, columns))
    ]
    return torch.stack(found).mean(0)


def _of_groups(power: Tensor, group: Tensor, count: int) -> Tensor:
    """Logarithm of the mean of (B, n) over each of `count` groups (n,), of order 1."""
    members = F.one_hot(group, count).to(power)
    return _log(power @ members / members.sum(0).clamp(min=1)) / 3


def _blocks(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours by their place in blocks of 8 pixels, from the largest one on, and
    the share of coefficients near 0 in the blocks that lie so, by frequency."""
    height, width = ((side - 1) // BLOCK * BLOCK for side in grey.shape[-2:])
    down = (grey[:, 1 : height + 1] - grey[:, :height]).abs().mean(2)
    across = (grey[:, :, 1 : width + 1] - grey[:, :, :width]).abs().mean(1)
    profiles, starts = [], []
    for steps in (down, across):
        profile = _log(reduce(steps, "b (n k) -> b k", "mean", k=BLOCK))
        largest = profile.argmax(dim=1)
        order = (largest[:, None] + torch.arange(BLOCK, device=grey.device)) % BLOCK
        profiles.append(profile.gather(1, order) - profile.mean(1, keepdim=True))
        starts.append((largest + 1) % BLOCK)
    rows, columns = (
        start[:, None] + torch.arange(side - BLOCK, device=grey.device)
        for start, side in zip(starts, (height, width), strict=True)
    )
    batch = torch.arange(len(grey), device=grey.device)[:, None, None]
    aligned = grey[batch, rows[:, :, None], columns[:, None, :]]
    blocks = rearrange(aligned, "b (m u) (n v) -> b (m n) u v", u=BLOCK, v=BLOCK)
    transform = dct_matrix().to(grey)
    zeros = ((transform @ blocks @ transform.T).abs() < ZERO).float().mean(dim=1)
    frequency = torch.arange(BLOCK, device=grey.device)
    diagonal = F.one_hot((frequency[:, None] + frequency).flatten(), 2 * BLOCK - 1).to(grey)
    return (profiles[0] + profiles[1]), zeros.flatten(1) @ diagonal / diagonal.sum(0)


def _edges(grey: Tensor, sigma: float) -> Tensor:
    """Quantiles of the logarithm of the steepness (B, 1, h, w) by that after a blur of `sigma`, of
    the pixels that are steepest after it: about log(1 + sigma^2 / blur^2) / 2 of an edge."""
    reach = math.ceil(3 * sigma)
    place = torch.arange(-reach, reach + 1, device=grey.device)
    kernel = torch.exp(-0.5 * (place / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = F.pad(grey, (reach, reach, reach, reach), mode="reflect")
    blurred = F.conv2d(F.conv2d(blurred, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    before, after = (_steepness(image).flatten(1) for image in (grey, blurred))
    count = max(1, round((1 - STEEPEST) * after.shape[1]))
    after, places = after.topk(count, dim=1)
    ratio = (before.gather(1, places) + FLOOR).log() - (after + FLOOR).log()
    return torch.quantile(ratio, ratio.new_tensor(EDGES), dim=1).T


def _steepness(image: Tensor) -> Tensor:
    """Length of the gradient, but for the outermost pixels."""
    across = image[..., 1:-1, 2:] - image[..., 1:-1, :-2]
    down = image[..., 2:, 1:-1] - image[..., :-2, 1:-1]
    return torch.hypot(across, down)


def dct_matrix() -> Tensor:
    """(8, 8) orthonormal DCT-II, by which JPEG transforms rows and columns of blocks."""
    place = torch.arange(BLOCK) + 0.5
    matrix = torch.cos(math.pi / BLOCK * torch.arange(BLOCK)[:, None] * place) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
