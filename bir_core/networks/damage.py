"""The network that finds damage of a picture's surface: a small U-Net (Ronneberger et al., MICCAI
2015) with a wide view.

It works at half the size and below, where a wide view is cheap, and gives four logits for each of
these pixels, which become the pixels of the picture. Its layers look at neighbours and normalise
over channels, never over places, so that a part of a picture gives what the whole does, up to its
reach.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError
from .diffir import LayerNormBody

FACTOR = 2  # side of the picture divided by that of the first level
BOTTOM_DILATIONS = (1, 2, 4)
# Colours of pictures deviate from grey by about a quarter; layers learn faster from about 1.
GREY, CONTRAST = 0.5, 4.0
FIRST_LOGIT = -3.0  # before training: a probability of 5 %


@dataclass(frozen=True, kw_only=True)
class DamageConfig:
    """All sizes of the network.

    Attributes:
        features: channels of each level; a level has half the sides of the one before.
    """

    features: tuple[int, ...] = (24, 40, 64, 80)

    def __post_init__(self) -> None:
        if len(self.features) < 2 or min(self.features) < 1:
            raise BIRError(
                "A network that finds damage should have two levels or more of at least 1 channel, "
                f"but {self.features} came; correct `network`."
            )

    @property
    def scale(self) -> int:
        """The result has the size of the picture."""
        return 1

    @property
    def size_multiple(self) -> int:
        """What the sides of the input divide by."""
        return int(FACTOR * 2 ** (len(self.features) - 1))


class Block(nn.Module):
    """x + conv(silu(conv(norm(x)))), the first convolution dilated."""

    def __init__(self, features: int, dilation: int, operations: ModuleType) -> None:
        super().__init__()
        self.norm = LayerNormBody(features, "WithBias")
        self.conv1 = operations.Conv2d(features, features, 3, padding=dilation, dilation=dilation)
        self.conv2 = operations.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.conv2(F.silu(self.conv1(self.norm(x))))
        return x + added


class DamageFinder(nn.Module):
    """A picture to the logit of damage for each pixel."""

    def __init__(self, config: DamageConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        features = config.features
        steps = list(pairwise(features))

        def block(channels: int, dilation: int = 1) -> Block:
            return Block(channels, dilation, operations)

        self.first = operations.Conv2d(3 * FACTOR**2, features[0], 3, padding=1)
        self.encoder = nn.ModuleList(block(channels) for channels in features[:-1])
        self.down = nn.ModuleList(
            operations.Conv2d(wide, deep, 2, stride=2) for wide, deep in steps
        )
        self.bottom = nn.ModuleList(block(features[-1], dilation) for dilation in BOTTOM_DILATIONS)
        self.up = nn.ModuleList(operations.Conv2d(deep, wide, 1) for wide, deep in steps)
        self.decoder = nn.ModuleList(block(channels) for channels in features[:-1])
        self.last = operations.Conv2d(features[0], FACTOR**2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, 3, H, W) in [0, 1], sides divide by `size_multiple`. Returns (B, 1, H, W)."""
        x = self.first(F.pixel_unshuffle(CONTRAST * (image - GREY), FACTOR))
        levels = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            levels.append(x)
            x = down(x)
        for block in self.bottom:
            x = block(x)
        for block, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = F.interpolate(up(x), scale_factor=2, mode="nearest") + levels.pop()
            x = block(x)
        return F.pixel_shuffle(self.last(x), FACTOR)


@torch.no_grad()
def draw_weights(model: DamageFinder, generator: torch.Generator) -> None:
    """Start with convolutions that keep the deviation of what they get (He et al., "Delving Deep
    into Rectifiers", ICCV 2015, without the factor of a rectifier), and with 5 % of probability.

    Args:
        generator: on the CPU.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            deviation = layer.weight[0].numel() ** -0.5
            layer.weight.copy_(deviation * torch.randn(layer.weight.shape, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()
    model.last.bias.fill_(FIRST_LOGIT)
