"""Blur of motion by the mean of consecutive frames, as GoPro's pairs are made."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import BIRError


def average_frames(frames: Iterable[Tensor], gamma: float = 2.2) -> Tensor:
    """What a camera would have seen whose shutter was open over all frames (Nah et al., "Deep
    multi-scale convolutional neural network for dynamic scene deblurring", CVPR 2017, equation 4):

    B = (1 / N sum_i S_i^gamma)^(1 / gamma)

    Args:
        frames: each (B, C, H, W) in [0, 1], all of one shape; read one after the other.
        gamma: of the camera's response, which is undone before the mean and applied to it; 1
            averages the frames as they are.

    Returns:
        (B, C, H, W) in [0, 1], summed in float64.

    Raises:
        BIRError: no frame, frames of several shapes, or a gamma that is not above 0.
    """
    require_gamma(gamma)
    total: Tensor | None = None
    count = 0
    for frame in frames:
        linear = frame.double().clamp(0, 1) ** gamma
        if total is not None and total.shape != linear.shape:
            sizes = [f"{each.shape[-1]}x{each.shape[-2]}" for each in (total, linear)]
            raise BIRError(
                f"Expected frames of one size, but {sizes[0]} and {sizes[1]} came; take the frames "
                "of one video."
            )
        total = linear if total is None else total + linear
        count += 1
    if total is None:
        raise BIRError("Expected at least one frame to average, but none came; add frames.")
    return ((total / count) ** (1 / gamma)).to(torch.float32)


def require_gamma(gamma: float) -> None:
    """Raise BIRError unless a gamma is above 0 and finite."""
    if not 0 < gamma < math.inf:
        raise BIRError(f"Expected a gamma above 0, but {gamma:g} came; take 2.2, or 1 for none.")
