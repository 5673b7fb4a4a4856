"""The way back through the tiled autoencoder: the gradient of a loss on its output for its input,
equal to that through the whole autoencoder to rounding, in tiles.

The maps before every operation are kept, parked. Backwards each convolution is again one pass, tile
by tile: the gradient of a tile of its output is carried to the pixels that the tile reads, and to
the factor and the offset that the group norm before it has for each channel. From these two, summed
over all tiles, comes what the statistics of the whole map owe to each pixel. The attention is
computed anew chunk by chunk (Dao et al. 2022, "FlashAttention", algorithm 4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tiling import Progress
from .maps import Box, ParkedMap, Parking, boxes
from .memory_plan import working_bytes
from .operations import (
    Attention,
    Convolution,
    Layer,
    Operation,
    Residual,
    attention_chunk,
    base_channels,
    tile_side,
    walk,
)
from .passes import (
    LayerCall,
    TiledRun,
    attend,
    cast_to_input,
    convolve,
    group_affine,
    reach,
)


class _Norm:
    """The group norm before an operation on the way back: factor and offset of each channel as they
    were, and the gradients for them, summed up."""

    def __init__(self, norm: Layer, source: ParkedMap) -> None:
        self.source = source
        self.statistics = [each.clone().requires_grad_() for each in (source.mean, source.variance)]
        self.affine = group_affine(norm, *self.statistics)
        self.leaves = [
            part.detach().float().reshape(-1, 1, 1).requires_grad_() for part in self.affine
        ]
        self.sums = [torch.zeros_like(leaf) for leaf in self.leaves]

    def __call__(self, x: Tensor) -> Tensor:
        factor, offset = self.leaves
        return torch.addcmul(offset, x, factor)

    def add(self, gradients: tuple[Tensor, ...]) -> None:
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.add_(gradient)

    def finish(self, into: Tensor, run: TiledRun) -> None:
        """Add to `into` (C, H, W) what comes through mean and variance of the whole map."""
        sums = [each.flatten().to(self.source.mean) for each in self.sums]
        of_mean, of_variance = torch.autograd.grad(self.affine, self.statistics, sums)
        count = self.source.values[0].numel()

        def column(values: Tensor) -> Tensor:
            return values.detach().float().reshape(-1, 1, 1)

        mean = column(self.source.mean)
        constant, slope = column(of_mean / count), column(2 * of_variance / count)
        channels, height, width = into.shape
        for box in boxes(height, width, tile_side(run.tile, channels, run.base)):
            part = self.source.part(box).to(run.device).float()
            _part(into, box).add_((constant + slope * (part - mean)).to(into.device))


def _part(values: Tensor, box: Box) -> Tensor:
    return values[:, box.top : box.bottom, box.left : box.right]


@dataclass(frozen=True)
class _Backward:
    """From the gradient of an operation's output to that of its input; maps are (C, H, W)."""

    run: TiledRun

    def _map(self, channels: int, like: Tensor) -> Tensor:
        parking = self.run.parking
        return torch.zeros(channels, *like.shape[-2:], dtype=parking.dtype, device=parking.device)

    def convolution(
        self, operation: Convolution, source: ParkedMap, gradient: Tensor, into: Tensor
    ) -> None:
        """Add to `into` the gradient of the input."""
        run, conv, resample = self.run, operation.conv, operation.resample
        norm = None if operation.norm is None else _Norm(operation.norm, source)
        _, height, width = source.values.shape
        side = tile_side(run.tile, max(len(source.values), len(gradient)), run.base, resample)
        for box in boxes(gradient.shape[-2], gradient.shape[-1], side):
            area = reach(box, height, width, resample)
            piece = source.part(area).to(run.device).float().detach().requires_grad_()
            x = piece if norm is None else F.silu(norm(piece))
            output = convolve(run.call, conv, x.to(run.dtype)[None], area, box, resample)
            leaves = [piece] if norm is None else [piece, *norm.leaves]
            of_piece, *of_norm = torch.autograd.grad(
                output, leaves, _part(gradient, box).to(output)
            )
            _part(into, area).add_(of_piece.to(into.device))
            if norm is not None:
                norm.add(tuple(of_norm))
            run.progress.advance()
        if norm is not None:
            norm.finish(into, run)

    def residual(self, operation: Residual, source: ParkedMap, gradient: Tensor) -> Tensor:
        """The gradient of the input; `gradient` may become it."""
        run = self.run
        with torch.no_grad():
            hidden = run.hidden(operation, source)
        of_hidden = self._map(len(hidden.values), gradient)
        last = Convolution(operation.conv2, operation.norm2)
        self.convolution(last, hidden, gradient, of_hidden)
        del hidden
        shortcut = operation.shortcut
        if shortcut is None:
            into = gradient
        else:
            into = self._map(len(source.values), gradient)
            channels, height, width = into.shape
            for box in boxes(height, width, tile_side(run.tile, channels, run.base)):
                piece = source.part(box).to(run.device, run.dtype)[None].detach().requires_grad_()
                output = run.call(shortcut, piece)
                given = _part(gradient, box).to(output)[None]
                (of_piece,) = torch.autograd.grad(output, piece, given)
                _part(into, box).add_(of_piece[0].to(into))
                run.progress.advance()
        first = Convolution(operation.conv1, operation.norm1)
        self.convolution(first, source, of_hidden, into)
        return into

    def attention(self, operation: Attention, source: ParkedMap, gradient: Tensor) -> Tensor:
        """The gradient of the input, written into `gradient`."""
        run = self.run
        channels, height, width = source.values.shape
        scale = channels**-0.5
        norm = _Norm(operation.norm, source)
        layers = (operation.q, operation.k, operation.v)
        chunk = attention_chunk(run.tile)
        starts = range(0, height * width, chunk)
        pixels, given = source.values.view(channels, -1), gradient.view(channels, -1)

        def projected(piece: Tensor) -> Tensor:  # (C, n) -> (3 C, n): queries, keys, values
            x = norm(piece[:, None]).to(run.dtype)[None]
            return torch.cat([run.call(layer, x) for layer in layers], 1)[0, :, 0].float()

        both = self._map(3 * channels, gradient).view(3 * channels, -1)
        with torch.no_grad():
            for start in starts:
                piece = pixels[:, start : start + chunk].to(run.device).float()
                both[:, start : start + chunk] = projected(piece).to(both.device)
        queries, keys_values = both[:channels], both[channels:]
        back = torch.zeros_like(both)
        for start in starts:
            part = slice(start, start + chunk)
            query = queries[:, part].to(run.device, run.dtype).T * scale
            with torch.no_grad():
                mixed, log_sums = attend(query, keys_values, chunk)
            attended = mixed.T.reshape(1, channels, 1, -1).to(run.dtype).requires_grad_()
            output = run.call(operation.proj_out, attended)
            (of_mixed,) = torch.autograd.grad(
                output, attended, given[:, part].to(output).reshape(output.shape)
            )
            self._softmax(query, keys_values, mixed, log_sums, of_mixed[0, :, 0].T, back, part)
            run.progress.advance()
        back[:channels] *= scale
        for start in starts:
            part = slice(start, start + chunk)
            piece = pixels[:, part].to(run.device).float().detach().requires_grad_()
            of_piece, *of_norm = torch.autograd.grad(
                projected(piece), [piece, *norm.leaves], back[:, part].to(run.device)
            )
            given[:, part].add_(of_piece.to(given.device))
            norm.add(tuple(of_norm))
            run.progress.advance()
        norm.finish(gradient, run)
        return gradient

    def _softmax(
        self,
        query: Tensor,
        keys_values: Tensor,
        mixed: Tensor,
        log_sums: Tensor,
        gradient: Tensor,
        back: Tensor,
        part: slice,
    ) -> None:
        """Add to `back` (3 C, pixels) the gradients of the queries `part`, and of all keys and
        values, from that of the attention's result for these queries.

        Args:
            query: (n, C), scaled.
            mixed, log_sums, gradient: (n, C), (n, 1) and (n, C).
        """
        run, channels = self.run, query.shape[1]
        gradient = gradient.float()
        mean = (gradient * mixed).sum(1, keepdim=True)  # the softmax's own, D in the paper
        of_query = torch.zeros_like(gradient)
        for start in range(0, keys_values.shape[1], attention_chunk(run.tile)):
            there = slice(start, start + attention_chunk(run.tile))
            keys, values = (
                keys_values[first : first + channels, there].to(run.device, run.dtype)
                for first in (0, channels)
            )
            shares = torch.exp((query @ keys).float() - log_sums)
            of_scores = shares * (gradient @ values.float() - mean)
            of_query += of_scores @ keys.float().T
            of_keys, of_values = query.float().T @ of_scores, gradient.T @ shares
            back[channels:, there] += torch.cat([of_keys, of_values]).to(back.device)
        back[:channels, part] += of_query.T.to(back.device)

    def operation(self, operation: Operation, source: ParkedMap, gradient: Tensor) -> Tensor:
        if isinstance(operation, Residual):
            return self.residual(operation, source, gradient)
        if isinstance(operation, Attention):
            return self.attention(operation, source, gradient)
        into = self._map(len(source.values), source.values)
        self.convolution(operation, source, gradient, into)
        return into


class _Tiled(torch.autograd.Function):
    """Encoder or decoder in tiles, whose gradient runs in tiles as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operations: list[Operation], run: TiledRun) -> Tensor:
        ctx.operations, ctx.run, ctx.kept = operations, run, []
        results = []
        for image in x.detach():
            maps = [ParkedMap(image)]
            for operation in operations:
                maps.append(run.operation(operation, maps[-1]))
            results.append(maps.pop().values.to(x.device, x.dtype))
            ctx.kept.append(maps)
        return torch.stack(results)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        backward, parking = _Backward(ctx.run), ctx.run.parking
        results = []
        with torch.enable_grad():
            for maps, of_image in zip(ctx.kept, gradient, strict=True):
                current = of_image.to(parking.device, parking.dtype, copy=True)
                for operation in reversed(ctx.operations):
                    current = backward.operation(operation, maps.pop(), current)
                results.append(current.to(gradient))
        return torch.stack(results), None, None


def run_tiled_with_gradient(
    operations: list[Operation],
    x: Tensor,
    *,
    tile: int,
    device: torch.device,
    callback: Callable[[], None] | None = None,
    call: LayerCall = cast_to_input,
) -> Tensor:
    """As `run_tiled`, and a gradient goes back through it to `x`, once. Maps are parked in float32.

    Args:
        operations, x, tile, call: as in `run_tiled`; the weights must not be inference tensors.
        device: where maps are parked; `gradient_bytes` says how much that needs.
        callback: called after each tile of each pass, in both directions; it may raise to cancel.
    """
    progress = Progress(0, None if callback is None else lambda *_: callback())
    parking = Parking(device, torch.float32)
    base = base_channels(operations)
    run = TiledRun(x.dtype, x.device, tile, base, parking, progress, call, in_place=False)
    return _Tiled.apply(x, operations, run)  # type: ignore[no-untyped-call]


def gradient_bytes(operations: list[Operation], height: int, width: int) -> int:
    """Memory of all maps parked at the busiest moment of the way there and back, for one image.

    Args:
        operations: of `encoder_operations` or `decoder_operations`.
        height, width: of the network's input, pixels for an encoder and latents for a decoder.
    """
    most = kept = 0
    for operation, channels, _, rows, columns in walk(operations, height, width):
        pixels = rows * columns
        kept += channels * pixels
        if isinstance(operation, Residual):
            new = operation.conv2.out_channels
            # The output's gradient, the map in between and its gradient; then the input's own.
            more = (2 * new + max(new, channels if operation.shortcut is not None else 0)) * pixels
        elif isinstance(operation, Attention):
            more = 7 * channels * pixels  # queries, keys, values and their gradients
        else:
            scale = {"up": 4, "down": 0.25, "none": 1}[operation.resample]
            more = int(operation.conv.out_channels * pixels * scale) + channels * pixels
        most = max(most, kept + more)
    return most * torch.float32.itemsize


def gradient_working_bytes(operations: list[Operation], tile: int, dtype: torch.dtype) -> int:
    """Memory on the computing device besides parked maps and weights: that of the way there, and
    twice as much again for what autograd keeps of a tile and its gradients."""
    return 3 * working_bytes(operations, tile, dtype)
