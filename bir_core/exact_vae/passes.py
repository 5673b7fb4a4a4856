"""The autoencoder of Stable Diffusion tile by tile, equal to the whole one to rounding.

Only the group norms and the attention in the middle look further than the neighbouring pixel. So
every convolution is one pass: tile by tile it reads its input with the one-pixel halo it needs from
a parked full map, and writes its output to another. While an output is written the statistics of
the norm that follows are collected from it (Chan et al. 1983, "Algorithms for Computing the Sample
Variance"); in the next pass the norm is then an affine map of each channel. Nothing is computed
twice and no tile has a border of its own. The attention runs on chunks of queries and keys with a
running softmax (Milakov and Gimelshein 2018).

The device that computes holds tiles and chunks only; the maps are parked on it or elsewhere.
Works on every encoder or decoder with the module names of latent diffusion, ComfyUI's included.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.layers import GROUPS
from ..tiling import Progress
from .maps import Box, ParkedMap, Parking, ParkingOverflow, boxes
from .operations import (
    Attention,
    Convolution,
    Layer,
    Operation,
    Residual,
    attention_chunk,
    base_channels,
    count_pieces,
    resized,
    tile_side,
)

LARGEST_FLOAT16 = torch.finfo(torch.float16).max

# How a layer is run: layer, input -> output.
LayerCall = Callable[[Layer, Tensor], Tensor]


def cast_to_input(layer: Layer, x: Tensor) -> Tensor:
    """A layer in the type of its input: weights stored in another type are cast for this call."""
    if layer.weight.dtype == x.dtype:
        return layer(x)
    weights = {name: value.to(x.dtype) for name, value in layer.named_parameters()}
    return torch.func.functional_call(layer, weights, (x,))


class Affine(NamedTuple):
    """A group norm as factor and offset of each channel, (C, 1, 1) float32."""

    factor: Tensor
    offset: Tensor


def group_affine(norm: Layer, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and offset of a group norm for each channel, from the mean and the variance of each
    channel of the whole map; all (C,) of one type and device."""
    groups = getattr(norm, "num_groups", GROUPS)
    means, variances = means.reshape(groups, -1), variances.reshape(groups, -1)
    mean = means.mean(1, keepdim=True)
    variance = (variances + (means - mean) ** 2).mean(1, keepdim=True)
    weight = norm.weight.detach().to(means).reshape(groups, -1)
    bias = norm.bias.detach().to(means).reshape(groups, -1)
    factor = weight / (variance + norm.eps).sqrt()
    return factor.flatten(), (bias - mean * factor).flatten()


def affine_of(norm: Layer, source: ParkedMap) -> Affine:
    """The group norm of a whole map, from the statistics of its channels."""
    parts = group_affine(norm, source.mean, source.variance)
    return Affine(*(part.reshape(-1, 1, 1).float() for part in parts))


def reach(box: Box, height: int, width: int, resample: str) -> Box:
    """What a 3 x 3 convolution reads of a map (height, width) for a box of its output."""
    top, bottom, left, right = box
    if resample == "down":
        return Box(2 * top, min(2 * bottom + 1, height), 2 * left, min(2 * right + 1, width))
    scale = 2 if resample == "up" else 1
    return Box(
        max((top - 1) // scale, 0),
        min(-(-(bottom + 1) // scale), height),
        max((left - 1) // scale, 0),
        min(-(-(right + 1) // scale), width),
    )


def convolve(
    call: LayerCall, conv: Layer, x: Tensor, area: Box, box: Box, resample: str = "none"
) -> Tensor:
    """A box of a convolution's output, (C', h, w) float32, from x (1, C, ...), the `area` of its
    input that `reach` gives."""
    top, bottom, left, right = box
    if resample == "down":
        missing = (0, 2 * right + 1 - area.right, 0, 2 * bottom + 1 - area.bottom)
        return call(conv, F.pad(x, missing))[0].float()
    scale = 2 if resample == "up" else 1
    if scale == 2:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    # The convolution pads by itself. That is right at the border of the map; elsewhere it spoils
    # the ring that is cut off here.
    first_row, first_column = top - scale * area.top, left - scale * area.left
    rows = slice(first_row, first_row + bottom - top)
    columns = slice(first_column, first_column + right - left)
    return call(conv, x)[0, :, rows, columns].float()


def attend(query: Tensor, keys_values: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Attention among all pixels, with a running maximum and sum over chunks of them.

    Args:
        query: (n, C), scaled.
        keys_values: (2 C, pixels), parked.
        chunk: pixels at a time.

    Returns:
        softmax(query keys) values, (n, C), and the logarithm of the softmax's sums, (n, 1), both
        float32.
    """
    length, channels = query.shape
    maximum = query.new_full((length, 1), -math.inf, dtype=torch.float32)
    total = torch.zeros_like(maximum)
    mixed = query.new_zeros(length, channels, dtype=torch.float32)
    for start in range(0, keys_values.shape[1], chunk):
        piece = keys_values[:, start : start + chunk].to(query)
        scores = (query @ piece[:channels]).float()
        raised = torch.maximum(maximum, scores.amax(dim=1, keepdim=True))
        shares = scores.sub_(raised).exp_()
        fading = torch.exp(maximum - raised)
        total = total * fading + shares.sum(dim=1, keepdim=True)
        mixed = mixed * fading + (shares.to(query.dtype) @ piece[channels:].T).float()
        maximum = raised
    return mixed / total, maximum + total.log()


@dataclass(frozen=True)
class TiledRun:
    """One pass after the other over the maps of one image.

    Attributes:
        dtype, device: of the computation.
        tile: side of a tile on the widest grid.
        base: channels of the maps there.
        in_place: write a map over the one before where it fits.
        peaks: largest numbers of the maps so far, as scalars of the device, if they are parked in
            float16.
    """

    dtype: torch.dtype
    device: torch.device
    tile: int
    base: int
    parking: Parking
    progress: Progress
    call: LayerCall
    in_place: bool = True
    peaks: list[Tensor] = field(default_factory=list)

    def finish(self, target: ParkedMap) -> ParkedMap:
        """A map that is written, with its statistics."""
        target.finish()
        if target.peak is not None:
            self.peaks.append(target.peak)
        return target

    def require_fit(self) -> None:
        """Once for all maps, since it waits for the device: raise ParkingOverflow for a number
        beyond float16."""
        if self.peaks:
            peaks = torch.stack(self.peaks)
            peak = float(torch.where(peaks.isfinite(), peaks, 0).amax())
            if peak > LARGEST_FLOAT16:
                raise ParkingOverflow(f"{peak:.3g} does not fit into float16")

    def sweep(
        self,
        target: ParkedMap,
        channels: int,
        produce: Callable[[Box], Tensor],
        resample: str = "none",
    ) -> ParkedMap:
        """Fill a map tile by tile; `channels` are those of the widest map of the pass."""
        height, width = target.values.shape[-2:]
        for box in boxes(height, width, tile_side(self.tile, channels, self.base, resample)):
            target.write(target.part(box), produce(box))
            self.progress.advance()
        return self.finish(target)

    def _read(self, source: ParkedMap, box: Box, affine: Affine | None) -> Tensor:
        """A piece of a map as input of a convolution, (1, C, h, w), after norm and SiLU. Zeros
        beyond the border come after this, so only what lies inside is read."""
        piece = source.part(box).to(self.device)
        if affine is not None:
            normalised = torch.addcmul(affine.offset, piece.float(), affine.factor)
            piece = F.silu(normalised, inplace=True)
        return piece.to(self.dtype)[None]

    def _convolved(
        self,
        conv: Layer,
        source: ParkedMap,
        box: Box,
        affine: Affine | None = None,
        resample: str = "none",
    ) -> Tensor:
        """A box of a convolution's output, (C', h, w) float32."""
        _, height, width = source.values.shape
        area = reach(box, height, width, resample)
        return convolve(self.call, conv, self._read(source, area, affine), area, box, resample)

    def convolution(self, operation: Convolution, source: ParkedMap) -> ParkedMap:
        conv, resample = operation.conv, operation.resample
        affine = None if operation.norm is None else affine_of(operation.norm, source)
        height, width = source.values.shape[-2:]
        size = resized(height, width, resample)
        target = ParkedMap.empty(conv.out_channels, *size, self.parking)
        widest = max(len(source.values), conv.out_channels)
        return self.sweep(
            target,
            widest,
            lambda box: self._convolved(conv, source, box, affine, resample),
            resample,
        )

    def hidden(self, operation: Residual, x: ParkedMap) -> ParkedMap:
        """The map between the two convolutions of a residual block."""
        first = Convolution(operation.conv1, operation.norm1)
        return self.convolution(first, x)

    def residual(self, operation: Residual, x: ParkedMap) -> ParkedMap:
        conv2, shortcut = operation.conv2, operation.shortcut
        channels, (height, width) = conv2.out_channels, x.values.shape[-2:]
        hidden = self.hidden(operation, x)
        between = affine_of(operation.norm2, hidden)
        # x is read at the written pixels only, so the sum goes in its place where it fits.
        if self.in_place and channels <= len(x.values):
            target = ParkedMap(x.values[:channels])
        else:
            target = ParkedMap.empty(channels, height, width, self.parking)

        def add(box: Box) -> Tensor:
            part = x.part(box).to(self.device)
            if shortcut is not None:
                part = self.call(shortcut, part.to(self.dtype)[None])[0]
            return self._convolved(conv2, hidden, box, between).add_(part)

        return self.sweep(target, max(len(x.values), channels), add)

    def attention(self, operation: Attention, x: ParkedMap) -> ParkedMap:
        channels, height, width = x.values.shape
        affine = affine_of(operation.norm, x)
        keys_values = ParkedMap.empty(2 * channels, height, width, self.parking)

        def normalised(part: Tensor) -> Tensor:
            wide = part.to(self.device).float()
            return torch.addcmul(affine.offset, wide, affine.factor).to(self.dtype)[None]

        # Pixels in one row: a chunk is any run of them.
        pixels = x.values.view(channels, 1, -1)
        parked = keys_values.values.view(2 * channels, 1, -1)
        chunk = attention_chunk(self.tile)
        starts = range(0, height * width, chunk)
        for start in starts:
            piece = normalised(pixels[..., start : start + chunk])
            both = torch.cat([self.call(layer, piece) for layer in (operation.k, operation.v)], 1)
            keys_values.write(parked[..., start : start + chunk], both[0].float())
            self.progress.advance()
        self.finish(keys_values)
        target = ParkedMap(x.values if self.in_place else torch.empty_like(x.values))
        results = target.values.view(channels, 1, -1)
        for start in starts:
            part = pixels[..., start : start + chunk]
            query = self.call(operation.q, normalised(part))[0, :, 0].T * channels**-0.5
            mixed, _ = attend(query, parked[:, 0], chunk)
            attended = mixed.T.reshape(1, channels, 1, -1).to(self.dtype)
            projected = self.call(operation.proj_out, attended)[0]
            summed = projected.float().add_(part.to(self.device))
            target.write(results[..., start : start + chunk], summed)
            self.progress.advance()
        return self.finish(target)

    def operation(self, operation: Operation, x: ParkedMap) -> ParkedMap:
        if isinstance(operation, Convolution):
            return self.convolution(operation, x)
        if isinstance(operation, Residual):
            return self.residual(operation, x)
        return self.attention(operation, x)


@torch.no_grad()
def run_tiled(
    operations: list[Operation],
    x: Tensor,
    *,
    tile: int,
    parking: Parking,
    callback: Callable[[int, int], None] | None = None,
    call: LayerCall = cast_to_input,
) -> Tensor:
    """Encoder or decoder, equal to the whole one to rounding.

    Args:
        operations: of `encoder_operations` or `decoder_operations`.
        x: (B, C, h, w) on the computing device and in the type to compute in. Images of the batch
            follow each other.
        tile: side of a tile on the widest grid, in pixels of the picture; it changes memory and
            time, and the result by rounding only.
        parking: where maps wait, and their type.
        callback: told (done, total) after each tile of each pass; it may raise to cancel.
        call: how a layer is run on an input whose type its weights may not have.

    Returns:
        (B, C', h', w') like x.

    Raises:
        ParkingOverflow: a finite number beyond float16 while maps are parked in it.
    """
    batch, _, height, width = x.shape
    progress = Progress(batch * count_pieces(operations, height, width, tile), callback)
    run = TiledRun(x.dtype, x.device, tile, base_channels(operations), parking, progress, call)
    results = []
    for image in x:
        current = ParkedMap(image)
        for operation in operations:
            current = run.operation(operation, current)
        run.require_fit()
        in_file = parking.folder is not None
        results.append(current.values.to(x.device, x.dtype, copy=in_file)[None])
        del current
    return results[0] if batch == 1 else torch.cat(results)
