"""What a mask says about each place of a picture: 1 keeps the stage-1 picture, 0.5 restores as
without a mask, 0 invents. It acts on guidance, control and blending, and none of the three falls
where the mask rises."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ..diffusion.guidance import guided_share, kept_share
from ..errors import BIRError
from ..images import from_mask, pad_to_multiple, resize
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE

Painted = Literal["grey", "keep", "invent"]
PAINTED: tuple[Painted, ...] = get_args(Painted)
RESTORE = 0.5
# Of the control where everything is invented.
LEAST_STRENGTH = 0.6
# Sides of a mask may be this part longer or shorter than the proportions of the image.
ASPECT_TOLERANCE = 0.02


def mask_values(mask: Tensor, painted: Painted) -> Tensor:
    """A mask in [0, 1] as it was painted, of any shape, to one that keeps, restores or invents.

    Args:
        painted: what is meant by 1: "keep" or "invent", and the rest is restored; or "grey", and
            the mask is as it is.
    """
    if painted == "grey":
        return mask
    return RESTORE + (RESTORE if painted == "keep" else -RESTORE) * mask


def picture_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask (B, H, W), (B, 1, H, W) or (H, W) at the size (height, width) of its image,
    (B, 1, height, width) in [0, 1].

    Raises:
        BIRError: a mask of other proportions than the image.
    """
    masks = from_mask(mask)
    proportion = masks.shape[-1] * height / (masks.shape[-2] * width)
    if abs(proportion - 1) > ASPECT_TOLERANCE:
        raise BIRError(
            f"The mask should have the proportions of the image, {width} x {height}, but "
            f"{masks.shape[-1]} x {masks.shape[-2]} came; paint it on the image, or disconnect it."
        )
    return resize(masks, height, width, "bilinear").clamp(0, 1)


def latent_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """The same as (B, 1, h, w), at the resolution of the padded image's latents."""
    padded = pad_to_multiple(picture_mask(mask, height, width), PADDED_MULTIPLE)
    latents = padded.shape[-2] // LATENT_FACTOR, padded.shape[-1] // LATENT_FACTOR
    return resize(padded, *latents, "area").clamp(0, 1)


def control_share(mask: Tensor) -> Tensor:
    """Factor on the strength of the control at each place: `LEAST_STRENGTH` where the mask invents,
    as at the fidelity 0, and 1 from restoring on."""
    return 1 - (1 - LEAST_STRENGTH) * (1 - guided_share(mask))


def blending_share(mask: Tensor, blending: float) -> Tensor:
    """Share of the stage-1 picture in the result at each place: none where the mask invents,
    `blending` where it restores, all where it keeps."""
    share = blending * guided_share(mask)
    return torch.lerp(share, torch.ones_like(share), kept_share(mask))


def weigh(residual: Tensor, share: Tensor) -> Tensor:
    """A residual of IRControlNet, (B, C, h, w) at any of its resolutions, with a factor at each
    place of its latent (B, 1, H, W)."""
    height, width = residual.shape[-2:]
    return residual * resize(share, height, width, "area").to(residual)
