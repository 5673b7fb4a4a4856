"""The memory that the operations of `operations` need: parked maps, and work beside them."""

import math
from dataclasses import dataclass

import torch

from .operations import (
    Attention,
    Convolution,
    Operation,
    Residual,
    Shape,
    attention_chunk,
    base_channels,
    layers_of,
    resized,
    tile_side,
    walk,
)

# Bytes of a number in which norms, sums and statistics are computed.
WIDE = 4
# A side that no map has: for what every map stays within.
_ENDLESS = 1 << 20


def _parked_numbers(shape: Shape) -> int:
    """Numbers of all maps that are parked while an operation works."""
    operation, channels, stored, rows, columns = shape
    numbers = stored * rows * columns
    if isinstance(operation, Convolution):
        rows, columns = resized(rows, columns, operation.resample)
        return numbers + operation.conv.out_channels * rows * columns
    if isinstance(operation, Residual):
        new = operation.conv1.out_channels
        return numbers + (new if new <= channels else 2 * new) * rows * columns
    return numbers + 2 * operation.q.out_channels * rows * columns


def parked_bytes(operations: list[Operation], height: int, width: int, dtype: torch.dtype) -> int:
    """Memory of all maps parked at the busiest moment, for one image; images follow each other.

    Args:
        operations: of `encoder_operations` or `decoder_operations`.
        height, width: of the network's input, pixels for an encoder and latents for a decoder.
        dtype: of the parked maps.
    """
    return max(_parked_numbers(shape) for shape in walk(operations, height, width)) * dtype.itemsize


def moved_bytes(
    operations: list[Operation], height: int, width: int, tile: int, dtype: torch.dtype
) -> int:
    """Bytes of parked maps that all passes over one image write and read, without halos; arguments
    as in `parked_bytes`. The attention reads its keys and values once for each chunk of queries."""
    numbers = 0
    for operation, channels, _, rows, columns in walk(operations, height, width):
        pixels = rows * columns
        if isinstance(operation, Attention):
            chunks = math.ceil(pixels / attention_chunk(tile))
            numbers += (5 + 2 * chunks) * channels * pixels
        elif isinstance(operation, Residual):
            numbers += (2 * channels + 3 * operation.conv1.out_channels) * pixels
        else:
            rows, columns = resized(rows, columns, operation.resample)
            numbers += channels * pixels + operation.conv.out_channels * rows * columns
    return numbers * dtype.itemsize


def _cast_bytes(operation: Operation, dtype: torch.dtype) -> int:
    """Memory of the weights of the operation's largest layer in `dtype`, where they are stored in
    another type: see `passes.cast_to_input`."""
    stored = [layer.weight for layer in layers_of(operation) if layer.weight.dtype != dtype]
    return max((weight.numel() + len(weight) for weight in stored), default=0) * dtype.itemsize


@dataclass(frozen=True)
class _Work:
    """What an operation takes beside parked maps: the tensors of a tile at its busiest moment.

    Attributes:
        base: see `base_channels`.
        tile: side of a tile on the widest grid.
        dtype: of the computation.
        parked: type of the maps.
        copied: whether a part of a map is copied to the device before work.
    """

    base: int
    tile: int
    dtype: torch.dtype
    parked: torch.dtype
    copied: bool

    def _area(self, shape: Shape, channels: int, resample: str = "none") -> tuple[int, int, int]:
        """Pixels of a tile of the output, with the ring that is cut off, and of its input."""
        side = tile_side(self.tile, channels, self.base, resample)
        rows, columns = resized(shape.height, shape.width, resample)
        output = min(side, rows) * min(side, columns)
        ringed = min(side + 2, rows) * min(side + 2, columns)
        if resample == "down":
            read = min(2 * side + 1, shape.height) * min(2 * side + 1, shape.width)
            return output, output, read
        if resample == "up":
            part = side // 2 + 2
            read = min(part, shape.height) * min(part, shape.width)
            return output, 4 * read, read
        return output, ringed, ringed

    def convolution(
        self,
        shape: Shape,
        incoming: int,
        outgoing: int,
        *,
        widest: int,
        normed: bool,
        resample: str = "none",
    ) -> int:
        """Bytes for one of `incoming` to `outgoing` channels."""
        output, ringed, read = self._area(shape, widest, resample)
        narrow, parked = self.dtype.itemsize, self.parked.itemsize
        half = 0 if narrow == WIDE else 1
        taken = read * incoming
        part = parked * taken if self.copied else 0
        if normed:
            reading = part + (0 if parked == WIDE else WIDE * taken) + WIDE * taken
        else:
            reading = part + half * narrow * taken
        given = narrow * incoming * ringed if normed or half or self.copied else 0
        if resample == "down":
            given += narrow * taken  # padded
        elif resample == "up":
            given = narrow * incoming * ringed + (narrow * taken if self.copied or half else 0)
        convolved = ringed * outgoing
        computing = given + narrow * convolved + half * WIDE * output * outgoing
        writing = WIDE * outgoing * (output if half else ringed) + WIDE * output * outgoing
        return max(reading, computing, writing)

    def residual(self, operation: Residual, shape: Shape) -> int:
        channels, new = shape.channels, operation.conv1.out_channels
        widest = max(channels, new)
        first = self.convolution(shape, channels, new, widest=widest, normed=True)
        output, *_ = self._area(shape, widest)
        if operation.shortcut is None:
            held = WIDE * new * output if self.copied else 0
            aside = 0
        else:
            held = self.dtype.itemsize * new * output
            aside = (
                channels
                * output
                * (
                    (self.parked.itemsize if self.copied else 0)
                    + (0 if self.dtype == self.parked else self.dtype.itemsize)
                )
            )
        second = self.convolution(shape, new, new, widest=widest, normed=True)
        return max(first, held + second, held + aside)

    def attention(self, shape: Shape) -> int:
        pixels = shape.height * shape.width
        chunk, channels = min(attention_chunk(self.tile), pixels), shape.channels
        narrow = self.dtype.itemsize
        scores = chunk * chunk * (WIDE + (0 if narrow == WIDE else narrow))
        return scores + channels * chunk * (4 * WIDE + 4 * narrow)

    def bytes(self, shape: Shape) -> int:
        operation = shape.operation
        if isinstance(operation, Attention):
            work = self.attention(shape)
        elif isinstance(operation, Residual):
            work = self.residual(operation, shape)
        else:
            # The image, which the first one reads, is not parked.
            incoming, outgoing = operation.conv.in_channels, operation.conv.out_channels
            work = self.convolution(
                shape,
                incoming,
                outgoing,
                widest=max(incoming, outgoing),
                normed=operation.norm is not None,
                resample=operation.resample,
            )
        return work + _cast_bytes(operation, self.dtype)


def working_bytes(operations: list[Operation], tile: int, dtype: torch.dtype) -> int:
    """Memory on the computing device at the busiest moment besides parked maps and weights, for
    maps of any size and wherever they wait: a tile with its halo in and out, or the attention's
    chunk, and the weights of one layer where they are cast to `dtype`. The libraries' work space
    for a convolution is not counted."""
    work = _Work(base_channels(operations), tile, dtype, torch.float32, copied=True)
    return max(work.bytes(shape) for shape in walk(operations, _ENDLESS, _ENDLESS))


def peak_bytes(
    operations: list[Operation],
    height: int,
    width: int,
    *,
    tile: int,
    dtype: torch.dtype,
    parked: torch.dtype,
    elsewhere: bool,
    copied: bool,
) -> int:
    """Memory on the computing device at the busiest moment, without weights.

    Args:
        operations, height, width: as in `parked_bytes`.
        tile, dtype: as in `working_bytes`.
        parked: type of the maps.
        elsewhere: whether they wait in other memory than the device's.
        copied: whether parts of them are copied before work, because they lie elsewhere or in
            another type than float32.
    """
    work = _Work(base_channels(operations), tile, dtype, parked, copied)
    return max(
        work.bytes(shape) + (0 if elsewhere else parked.itemsize * _parked_numbers(shape))
        for shape in walk(operations, height, width)
    )
