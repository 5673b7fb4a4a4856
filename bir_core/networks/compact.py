"""The compact restoration module: a chain of convolutions at the size of its input.

A small network for stage 1 of DiffBIR and for enlarging by itself. Its layers are laid out as in
Real-ESRGAN's small generator (Wang et al., ICCVW 2021), whose files many programs read.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError

KERNEL = 3
# Of the slopes, before training.
SLOPE = 0.1
# Weight of the centre and share of He et al.'s draw at the start, see `draw_near_identity`.
CENTRE, RANDOM_SHARE = 0.9, 0.3


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """All sizes of the network.

    Attributes:
        scale: output side divided by input side: 1 to 8.
        features: channels of the chain.
        layers: convolutions between the first and the last one.
    """

    scale: int
    features: int = 48
    layers: int = 12

    def __post_init__(self) -> None:
        if not (1 <= self.scale <= 8 and self.features >= 3 and self.layers >= 1):
            raise BIRError(
                "A compact restoration module should have a scale of 1 to 8, at least 3 features "
                f"and at least 1 layer, but scale {self.scale}, {self.features} features and "
                f"{self.layers} layers came; correct `network`."
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the picture, then behind each convolution."""
        return (3, *[self.features] * (self.layers + 1), 3 * self.scale**2)

    @property
    def size_multiple(self) -> int:
        """What the sides of the input divide by: any side will do."""
        return 1


class CompactRestorer(nn.Module):
    """Convolutions with a slope for each channel, then pixel shuffle; the picture, enlarged by
    repetition, is added, so that the chain restores what is missing.

    `body` alternates convolutions (even places) and PReLUs (odd places).
    """

    def __init__(self, config: CompactConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config

        def convolution(channels_in: int, channels_out: int) -> nn.Module:
            layer: nn.Module = operations.Conv2d(channels_in, channels_out, KERNEL, padding=1)
            return layer

        chain: list[nn.Module] = []
        for channels_in, channels_out in pairwise(config.channels):
            chain += [convolution(channels_in, channels_out), nn.PReLU(channels_out, init=SLOPE)]
        self.body = nn.ModuleList(chain[:-1])  # the last one gives the picture

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, 3, h, w) in [0, 1]. Returns (B, 3, h scale, w scale), not clamped."""
        x = image
        for layer in self.body:
            x = layer(x)
        scale = self.config.scale
        return F.pixel_shuffle(x, scale) + F.interpolate(image, scale_factor=scale, mode="nearest")


@torch.no_grad()
def draw_near_identity(model: CompactRestorer, generator: torch.Generator) -> None:
    """Start with layers that pass their input on, plus a weaker random part: a plain chain of this
    depth otherwise loses the picture before it learns anything.

    Args:
        generator: on the CPU, for He et al.'s draw ("Delving Deep into Rectifiers", ICCV 2015).
    """
    convolutions = [layer for layer in model.body if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        fan_in = layer.weight[0].numel()
        deviation = (2 / (1 + SLOPE**2) / fan_in) ** 0.5
        draw = torch.randn(layer.weight.shape, generator=generator) * deviation
        layer.weight.copy_(RANDOM_SHARE * draw)
        if layer.bias is not None:
            layer.bias.zero_()
        if layer is convolutions[-1]:
            layer.weight.mul_(RANDOM_SHARE)  # close to the enlarged picture
        else:
            for channel in range(min(layer.weight.shape[:2])):
                layer.weight[channel, channel, KERNEL // 2, KERNEL // 2] += CENTRE


@torch.no_grad()
def grow_from(model: CompactRestorer, small: CompactRestorer) -> None:
    """Give a chain the function of a smaller one, so that it learns on instead of anew (Chen et
    al., "Net2Net", ICLR 2016): the smaller one's channels and layers come first, further layers
    pass these channels on, and further channels, which nothing reads yet, keep their drawn weights.

    Args:
        model: drawn, with at least the features and layers of `small`. The last layer of `small`
            is taken over where both enlarge by the same factor.
        small: left as it is.
    """
    old = slice(0, small.config.features)
    *ours, our_last = _parameters(model, nn.Conv2d)
    *theirs, their_last = _parameters(small, nn.Conv2d)
    our_slopes, their_slopes = _parameters(model, nn.PReLU), _parameters(small, nn.PReLU)
    for place, ((weight, bias), (slopes,)) in enumerate(zip(ours, our_slopes, strict=True)):
        weight[old] = 0
        if place < len(theirs):
            known, known_bias = theirs[place]
            weight[old, : known.shape[1]] = known
            bias[old] = known_bias
            slopes[old] = their_slopes[place][0]
        else:
            for channel in range(small.config.features):
                weight[channel, channel, KERNEL // 2, KERNEL // 2] = 1
            bias[old] = 0
            slopes[old] = 1  # passes negative values on too
    if model.config.scale == small.config.scale:
        our_last[0].zero_()
        our_last[0][:, old] = their_last[0]
        our_last[1].copy_(their_last[1])


def _parameters(model: CompactRestorer, kind: type[nn.Module]) -> list[list[nn.Parameter]]:
    """Weight, and bias if it has one, of each layer of a kind."""
    return [list(layer.parameters()) for layer in model.body if isinstance(layer, kind)]
