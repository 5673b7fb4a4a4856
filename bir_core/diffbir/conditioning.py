"""What IRControlNet is conditioned on: the latent of the stage-1 image, its noise and its parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.noise import Draws
from ..diffusion.schedules import q_sample
from ..errors import BIRError
from ..images import from_mask, pad_to_multiple, resize
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE

# Sides of a mask may be this part longer or shorter than the proportions of the image.
ASPECT_TOLERANCE = 0.02


def augment_condition(latent: Tensor, alpha_cumprod: Tensor, draws: Draws) -> Tensor:
    """Noise on the condition (DiffBIR's noise_aug): less faithful, more inventive.

    Args:
        latent: (B, 4, h, w), latent_scale applied.
        alpha_cumprod: abar of the timestep up to which noise is added, in the model's schedule.
        draws: of the run. The noise that it starts from, their first, must be drawn before, as in
            the official code: the two must be independent.

    Returns:
        sqrt(abar) latent + sqrt(1 - abar) noise.
    """
    return q_sample(latent, draws(latent), alpha_cumprod)


def latent_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask (B, H, W), (B, 1, H, W) or (H, W) for an image of (height, width) pixels as
    (B, 1, h, w), at the resolution of the padded image's latents."""
    masks = from_mask(mask)
    proportion = masks.shape[-1] * height / (masks.shape[-2] * width)
    if abs(proportion - 1) > ASPECT_TOLERANCE:
        raise BIRError(
            f"The mask of the guidance should have the proportions of the image, {width} x "
            f"{height}, but {masks.shape[-1]} x {masks.shape[-2]} came; paint it on the image, or "
            "disconnect it."
        )
    padded = pad_to_multiple(resize(masks, height, width, "bilinear"), PADDED_MULTIPLE)
    latents = padded.shape[-2] // LATENT_FACTOR, padded.shape[-1] // LATENT_FACTOR
    return resize(padded, *latents, "area").clamp(0, 1)


def condition_parts(
    condition: Tensor, corners: Sequence[tuple[int, int]], height: int, width: int, count: int
) -> Tensor:
    """The parts of the condition that belong to the parts of a latent.

    Args:
        condition: (B, 4, H, W) of the whole picture.
        corners: (y, x) of each part in latent pixels.
        height, width: of every part.
        count: samples of each part. A condition of fewer images is repeated in their order, of
            more is cut.

    Returns:
        (len(corners) * count, 4, height, width), part by part.
    """
    index = torch.arange(count, device=condition.device) % len(condition)
    parts = [condition[:, :, y : y + height, x : x + width][index] for y, x in corners]
    return torch.cat(parts)
