"""Exponential moving average of a network's weights."""

from copy import deepcopy

import torch
from torch import nn


class ExponentialAverage:
    """A copy of a network whose weights follow it: average = decay * average + (1 - decay) * weight
    after each update. It starts as an exact copy; buffers are copied.

    Args:
        network: the one to follow.
        decay: in [0, 1); 0 makes the average equal to the network.
        frozen: names of parameters that do not learn. They are left alone, since rounding would
            take their average away from them.
    """

    def __init__(
        self, network: nn.Module, decay: float, frozen: frozenset[str] = frozenset()
    ) -> None:
        self.decay = decay
        self.frozen = frozen
        self.average = deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow `network` by one step."""
        followed = dict(network.named_parameters())
        for name, average in self.average.named_parameters():
            if name not in self.frozen:
                average.mul_(self.decay).add_(followed[name].detach(), alpha=1 - self.decay)
        buffers = dict(network.named_buffers())
        for name, buffer in self.average.named_buffers():
            buffer.copy_(buffers[name])
