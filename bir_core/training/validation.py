"""Held-out pictures: what is restored of them, and what is shown."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import crop, pad_to_multiple, resize
from ..metrics import psnr, ssim
from .recipe import ValidationRecipe


@dataclass(frozen=True)
class ValidationSet:
    """Held-out pairs.

    Attributes:
        count: number of pairs.
        pair: index -> lq (1, 3, h, w) and hq, the same on every call.
        recipe: which part is measured, and how.
        size_multiple: pixels by which the sides of lq must divide.
    """

    count: int
    pair: Callable[[int], tuple[Tensor, Tensor]]
    recipe: ValidationRecipe
    size_multiple: int

    def restored(
        self, index: int, restore: Callable[[Tensor, Tensor], Tensor], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Restore a picture, or the part of it that the recipe names.

        Args:
            restore: (lq, hq) -> restored, all on `device`; sides divide by `size_multiple`.

        Returns:
            lq, restored in [0, 1] and hq, on the CPU.
        """
        lq, hq = self.pair(index)
        scale = hq.shape[-1] // lq.shape[-1]
        side = self.recipe.patch // scale
        if side:
            lq, hq = _centre(lq, side), _centre(hq, side * scale)
        restored = restore(
            pad_to_multiple(lq, self.size_multiple).to(device),
            pad_to_multiple(hq, self.size_multiple * scale).to(device),
        )
        return lq, crop(restored, *hq.shape[-2:]).clamp(0, 1).cpu(), hq

    def measure(self, restored: Tensor, hq: Tensor) -> tuple[float, float]:
        """PSNR in dB and SSIM of a picture (1, 3, H, W), without the border."""
        channel, border = self.recipe.channel, self.recipe.border
        return (
            float(psnr(restored, hq, channel=channel, border=border)),
            float(ssim(restored, hq, channel=channel, border=border)),
        )


def side_by_side(lq: Tensor, restored: Tensor, hq: Tensor) -> Tensor:
    """(3, H, 3 W) of a picture's lq, enlarged by bicubic interpolation, its restoration and hq."""
    enlarged = resize(lq[:, :3], *hq.shape[-2:]).clamp(0, 1)
    return torch.cat([enlarged, restored, hq], dim=-1)[0]


def _centre(image: Tensor, side: int) -> Tensor:
    """The central square of an image (B, C, H, W), or what there is of it."""
    top, left = max(image.shape[-2] - side, 0) // 2, max(image.shape[-1] - side, 0) // 2
    return image[..., top : top + side, left : left + side]
