"""Tensors that lie in a file until they are wanted.

Files are read and never mapped into memory: the weights of a network do not change, nor does the
process end, when somebody overwrites or cuts the file that they came from.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import BIRError, shown, shown_path
from ..memory import is_out_of_memory

# Tensors of up to so many numbers are read at once: tables such as the betas of a schedule are
# facts about a network, which its sizes follow from.
SMALL = 1024
# Bytes that may be read of each byte of a file. Official DiffIR files name small tensors twice;
# a file that names the same bytes again and again would fill the memory.
MOST_READ = 2
DOWNLOAD = "download it again"


class DamagedFile(Exception):
    """What is wrong with a file, as the part of a sentence in brackets."""


@contextmanager
def reading(
    path: Path, kind: str = "checkpoint", size: int | None = None, advice: str = DOWNLOAD
) -> Iterator[None]:
    """Make a sentence of whatever the reading of a file raises.

    Args:
        kind: what the file should be.
        size: of the file in bytes, if it is known.
        advice: what to do about a damaged one.

    Raises:
        BIRError: the file cannot be read, is damaged, or does not fit into the memory.
    """
    try:
        yield
    except BIRError:
        raise
    except Exception as error:  # what a parser raises for a hostile file has no end
        raise BIRError(_sentence(shown_path(path), kind, size, advice, error)) from error


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """Make a sentence of it if the memory, of any device, runs out while weights are loaded.

    Raises:
        BIRError: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BIRError(_too_large(name)) from error


def _too_large(name: str) -> str:
    return (
        f"Expected memory for the weights in {name}, but there is not enough of it; close other "
        "programs, or load with half precision."
    )


def _sentence(name: str, kind: str, size: int | None, advice: str, error: Exception) -> str:
    if is_out_of_memory(error):
        return _too_large(name)
    if isinstance(error, OSError):
        return (
            f"Expected to read {name}, but it failed ({error.strerror or shown(error)}); check the "
            "path, the permissions and the disk."
        )
    said = str(error) if isinstance(error, DamagedFile) else f"{type(error).__name__}: {error}"
    where = "" if size is None else f" at {size} bytes"
    return (
        f"Expected a complete {kind} file, but {name} is damaged or cut off{where} "
        f"({shown(said, 200)}); {advice}."
    )


def require_file(path: Path, advice: str = DOWNLOAD) -> int:
    """The size of a file in bytes.

    Args:
        advice: what to do about an empty one.

    Raises:
        BIRError: nothing there, a folder, an empty file, or one that cannot be looked at.
    """
    name = shown_path(path)
    what = "nothing"
    with reading(path):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with \0
            status = None
    if status is not None and os.path.isfile(path):
        if status.st_size == 0:
            raise BIRError(f"Expected a checkpoint in {name}, but it is empty; {advice}.")
        return status.st_size
    if status is not None:
        what = "a folder" if os.path.isdir(path) else "no ordinary file"
    raise BIRError(f"Expected a checkpoint file at {name}, but found {what}; check the path.")


@dataclass(frozen=True)
class Place:
    """Where the numbers of a tensor lie.

    Attributes:
        begin, size: of the memory that the tensor is a view of, in bytes of the file.
        offset: the tensor's first number, counted in numbers.
    """

    begin: int
    size: int
    offset: int = 0


class Checkpoint:
    """An open checkpoint.

    Attributes:
        path: for errors.
        content: the file's top-level dictionary: tensors by name, or wrappers around them. The
            tensors are on the device `meta`, except the small ones.
        metadata: texts in the header of a safetensors file.
    """

    def __init__(self, file: BinaryIO, path: Path, size: int, advice: str = DOWNLOAD) -> None:
        self.path, self._advice = path, advice
        self.content: Mapping[str, Any] = {}
        self.metadata: Mapping[str, str] = {}
        self._file, self._size, self._left = file, size, MOST_READ * size
        # By id; the tensors are kept, so that no other object gets the id of one.
        self._places: dict[int, tuple[Tensor, Place]] = {}

    def tensor(
        self, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], place: Place
    ) -> Tensor:
        """A tensor of `content`.

        Raises:
            DamagedFile: it reaches beyond its memory, or that beyond the file.
        """
        numbers = [*shape, *stride, place.begin, place.size, place.offset]
        if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise DamagedFile(f"a tensor of the shape {shape} and the stride {stride}")
        if place.begin + place.size > self._size:
            raise DamagedFile(f"a tensor reaches beyond the {self._size} bytes of the file")
        if place.offset + _extent(shape, stride) > place.size // dtype.itemsize:
            raise DamagedFile(f"a tensor of the shape {shape} lies in {place.size} bytes")
        if prod(shape) <= SMALL:
            return self._numbers(place, dtype, shape, stride)
        tensor = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        self._places[id(tensor)] = tensor, place
        return tensor

    def read(self, tensor: Tensor) -> Tensor:
        """The numbers of a tensor of `content`, in memory of their own; any other tensor as it is.

        Raises:
            BIRError: the file changed meanwhile, or does not fit into the memory.
        """
        if id(tensor) not in self._places:
            return tensor
        _, place = self._places[id(tensor)]
        shape, stride, dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype
        with reading(self.path, size=self._size, advice=self._advice):
            if tensor.numel() > place.size // dtype.itemsize:
                raise DamagedFile(f"a tensor of the shape {shape} lies in {place.size} bytes")
            return self._numbers(place, dtype, shape, stride)

    def everything(self) -> dict[str, Any]:
        """`content` with all tensors read. Those that share memory in the file share it here.

        Raises:
            BIRError: as `read`.
        """
        memories: dict[tuple[int, int], Tensor] = {}

        def whole(value: Any) -> Any:
            if id(value) not in self._places:
                return value
            tensor, place = self._places[id(value)]
            key = place.begin, place.size
            if key not in memories:
                memories[key] = self._range(place.begin, place.size)
            memory, size = memories[key], tensor.dtype.itemsize
            whole = memory[: len(memory) // size * size].view(tensor.dtype)
            return whole.as_strided(tensor.shape, tensor.stride(), place.offset)

        with reading(self.path, size=self._size, advice=self._advice):
            return map_values(self.content, whole)

    def _numbers(
        self, place: Place, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """A tensor in memory of its own, from its first number to its last."""
        begin = place.begin + place.offset * dtype.itemsize
        memory = self._range(begin, _extent(shape, stride) * dtype.itemsize)
        return memory.view(dtype).as_strided(shape, stride)

    def _range(self, begin: int, size: int) -> Tensor:
        self._left -= size
        if self._left < 0:
            raise DamagedFile("many tensors lie in the same bytes")
        memory = torch.empty(size, dtype=torch.uint8)
        self._file.seek(begin)
        done, view = 0, memory.numpy().data
        while done < size:
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]  # of all files
            if not count:
                raise DamagedFile(f"it ends after {begin + done} bytes")
            done += count
        return memory


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many numbers lie between the first and the last one of a tensor, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))


def map_values(content: Mapping[Any, Any], change: Callable[[Any], Any]) -> dict[Any, Any]:
    """A dictionary with `change(value)` in the place of each value that is no dictionary, in
    dictionaries below it too. A dictionary that stands in several places is changed once."""
    changed: dict[int, dict[Any, Any]] = {}

    def mapped(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return change(value)
        if id(value) not in changed:
            below = changed[id(value)] = dict[Any, Any]()
            below.update((key, mapped(inner)) for key, inner in value.items())
        return changed[id(value)]

    result: dict[Any, Any] = mapped(content)
    return result
