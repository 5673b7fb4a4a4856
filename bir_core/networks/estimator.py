"""The network that says of a patch of a picture how it was damaged.

Convolutions at the patch's own resolution see what blur, noise and JPEG leave in the finest detail;
the means of their activations over the patch are judged, beside statistics in which damage shows.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError
from ..images import pad_to_multiple
from .patch_statistics import COUNT, LEAST_SIDE, patch_statistics

# What is measured, with the size of a usual error of a first guess.
UNITS = {"blur_sigma": 1.0, "noise_sigma": 10.0, "jpeg_quality": 25.0, "enlargement": 1.0}
# What may be so or not.
CHANCES = ("noise_grey", "jpeg")
# Channels and strides of the convolutions, in units of `features`.
WIDTHS, STRIDES = (2, 3, 4, 6, 8, 8), (1, 2, 2, 1, 2, 1)
LARGEST_LOG_SPREAD = 5.0


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """All sizes of the network.

    Attributes:
        features: half of the channels at full resolution.
        hidden: numbers between what is judged and the estimates, in each of two layers.
    """

    features: int = 8
    hidden: int = 128

    def __post_init__(self) -> None:
        if self.features < 1 or self.hidden < 1:
            raise BIRError(
                "An estimator should have at least 1 feature and 1 hidden number, but "
                f"{self.features} and {self.hidden} came; correct `network`."
            )

    @property
    def scale(self) -> int:
        """1: it enlarges nothing."""
        return 1

    @property
    def size_multiple(self) -> int:
        """What the sides of the input divide by: any side will do."""
        return 1


@dataclass(frozen=True)
class PatchEstimates:
    """What the network says of patches.

    Attributes:
        values: (B, 4) in the order and the units of `UNITS`: pixels of the picture before it was
            enlarged, steps of 8 bit of the same, 1 to 100, factor. The quality is that of JPEG, if
            there is one.
        spreads: (B, 4) mean absolute error that is expected of each, above 0.
        logits: (B, 2) of the probabilities of `CHANCES`: that noise is the same in all channels,
            and that there was a JPEG.
    """

    values: Tensor
    spreads: Tensor
    logits: Tensor


class Estimator(nn.Module):
    """Convolutions, the means of all their activations, statistics, and three linear layers."""

    def __init__(self, config: EstimatorConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        widths = (3, *(config.features * width for width in WIDTHS))
        self.convolutions = nn.ModuleList(
            operations.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
            for (channels_in, channels_out), stride in zip(pairwise(widths), STRIDES, strict=True)
        )
        self.judge = nn.ModuleList(
            [
                operations.Linear(sum(widths[1:]) + COUNT, config.hidden),
                operations.Linear(config.hidden, config.hidden),
                operations.Linear(config.hidden, 2 * len(UNITS) + len(CHANCES)),
            ]
        )

    def forward(self, patches: Tensor) -> PatchEstimates:
        """patches: (B, 3, h, w) in [0, 1], any size; the best is that of the training."""
        if min(patches.shape[-2:]) < LEAST_SIDE:
            patches = pad_to_multiple(patches, LEAST_SIDE)
        means = [patch_statistics(patches).to(patches)]
        x = 4 * (patches - patches.mean(dim=(-2, -1), keepdim=True))
        for layer in self.convolutions:
            x = F.leaky_relu(layer(x), 0.1)
            means.append(x.mean(dim=(-2, -1)))
        x = torch.cat(means, dim=1)
        for layer in self.judge[:-1]:
            x = F.leaky_relu(layer(x), 0.1)
        guess, log_spread, logits = (
            self.judge[-1](x).float().split([len(UNITS), len(UNITS), len(CHANCES)], dim=1)
        )
        units = guess.new_tensor(list(UNITS.values()))
        log_spread = log_spread.clamp(-LARGEST_LOG_SPREAD, LARGEST_LOG_SPREAD)
        return PatchEstimates(guess * units, log_spread.exp() * units, logits)


@torch.no_grad()
def draw_weights(model: Estimator, generator: torch.Generator) -> None:
    """He et al.'s draw ("Delving Deep into Rectifiers", ICCV 2015); the last layer begins at 0.

    Args:
        generator: on the CPU.
    """
    for layer in (*model.convolutions, *model.judge):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        deviation = (2 / layer.weight[0].numel()) ** 0.5
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * deviation)
        nn.init.zeros_(cast(Tensor, layer.bias))
    nn.init.zeros_(cast(nn.Linear, model.judge[-1]).weight)
