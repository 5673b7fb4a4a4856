"""Convolutions over a map that comes strip by strip, from the top row to the bottom one.

A strip is a tensor (rows, width, channels). A 3x3 convolution knows its output row y only when
row y + 1 has come, so each stage gives back the rows that are complete, one row behind its input,
and keeps two rows of its input for the next strip. Nothing is computed twice and the result does
not depend on the height of the strips. Channels come last: a strip is one piece of memory, and
1x1 convolutions, layer norms and depthwise convolutions run on it without reordering.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..tiling import Progress

RowStage = Callable[[Tensor], Tensor]


def strips_of(x: Tensor, strip: int, progress: Progress) -> Iterator[Tensor]:
    """Views of `strip` rows of a map (height, width, channels), top first; each counts as done
    when the next one is asked for."""
    for top in range(0, x.shape[0], strip):
        yield x[top : top + strip]
        progress.advance()


def strip_count(height: int, strip: int) -> int:
    """Number of strips that `strips_of` gives for a map of `height` rows."""
    return -(-height // strip)


def _as_image(rows: Tensor) -> Tensor:
    # (1, C, H, W). The new axis comes first: its stride tells torch that channels are last.
    return rows[None].permute(0, 3, 1, 2)


def _as_rows(image: Tensor) -> Tensor:
    return image[0].permute(1, 2, 0)


def conv1x1(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows: (n, W, I), weight: (O, I, 1, 1). Returns (n, W, O)."""
    # A dilation means nothing to one pixel. On a CPU with one thread torch takes a 1x1 kernel to a
    # general matrix product, and a dilated one to oneDNN, which is twice as fast here.
    on_onednn = rows.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    dilation = 2 if on_onednn else 1
    return _as_rows(F.conv2d(_as_image(rows), weight, bias, dilation=dilation))


class Conv3x3:
    """A 3x3 convolution with zero padding over strips: call it with the next rows (n, W, I), from
    the first to row `height` - 1; it returns the rows (m, W, O) that are complete, m from 0 on."""

    def __init__(
        self, height: int, weight: Tensor, bias: Tensor | None = None, *, groups: int = 1
    ) -> None:
        self.missing = height
        # torch would bring the weight into the memory order of the rows at each call.
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias
        self.groups = groups
        self.kept: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        self.missing -= rows.shape[0]
        if self.kept is None and self.missing == 0:  # all rows at once: torch pads without a copy
            whole = F.conv2d(_as_image(rows), self.weight, self.bias, padding=1, groups=self.groups)
            return _as_rows(whole)
        above = torch.zeros_like(rows[:1]) if self.kept is None else self.kept
        below = [torch.zeros_like(above[:1])] if self.missing == 0 else []
        window = torch.cat([above, rows, *below])
        # A view would keep the whole window.
        self.kept = window[-2:].clone()
        if window.shape[0] < 3:
            return window.new_empty(0, window.shape[1], self.weight.shape[0])
        image = F.conv2d(
            _as_image(window), self.weight, self.bias, padding=(0, 1), groups=self.groups
        )
        return _as_rows(image)


def cast_weights(module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution on the device and in the dtype of `like`."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    return weight.to(like), bias.to(like) if isinstance(bias, Tensor) else None


def streamed_conv3x3(module: nn.Module, height: int, like: Tensor, *, shuffle: int = 1) -> Conv3x3:
    """A convolution of a network over the rows of a map of `height` rows.

    Args:
        like: says device and dtype.
        shuffle: factor of the pixel shuffle that follows; 1: none does.
    """
    weight, bias = cast_weights(module, like)
    if shuffle > 1:
        weight = shuffled_first(weight, shuffle)
        bias = None if bias is None else shuffled_first(bias, shuffle)
    return Conv3x3(height, weight, bias)


class Residual:
    """rows + branch(rows), for a branch that runs behind its input."""

    def __init__(self, branch: Sequence[RowStage]) -> None:
        self.branch = branch
        self.waiting: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        self.waiting = rows if self.waiting is None else torch.cat([self.waiting, rows])
        delta = run_stages(self.branch, rows)
        ready, self.waiting = self.waiting.tensor_split([delta.shape[0]])
        return ready + delta


def run_stages(stages: Sequence[RowStage], rows: Tensor) -> Tensor:
    """Pass rows through stages; stops early where no row is complete yet."""
    for stage in stages:
        if rows.shape[0] == 0:
            break
        rows = stage(rows)
    return rows


def shuffled_first(weight: Tensor, scale: int = 2) -> Tensor:
    """Reorder the output channels of a convolution that a pixel shuffle by `scale` follows, from
    (channel, dy, dx) to (dy, dx, channel), the order that `pixel_shuffle` wants."""
    return rearrange(weight, "(c s) ... -> (s c) ...", s=scale**2)


def pixel_shuffle(rows: Tensor, scale: int = 2) -> Tensor:
    """(n, W, (dy, dx, C)) -> (scale n, scale W, C)."""
    return rearrange(rows, "y x (dy dx c) -> (y dy) (x dx) c", dy=scale, dx=scale)


def write_unshuffled(target: Tensor, top: int, rows: Tensor) -> None:
    """Write rows (n, 2W, C), the first of which has number `top`, into their place in a map
    (H, W, (C, dy, dx)) that a pixel unshuffle by 2 gives (torch's order of channels)."""
    blocks = rearrange(target, "y x (c dy dx) -> y x c dy dx", dy=2, dx=2)
    for parity in range(2):
        first = (parity - top) % 2
        part = rows[first::2]
        start = (top + first) // 2
        blocks[start : start + part.shape[0], :, :, parity] = rearrange(
            part, "y (x dx) c -> y x c dx", dx=2
        )


class CorrectedOutput:
    """Writes rows (n, W, 3) of the network's correction plus those of the enlarged input into the
    result (3, H, W)."""

    def __init__(self, result: Tensor, lq: Tensor | None) -> None:
        self.result = result
        self.lq = lq
        self.top = 0

    def write(self, rows: Tensor) -> None:
        if not rows.shape[0]:
            return
        end = self.top + rows.shape[0]
        target = self.result[:, self.top : end]
        target.copy_(rows.permute(2, 0, 1))
        if self.lq is not None:
            scale = self.result.shape[1] // self.lq.shape[1]
            source = self.lq[:, self.top // scale : -(-end // scale)]
            enlarged = source.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            offset = self.top % scale
            target.add_(enlarged[:, offset : offset + rows.shape[0]])
        self.top = end
