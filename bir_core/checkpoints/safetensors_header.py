"""The header of a safetensors file: names, types, shapes and places of its tensors.

The format (https://huggingface.co/docs/safetensors): the length of the header as 8 bytes, the
header as JSON, then the numbers, without gaps.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .stored import Checkpoint, DamagedFile, Place

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000
_METADATA = "__metadata__"
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file that begins with these 9 bytes is meant as safetensors. The length of the
    header alone may look like the start of a pickle."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    return start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= MOST_HEADER_BYTES


def read_header(file: BinaryIO, size: int, checkpoint: Checkpoint) -> None:
    """Fill an open checkpoint from the header of its file.

    Args:
        size: of the file in bytes.

    Raises:
        DamagedFile: a header that does not describe the file.
    """
    file.seek(0)
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    begin = LENGTH_BYTES + length
    if begin > size:
        raise DamagedFile(f"its header should take {length} bytes, the whole file has {size}")
    header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
    if not isinstance(header, dict):
        raise DamagedFile("its header is no table")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, Mapping) or not all(isinstance(v, str) for v in metadata.values()):
        raise DamagedFile("its metadata are no texts")
    rows = {name: _row(name, row) for name, row in header.items()}
    end = 0
    for first, last in sorted(places for _, _, places in rows.values()):
        if first != end:
            raise DamagedFile(f"a tensor begins at byte {first} instead of {end} of the numbers")
        end = last
    if begin + end != size:
        raise DamagedFile(f"its header describes {begin + end} bytes, but it has {size}")
    tensors: dict[str, Tensor] = {}
    for name, (dtype, shape, (first, last)) in rows.items():
        place = Place(begin + first, last - first)
        tensors[name] = checkpoint.tensor(dtype, shape, _contiguous(shape), place)
    checkpoint.content, checkpoint.metadata = tensors, metadata


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise DamagedFile("a name comes twice in its header")
    return table


def _row(name: str, row: Any) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:
    """Type, shape, and first and last byte of a tensor."""
    try:
        if row["dtype"] not in _DTYPES:
            raise DamagedFile(f"the tensor {name} is of the unknown type {row['dtype']}")
        dtype = getattr(torch, _DTYPES[row["dtype"]])
        shape, (first, last) = tuple(row["shape"]), row["data_offsets"]
        numbers = [*shape, first, last]
        right = all(type(number) is int and number >= 0 for number in numbers)
        right = right and last - first == prod(shape) * dtype.itemsize
    except (KeyError, TypeError, ValueError, AttributeError):
        right = False
    if not right:
        raise DamagedFile(f"the tensor {name} has no type, shape and place that belong together")
    return dtype, shape, (first, last)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[place + 1 :]) for place in range(len(shape)))
