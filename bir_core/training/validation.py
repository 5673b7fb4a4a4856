"""Held-out pictures: what is restored of them, how it is measured, and what is shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from ..images import crop, pad_to_multiple, resize
from ..metrics import psnr, ssim
from ..networks.distances import LPIPS
from .recipe import ValidationRecipe

LOWER_IS_BETTER = ("lpips",)
# How the log writes a measure.
FORMATS = {"psnr": "PSNR {:.3f} dB", "ssim": "SSIM {:.4f}", "lpips": "LPIPS {:.4f}"}


@dataclass(frozen=True)
class ValidationSet:
    """Held-out pairs.

    Attributes:
        count: number of pairs.
        pair: index -> lq (1, 3, h, w) and hq, the same on every call.
        recipe: which part is measured, and how.
        size_multiple: pixels by which the sides of lq must divide.
        lpips: the distance, if it is measured too.
    """

    count: int
    pair: Callable[[int], tuple[Tensor, Tensor]]
    recipe: ValidationRecipe
    size_multiple: int
    lpips: LPIPS | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what is measured."""
        return ("psnr", "ssim") if self.lpips is None else ("psnr", "ssim", "lpips")

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

    def measure(self, restored: Tensor, hq: Tensor, device: torch.device) -> dict[str, float]:
        """PSNR in dB, SSIM and, if asked for, LPIPS of a picture (1, 3, H, W), without the border.
        LPIPS is that of RGB and is computed on `device`."""
        channel, border = self.recipe.channel, self.recipe.border
        measured = {
            "psnr": float(psnr(restored, hq, channel=channel, border=border)),
            "ssim": float(ssim(restored, hq, channel=channel, border=border)),
        }
        if self.lpips is not None:
            inner = [_without_border(image, border).to(device) for image in (restored, hq)]
            measured["lpips"] = float(self.lpips.to(device)(*inner))
        return measured


def is_better(measure: str, value: float, best: float | None) -> bool:
    """Whether a mean of validation is better than the best so far, if any; NaN never is."""
    if isnan(value) or best is None:
        return not isnan(value)
    return value < best if measure in LOWER_IS_BETTER else value > best


def in_words(means: Mapping[str, float]) -> str:
    """Means of validation by name, as the log has them."""
    return ", ".join(FORMATS[name].format(value) for name, value in means.items())


def side_by_side(lq: Tensor, restored: Tensor, hq: Tensor) -> Tensor:
    """(3, H, 3 W) of a picture's lq, enlarged by bicubic interpolation, its restoration and hq."""
    enlarged = resize(lq[:, :3], *hq.shape[-2:]).clamp(0, 1)
    return torch.cat([enlarged, restored, hq], dim=-1)[0]


def _centre(image: Tensor, side: int) -> Tensor:
    """The central square of an image (B, C, H, W), or what there is of it."""
    top, left = max(image.shape[-2] - side, 0) // 2, max(image.shape[-1] - side, 0) // 2
    return image[..., top : top + side, left : left + side]


def _without_border(image: Tensor, border: int) -> Tensor:
    height, width = image.shape[-2:]
    return image[..., border : height - border, border : width - border]
