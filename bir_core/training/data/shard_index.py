"""Where the examples of shards begin, so that each can be read by its place."""

import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...checkpoints.files import write_tensors
from ...errors import BIRError

logger = logging.getLogger(__name__)

BLOCK = 512  # of a tar file


def webdataset_package() -> Any:
    """The package webdataset.

    Raises:
        BIRError: it is absent.
    """
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise BIRError(
            "Training on shards should find the package webdataset, but it is absent; install the "
            "extra: pip install comfyui-bir[train]."
        ) from error
    return webdataset


def load_or_make_index(
    shards: list[Path], workers: int, index: Path | None
) -> tuple[Tensor, Tensor]:
    """Where the examples of shards begin.

    Args:
        shards: the files.
        workers: processes that read them; 0 reads in this one.
        index: file to take it from if the shards have not changed, or else to keep it in; None:
            it is not kept.

    Returns:
        For each shard the bytes at which its examples begin and the one at which the last ends, one
        shard after the other; and how many examples each shard has. Both int64.

    Raises:
        BIRError: webdataset is absent, or the file cannot be written.
    """
    states = [(str(shard), shard.stat()) for shard in shards]
    about = json.dumps([[name, state.st_size, state.st_mtime_ns] for name, state in states])
    if index is not None and index.is_file():
        try:
            with safe_open(index, "pt") as file:
                if (file.metadata() or {}).get("shards") == about:
                    return file.get_tensor("bounds"), file.get_tensor("counts")
        except SafetensorError:
            logger.warning("The index %s is damaged and is made again", index)
    found = _scan(shards, workers)
    bounds = torch.tensor([place for places in found for place in places])
    counts = torch.tensor([len(places) - 1 for places in found])
    if index is not None:
        write_tensors(
            index,
            {"bounds": bounds, "counts": counts},
            "the index of the shards to",
            advice="choose another output folder or make space",
            metadata={"shards": about},
            make_folder=True,
        )
    return bounds, counts


class _Scan(Dataset[tuple[list[int], bool]]):
    """`example_bounds` of shards by number."""

    def __init__(self, shards: list[Path]) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, number: int) -> tuple[list[int], bool]:
        return example_bounds(self.shards[number])


def _scan(shards: list[Path], workers: int) -> list[list[int]]:
    """The bounds in each shard; damaged shards are named in the log."""
    webdataset_package()  # its absence is said here, not in a reading process
    loader = DataLoader(
        _Scan(shards),
        batch_size=None,
        num_workers=workers,
        collate_fn=tuple,
        generator=torch.Generator(),  # keeps the loader off the global random state
    )
    found = []
    for shard, (bounds, whole) in zip(
        shards, tqdm(loader, "index", unit="shard", disable=None), strict=True
    ):
        found.append(bounds)
        if not whole:
            logger.warning(
                "The shard %s is damaged or cut off; %d examples of it are known",
                shard,
                len(bounds) - 1,
            )
    return found


def example_bounds(shard: Path) -> tuple[list[int], bool]:
    """The bytes at which the examples of a shard begin, and the one at which the last one ends;
    and whether the shard is whole.

    Members with the same path up to the first dot of the file name are an example. Where a header
    is damaged, the next good one is looked for.
    """
    split = webdataset_package().tariterators.base_plus_ext
    bounds: list[int] = []
    last, end = None, 0
    whole = True
    try:
        with open(shard, "rb") as file, tarfile.open(shard, "r:", ignore_zeros=True) as archive:
            for member in walk(archive, shard.stat().st_size):
                whole = whole and (member.offset == end or _zeros_at(file, end))
                end = archive.offset
                key = split(member.name)[0]
                if member.isreg() and key is not None and key != last:
                    bounds.append(member.offset)
                    last = key
            whole = whole and _zeros_at(file, end)
    except (OSError, tarfile.TarError):
        whole = False
    return [*bounds, end], whole


def walk(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of an archive of `size` bytes. With `ignore_zeros`, tarfile looks for the next
    good header where one is damaged; but not behind an extended one, where it gives up."""
    while True:
        try:
            member = archive.next()
        except tarfile.ReadError:
            if archive.offset >= size:
                return
            archive.offset += BLOCK
            continue
        if member is None:
            return
        yield member


def _zeros_at(file: BinaryIO, place: int) -> bool:
    """Whether an archive ends there."""
    file.seek(place)
    block = file.read(BLOCK)
    return len(block) == BLOCK and not block.strip(b"\0")
