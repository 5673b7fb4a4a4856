"""Range, layout, size and colour of images: the only place where they change.

Everywhere else an image is a tensor (B, C, H, W), float, in [0, 1]. Only inside a run of DiffBIR
does it leave this range, as in the official code: the result of stage 1, the picture that the VAE
decodes and what the colour fix makes of them are as the networks give them, because a clamp would
change the low frequencies that the fix takes from them. Clamped is what stage 1 is given, once it
has been enlarged, and the finished picture, as the last step of all. In ComfyUI the IMAGE of the
Restoration Module is such a result of stage 1; the nodes that may end a graph clamp.

A grey picture stays grey: whatever restores colours gives its result through `keep_grey`.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .errors import BIRError, NotFinite

PadMode = Literal["reflect", "symmetric", "edge", "black"]
ResizeMode = Literal["area", "bilinear", "bicubic", "matlab"]
# Weights of green and blue in the luma of Rec. 601, as JPEG and Pillow have it; red has the rest.
GREEN, BLUE = 0.587, 0.114
# Alpha that shows nothing, but says that there are colours: 0 in files, not 0 in half precision.
INVISIBLE = 2.0**-24


def from_channels_last(image: Tensor) -> Tensor:
    """(B, H, W, C) -> contiguous (B, C, H, W), from ComfyUI's and most files' layout.

    Raises:
        BIRError: no image, or one without pixels.
    """
    require_pixels(image)
    return rearrange(image, "b h w c -> b c h w").contiguous()


def from_mask(mask: Tensor) -> Tensor:
    """(B, H, W), (H, W) or (B, 1, H, W) -> float (B, 1, H, W), from ComfyUI's layout of masks.

    Raises:
        BIRError: no mask, or one without pixels.
    """
    require_pixels(mask)
    return mask.float().reshape(-1, 1, *mask.shape[-2:])


def require_pixels(batch: Tensor) -> None:
    """Raise BIRError for a batch of images, masks or latents that has none, or none with pixels."""
    if 0 in batch.shape:
        raise BIRError(
            "Expected at least one picture of at least 1 x 1 pixels, but a batch of the shape "
            f"{tuple(batch.shape)} came; look at what the node or the code before gives."
        )


def to_channels_last(image: Tensor) -> Tensor:
    """(B, C, H, W) -> contiguous (B, H, W, C)."""
    return rearrange(image, "b c h w -> b h w c").contiguous()


def mirrored_indices(
    length: int, before: int, after: int, device: torch.device, mode: PadMode = "reflect"
) -> Tensor:
    """Source index of each position of an axis of `length` that is continued at both ends by so
    many pixels, any number; (before + length + after,)."""
    position = torch.arange(-before, length + after, device=device)
    if length == 1 or mode == "edge":
        return position.clamp(0, length - 1)
    period = 2 * length if mode == "symmetric" else 2 * (length - 1)
    position = position % period
    mirrored = period - 1 - position if mode == "symmetric" else period - position
    return torch.where(position < length, position, mirrored)


def pad_to_multiple(image: Tensor, multiple: int, mode: PadMode = "reflect") -> Tensor:
    """Continue an image at the right and the bottom until both sides divide by `multiple`.

    Args:
        image: (B, C, H, W), any H and W from 1 pixel on.
        multiple: pixels.
        mode: "reflect" mirrors about the centre of the last pixel (torch's "reflect"), "symmetric"
            about its outer edge (numpy's "symmetric"). Both go on mirroring when the padding is
            larger than the image, where torch would fail; one pixel is repeated. "edge" repeats
            the last pixel, "black" adds zeros.

    Returns:
        (B, C, H', W'), the same tensor if nothing is to be added. Crop with `crop` afterwards.
    """
    height, width = image.shape[-2:]
    padded_height, padded_width = -height % multiple + height, -width % multiple + width
    if (padded_height, padded_width) == (height, width):
        return image
    if mode == "black":
        return F.pad(image, (0, padded_width - width, 0, padded_height - height))
    if padded_height != height:
        rows = mirrored_indices(height, 0, padded_height - height, image.device, mode)
        image = image.index_select(-2, rows)
    if padded_width != width:
        columns = mirrored_indices(width, 0, padded_width - width, image.device, mode)
        image = image.index_select(-1, columns)
    return image


def crop(image: Tensor, height: int, width: int) -> Tensor:
    """The top left part of an image (B, C, H, W), at most (height, width) pixels."""
    return image[..., :height, :width]


def resize(image: Tensor, height: int, width: int, mode: ResizeMode = "bicubic") -> Tensor:
    """Resize (B, C, H, W) to (height, width), antialiased where it shrinks; bicubic and matlab may
    overshoot the range, so clamp afterwards where that matters.

    "matlab" is `imresize` of MATLAB with its default, "bicubic": the same inside a picture as
    "bicubic", but the border is mirrored, and the sums are made in float64.
    """
    if mode == "area":
        return F.interpolate(image, (height, width), mode="area")
    if mode == "matlab":
        exact = image if image.device.type == "mps" else image.double()  # mps has no float64
        rows = _imresize_rows(exact, height)
        columns = _imresize_rows(rows.transpose(-1, -2), width)
        return columns.transpose(-1, -2).to(image).contiguous()
    return F.interpolate(image, (height, width), mode=mode, antialias=True, align_corners=False)


def _imresize_rows(image: Tensor, height: int) -> Tensor:
    """The rows of (B, C, H, W) resized to `height`: cubic convolution with a = -1/2 (Keys, 1981),
    stretched by the reduction, weights that sum to 1, and rows mirrored about the outer edge."""
    length = image.shape[-2]
    scale = height / length
    stretch = max(1.0, 1 / scale)
    centre = (torch.arange(height, dtype=torch.float64) + 0.5) / scale - 0.5
    margin = math.ceil(2 * stretch)
    source = centre.floor().long()[:, None] + torch.arange(-margin, margin + 2)
    weights = _keys((centre[:, None] - source) / stretch)
    weights = (weights / weights.sum(1, keepdim=True)).to(image)
    mirrored = mirrored_indices(length, 2 * margin, 2 * margin, image.device, "symmetric")
    source = mirrored[source.to(image.device) + 2 * margin]
    result = image.new_zeros(*image.shape[:-2], height, image.shape[-1])
    for rows, weight in zip(source.unbind(1), weights.unbind(1), strict=True):
        result += weight[:, None] * image.index_select(-2, rows)
    return result


def _keys(distance: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -1/2 (Keys, "Cubic convolution interpolation for
    digital image processing", 1981, equation 15)."""
    x = distance.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def luma(image: Tensor) -> Tensor:
    """(B, 3, H, W) to the grey picture (B, 1, H, W), exactly the channels where they are equal."""
    red, green, blue = image[:, :1], image[:, 1:2], image[:, 2:]
    return red + GREEN * (green - red) + BLUE * (blue - red)


def keep_grey(restored: Tensor, image: Tensor) -> Tensor:
    """Take the colours off what was restored from grey pictures.

    Args:
        restored: (B, 3, H', W').
        image: (B, 3, H, W), or (1, 3, H, W) for all of them; grey if its channels are equal
            everywhere, as of a file with a single channel.

    Returns:
        (B, 3, H', W'); the same tensor if no picture is grey.
    """
    grey = (image[:, :1] == image[:, 1:]).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(grey, luma(restored), restored) if grey.any() else restored


def is_finite(values: Tensor) -> bool:
    """Whether a tensor of any shape and dtype holds neither NaN nor infinity. Both show in its
    extremes, which are found without a copy and many times faster than each number is tested."""
    if not values.is_floating_point() or values.numel() == 0:
        return True
    extremes = (values.float() if values.element_size() == 1 else values).aminmax()
    return bool(torch.stack(extremes).isfinite().all())


def require_finite(image: Tensor, what: str) -> None:
    """Raise NotFinite if a tensor holds NaN or infinity; `what` names it in the sentence."""
    if not is_finite(image):
        raise NotFinite(
            f"{what} should hold finite numbers only, but NaN or infinity came; "
            "check the step that made it.",
            what,
        )


def split_alpha(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """The colours and the opacity of an image.

    Args:
        image: (B, C, H, W); C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Returns:
        RGB (B, 3, H, W), grey repeated, and alpha (B, 1, H, W), None where there is none. Under
        alpha 0 the colours are those of `extend_opaque`.

    Raises:
        BIRError: another number of channels.
    """
    channels = image.shape[1]
    if channels not in (1, 2, 3, 4):
        raise BIRError(
            "An image should have 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels, "
            f"but {channels} came; convert it to RGB."
        )
    colours = 1 if channels < 3 else 3
    rgb, alpha = image[:, :colours], image[:, colours:]
    rgb = rgb.expand(-1, 3, -1, -1)
    if not alpha.shape[1]:
        return rgb, None
    return extend_opaque(rgb, alpha), alpha


def masks_of_batch(mask: Tensor, batch: int) -> Tensor:
    """A mask for each image of a batch; a single one serves them all.

    Args:
        mask: (H, W), (1, H, W) or (batch, H, W).

    Returns:
        (batch, 1, H, W) float32.

    Raises:
        BIRError: another number of masks, none, or NaN or infinity in them.
    """
    masks = from_mask(mask)
    if len(masks) not in (1, batch):
        raise BIRError(
            f"Expected one mask, or one for each of the {batch} images, but {len(masks)} came; "
            "repeat or select masks to match the batch."
        )
    require_finite(masks, "The mask")
    return masks.expand(batch, -1, -1, -1)


def extend_opaque(image: Tensor, alpha: Tensor | None) -> Tensor:
    """Continue the visible colours of an image under its wholly transparent parts. Whatever colours
    a file hides there, a network would carry them into the visible edges.

    The known colours are averaged over 2 x 2 pixels, again and again, and what is unknown is taken
    from the finest level that knows it (pull-push; Gortler et al., The Lumigraph, 1996, section 4).

    Args:
        image: (B, C, H, W).
        alpha: (B, 1, H, W), 0 where nothing is visible; None where everything is.

    Returns:
        (B, C, H, W): the same tensor if nothing is hidden; else the same numbers where alpha is
        above 0, and everywhere in images that are transparent as a whole.
    """
    if alpha is None:
        return image
    hidden = alpha <= 0
    if not hidden.any():
        return image
    nothing = hidden.flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(hidden & ~nothing, _filled(image, (~hidden).to(image)), image)


def _filled(image: Tensor, known: Tensor) -> Tensor:
    """An image with what is not known (0 in (B, 1, H, W), else 1) taken from coarser levels."""
    height, width = image.shape[-2:]
    if max(height, width) == 1:
        return image
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(image * known, 2, ceil_mode=True)
    # At the least a quarter of a cell is known, or nothing.
    coarse = _filled(coarse / share.clamp(min=0.25), (share > 0).to(image))
    return torch.where(known > 0, image, resize(coarse, height, width, "bilinear"))


def attach_alpha(image: Tensor, alpha: Tensor | None) -> Tensor:
    """Put an alpha channel (B, 1, h, w), enlarged to the size of the image (B, 3, H, W), back
    behind its colours; the image itself where there is none.

    Alpha 0 becomes `INVISIBLE`: the colours under it are restored ones, which the next network is
    to see as they are.
    """
    if alpha is None:
        return image
    alpha = resize(alpha, image.shape[-2], image.shape[-1]).clamp(INVISIBLE, 1)
    return torch.cat([image, alpha.to(image)], dim=1)


def require_image(image: Tensor) -> None:
    """Raise BIRError unless this is (B, 3, H, W), floating-point, finite and not empty."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or not image.numel():
        raise BIRError(
            "The image should be a tensor (B, 3, H, W) of floating-point numbers in [0, 1], but "
            f"{tuple(image.shape)} of {image.dtype} came; convert it first."
        )
    require_finite(image, "The image")
