"""What the autoencoder of Stable Diffusion does, as a list of operations on full maps, which
`passes` carries out.

Layers are found by the module names of latent diffusion, so ComfyUI's networks work as well as
those of `autoencoder`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from ..errors import BIRError

# Sides of the score matrix of the attention are as long as this many tiles.
ATTENTION_TILES = 4
SMALLEST_CHUNK = 256
SMALLEST_SIDE = 8

# A layer of a network that is known by its attribute names only: a convolution, a norm, a block.
Layer = Any


@dataclass(frozen=True)
class Convolution:
    """[norm, SiLU,] 3 x 3 convolution to a new map; "up" doubles the grid before it, "down" halves
    it with a stride of 2."""

    conv: Layer
    norm: Layer | None = None
    resample: Literal["none", "up", "down"] = "none"


@dataclass(frozen=True)
class Residual:
    """x + conv2(SiLU(norm2(conv1(SiLU(norm1(x)))))), with a 1 x 1 shortcut where widths change."""

    norm1: Layer
    conv1: Layer
    norm2: Layer
    conv2: Layer
    shortcut: Layer | None


@dataclass(frozen=True)
class Attention:
    """x + proj_out(attention among all pixels of norm(x))."""

    norm: Layer
    q: Layer
    k: Layer
    v: Layer
    proj_out: Layer


Operation = Convolution | Residual | Attention


def _residual(block: Layer) -> Residual:
    shortcut = getattr(block, "nin_shortcut", None)
    return Residual(block.norm1, block.conv1, block.norm2, block.conv2, shortcut)


def _attention(block: Layer) -> Attention:
    return Attention(block.norm, block.q, block.k, block.v, block.proj_out)


def _middle(network: Layer) -> list[Operation]:
    middle = network.mid
    return [_residual(middle.block_1), _attention(middle.attn_1), _residual(middle.block_2)]


def _check_layout(network: Layer, levels: str) -> None:
    weight = getattr(getattr(network, "conv_in", None), "weight", None)
    if weight is None or weight.ndim != 4 or not hasattr(network, levels):
        raise BIRError(
            "The exact tiled VAE should get the image autoencoder of Stable Diffusion or one of "
            f"its layout, but {type(network).__name__} came; use the stock tiled VAE for it."
        )


def _complete(network: Layer, operations: list[Operation]) -> list[Operation]:
    """The operations, if they are all that a network does. Some networks for video, or of more
    channels, have the same names of modules, but weights beside them or maps of other widths."""
    layers = [layer for each in operations for layer in vars(each).values()]
    used = {w for layer in layers if isinstance(layer, torch.nn.Module) for w in layer.parameters()}
    fitting = (
        channels in (0, layers_of(operation)[0].in_channels)
        for operation, channels, *_ in walk(operations, 1, 1)
    )
    if set(network.parameters()) - used or not all(fitting):
        raise BIRError(
            "The exact tiled VAE should get the image autoencoder of Stable Diffusion, but "
            f"{type(network).__name__} does more than that; use the stock tiled VAE for it."
        )
    return operations


def _level(level: Layer) -> list[Operation]:
    attention = getattr(level, "attn", [])
    operations: list[Operation] = []
    for index, block in enumerate(level.block):
        operations.append(_residual(block))
        if len(attention):
            operations.append(_attention(attention[index]))
    return operations


def encoder_operations(encoder: Layer) -> list[Operation]:
    """What an encoder does, in order.

    Raises:
        BIRError: a network of another layout.
    """
    _check_layout(encoder, "down")
    operations: list[Operation] = [Convolution(encoder.conv_in)]
    for level in encoder.down:
        operations += _level(level)
        if hasattr(level, "downsample"):
            operations.append(Convolution(level.downsample.conv, resample="down"))
    operations += [*_middle(encoder), Convolution(encoder.conv_out, encoder.norm_out)]
    return _complete(encoder, operations)


def decoder_operations(decoder: Layer) -> list[Operation]:
    """What a decoder does, in order.

    Raises:
        BIRError: a network of another layout.
    """
    _check_layout(decoder, "up")
    operations: list[Operation] = [Convolution(decoder.conv_in), *_middle(decoder)]
    for level in reversed(decoder.up):
        operations += _level(level)
        if hasattr(level, "upsample"):
            operations.append(Convolution(level.upsample.conv, resample="up"))
    operations.append(Convolution(decoder.conv_out, decoder.norm_out))
    return _complete(decoder, operations)


def layers_of(operation: Operation) -> list[Layer]:
    """The convolutions of an operation."""
    if isinstance(operation, Convolution):
        return [operation.conv]
    if isinstance(operation, Attention):
        return [operation.q, operation.k, operation.v, operation.proj_out]
    shortcut = [] if operation.shortcut is None else [operation.shortcut]
    return [operation.conv1, operation.conv2, *shortcut]


def _pieces(height: int, width: int, side: int) -> int:
    return math.ceil(height / side) * math.ceil(width / side)


def tile_side(tile: int, channels: int, base: int, resample: str = "none") -> int:
    """Side of a tile of an operation's output, so that all tiles hold about as many numbers as one
    of `tile` on the widest grid.

    Args:
        channels: of the wider one of input and output.
        base: of the maps on the widest grid.
        resample: of the operation; one that halves the grid reads tiles of twice the side.
    """
    side = int(tile * math.sqrt(base / channels))
    return max(SMALLEST_SIDE, side // 2 if resample == "down" else side)


def attention_chunk(tile: int) -> int:
    """Pixels of a chunk of queries, and of keys, at a tile side."""
    return max(SMALLEST_CHUNK, ATTENTION_TILES * tile)


def resized(height: int, width: int, resample: str) -> tuple[int, int]:
    if resample == "up":
        return 2 * height, 2 * width
    return (height // 2, width // 2) if resample == "down" else (height, width)


def base_channels(operations: list[Operation]) -> int:
    """Channels on the widest grid: those of the first convolution of an encoder, or of the last
    residual block of a decoder."""
    blocks = [operation for operation in operations if isinstance(operation, Residual)]
    return min(blocks[0].conv1.out_channels, blocks[-1].conv1.out_channels)


class Shape(NamedTuple):
    """An operation with the map that it gets: the channels in use, those of its storage."""

    operation: Operation
    channels: int
    stored: int
    height: int
    width: int


def walk(operations: list[Operation], height: int, width: int) -> Iterator[Shape]:
    channels = stored = 0  # the first convolution reads the image, which is not parked
    for operation in operations:
        yield Shape(operation, channels, stored, height, width)
        if isinstance(operation, Convolution):
            channels = stored = operation.conv.out_channels
            height, width = resized(height, width, operation.resample)
        elif isinstance(operation, Residual):
            in_use, channels = channels, operation.conv1.out_channels
            stored = stored if channels <= in_use else channels


def count_pieces(operations: list[Operation], height: int, width: int, tile: int) -> int:
    """Number of pieces that all passes over one image handle."""
    base, pieces = base_channels(operations), 0
    for operation, channels, _, rows, columns in walk(operations, height, width):
        if isinstance(operation, Attention):
            chunk = attention_chunk(tile)
            pieces += 2 * math.ceil(rows * columns / chunk)
        elif isinstance(operation, Residual):
            widest = max(channels, operation.conv1.out_channels)
            pieces += 2 * _pieces(rows, columns, tile_side(tile, widest, base))
        else:
            rows, columns = resized(rows, columns, operation.resample)
            widest = max(channels, operation.conv.out_channels)
            pieces += _pieces(rows, columns, tile_side(tile, widest, base, operation.resample))
    return pieces
