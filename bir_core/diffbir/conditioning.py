"""What IRControlNet is conditioned on: the latent of the stage-1 image, its noise and its parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.noise import Draws
from ..diffusion.schedules import q_sample


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


def condition_parts(
    condition: Tensor, corners: Sequence[tuple[int, int]], height: int, width: int, count: int
) -> Tensor:
    """The parts of the condition that belong to the parts of a latent.

    Args:
        condition: (B, C, H, W) of the whole picture.
        corners: (y, x) of each part in latent pixels.
        height, width: of every part.
        count: samples of each part. A condition of fewer images is repeated in their order, of
            more is cut.

    Returns:
        (len(corners) * count, C, height, width), part by part.
    """
    index = torch.arange(count, device=condition.device) % len(condition)
    parts = [condition[:, :, y : y + height, x : x + width][index] for y, x in corners]
    return torch.cat(parts)
