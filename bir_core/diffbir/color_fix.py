"""Give a restored picture the colours of the stage-1 picture.

`content` is the picture with the detail, `style` the one with the colours, both (B, 3, H, W) in
[0, 1] and of one size; use them on the whole picture, not on tiles. Results are not clamped.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import keep_grey
from .masks import blending_share

WAVELET_LEVELS = 5
# How far a wavelet's low frequencies see, in pixels.
WAVELET_REACH = 2**WAVELET_LEVELS - 1
# Rows of a strip in which they are computed, with its rows of neighbours besides.
STRIP = 256
ColorFix = Callable[[Tensor, Tensor], Tensor]


def _check_sizes(content: Tensor, style: Tensor) -> None:
    if content.shape != style.shape:
        raise BIRError(
            "Picture and reference of the colour fix should have one shape, but "
            f"{tuple(content.shape)} and {tuple(style.shape)} came; resize the reference."
        )


def _blur(image: Tensor, radius: int) -> Tensor:
    """3 x 3 binomial blur with holes: neighbours are `radius` pixels away, the border repeats."""
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    above, below = padded[..., : -2 * radius, :], padded[..., 2 * radius :, :]
    rows = (above + 2 * padded[..., radius:-radius, :] + below) / 4
    return (rows[..., : -2 * radius] + 2 * rows[..., radius:-radius] + rows[..., 2 * radius :]) / 4


def wavelet_split(image: Tensor) -> tuple[Tensor, Tensor]:
    """(high, low) frequencies of an image (B, C, H, W), which sum to it: low is the image after
    blurs of radius 1, 2, 4, 8 and 16 (the "a trous" wavelet)."""
    low = image
    for level in range(WAVELET_LEVELS):
        low = _blur(low, 2**level)
    return image - low, low


def wavelet_color_fix(content: Tensor, style: Tensor) -> Tensor:
    """High frequencies of the content on the low ones of the style, as DiffBIR ends every run; in
    strips, which change nothing.

    Raises:
        BIRError: two shapes.
    """
    _check_sizes(content, style)
    fixed, height = torch.empty_like(content), content.shape[-2]
    for top in range(0, height, STRIP):
        first = max(0, top - WAVELET_REACH)
        seen = slice(first, top + STRIP + WAVELET_REACH)
        strip = wavelet_split(content[..., seen, :])[0]
        strip += wavelet_split(style[..., seen, :])[1]
        fixed[..., top : top + STRIP, :] = strip[..., top - first : top - first + STRIP, :]
    return fixed


def adain_color_fix(content: Tensor, style: Tensor) -> Tensor:
    """Mean and deviation of each channel of the content made those of the style (Huang and Belongie
    2017, "Arbitrary Style Transfer", eq. 8). Arguments and errors as in `wavelet_color_fix`."""
    _check_sizes(content, style)
    if content[0, 0].numel() < 2:
        raise BIRError(
            "A picture for the AdaIN colour fix should have at least 2 pixels, but 1 came; "
            "use the wavelet colour fix."
        )
    content_variance, content_mean = torch.var_mean(content, dim=(2, 3), keepdim=True)
    style_variance, style_mean = torch.var_mean(style, dim=(2, 3), keepdim=True)
    normalised = (content - content_mean).div_((content_variance + 1e-5).sqrt())
    return normalised.mul_((style_variance + 1e-5).sqrt()).add_(style_mean)


COLOR_FIXES: dict[str, ColorFix] = {"wavelet": wavelet_color_fix, "adain": adain_color_fix}


def fix_colors(
    content: Tensor,
    style: Tensor,
    fix: ColorFix | None,
    blending: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """The end of a run: the content with a fix of `COLOR_FIXES` or without, and without colours
    where the style is grey; then a share of the style, 0 to 1, is blended in, or at each place what
    a mask (B or 1, 1, H, W) makes of it (see `masks.blending_share`). Other arguments and errors as
    in `wavelet_color_fix`."""
    fixed = keep_grey(content if fix is None else fix(content, style), style)
    if mask is not None:
        return torch.lerp(fixed, style, blending_share(mask.to(fixed), blending))
    return torch.lerp(fixed, style, blending) if blending else fixed
