"""WebDataset shards: tar files in which the members of an example follow each other, as
`000.jpg`, `000.txt`, `000.json`.

Shards lie on a disk, or on one that is mounted. They are indexed once and then read by place, so
any example can be read at any time: a training is resumed inside a shard, and shared among
processes, as if the pictures were files. `ShuffledPasses` sees to it that only a few shards are
read at a time.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...errors import BIRError
from ...pictures.files import SUFFIXES
from .captions import Captions, captions_from
from .pictures import WholeExample, read_training_picture
from .shard_index import load_or_make_index, walk, webdataset_package

HQ_SUFFIXES = tuple(end for suffix in SUFFIXES for end in (f"hq{suffix}", suffix[1:]))
LQ_SUFFIXES = tuple(f"lq{suffix}" for suffix in SUFFIXES)


def find_shards(path: Path) -> list[Path]:
    """The shards that a path names: those of a folder, one `.tar` file, or all files of a pattern
    as `shards-{000..099}.tar`; [] if it names something else.

    Raises:
        BIRError: a shard is missing; a folder holds pictures as well; the package is absent.
    """
    if path.is_dir():
        shards = sorted(shard for shard in path.rglob("*.tar") if not shard.name.startswith("."))
        picture = next(_pictures(path), None) if shards else None
        if picture:
            raise BIRError(
                f"Expected either pictures or shards in {path}, but it has both, {picture.name} "
                f"and {shards[0].name}; give them a folder each."
            )
        return shards
    if path.suffix != ".tar":
        return []
    if path.is_file():
        return [path]
    try:
        names = webdataset_package().shardlists.expand_urls(path.as_posix())
    except ValueError as error:
        raise BIRError(
            f"Expected a pattern as shards-{{000..099}}.tar, but {path} came; close each brace."
        ) from error
    shards = [Path(name) for name in names]
    for shard in shards:
        if not shard.is_file():
            raise BIRError(
                f"Expected a shard at {shard}, but found nothing; get it, or leave it out of "
                "the pattern."
            )
    return shards


def _pictures(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


class ShardSource:
    """The examples of shards.

    An example's picture is its member `.jpg`, `.png`, ... (`.hq.png` and `.lq.png` in pairs), its
    captions are `caption` and `long_caption` of its `.json`, or else its `.txt`.

    Args:
        shards: the files.
        paired: a member lq is needed and read.
        captions: captions are read.
        workers: processes that make the index; 0 makes it in this one.
        index: file to keep the index in, or to take it from if the shards have not changed.

    Raises:
        BIRError: no example in them, one that is no tar file, an index that cannot be written.
    """

    def __init__(
        self,
        shards: list[Path],
        *,
        paired: bool,
        captions: bool,
        workers: int = 0,
        index: Path | None = None,
    ) -> None:
        self.shards, self.paired, self.captions = shards, paired, captions
        self.bounds, counts = load_or_make_index(shards, workers, index)
        self.sizes: tuple[int, ...] = tuple(counts.tolist())
        self.ends = counts.cumsum(0)
        if not sum(self.sizes):
            raise BIRError(
                f"Expected examples in {len(shards)} shards, {shards[0]} for example, but found "
                "none; name the members of an example KEY.jpg, KEY.txt, KEY.json."
            )

    def read(self, index: int) -> WholeExample:
        """See `ExampleSource`."""
        shard, start, end = self._stretch(index)
        members = _read_members(shard, start, end)
        hq = _picture(shard, members, HQ_SUFFIXES)
        lq = _picture(shard, members, LQ_SUFFIXES) if self.paired else None
        return WholeExample(hq, lq, _captions(shard, members) if self.captions else Captions())

    def name(self, index: int) -> str:
        """The shard and the first member; or the place in the shard if that cannot be read."""
        shard, start, _ = self._stretch(index)
        try:
            with open(shard, "rb") as file:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    member = archive.next()
        except (OSError, tarfile.TarError):
            member = None
        return f"{shard.name} at byte {start}" if member is None else f"{shard.name}/{member.name}"

    def _stretch(self, index: int) -> tuple[Path, int, int]:
        """The shard of an example, and where it begins and ends."""
        shard = int(torch.searchsorted(self.ends, index, right=True))
        place = index + shard  # each shard before has one more bound than examples
        start, end = self.bounds[place : place + 2].tolist()
        return self.shards[shard], start, end


def _read_members(shard: Path, start: int, end: int) -> dict[str, tuple[str, bytes]]:
    """Name and content of the members of an example, by suffix."""
    split = webdataset_package().tariterators.base_plus_ext
    members: dict[str, tuple[str, bytes]] = {}
    try:
        with open(shard, "rb") as file:
            file.seek(start)
            content = file.read(end - start)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:", ignore_zeros=True) as archive:
            for member in walk(archive, len(content)):
                suffix = split(member.name)[1]
                body = archive.extractfile(member) if member.isreg() else None
                if suffix and body is not None:
                    members[suffix.lower()] = member.name, body.read()
    except (OSError, tarfile.TarError) as error:
        raise BIRError(
            f"Expected an example at byte {start} of the shard {shard}, but it cannot be read "
            f"({error}); get the shard again."
        ) from error
    return members


def _picture(
    shard: Path, members: dict[str, tuple[str, bytes]], suffixes: tuple[str, ...]
) -> Tensor:
    for suffix in suffixes:
        if suffix in members:
            name, content = members[suffix]
            return read_training_picture(shard / name, content)
    raise BIRError(
        f"Expected a member .{suffixes[0]} or the like in an example of {shard}, but it has "
        f"{', '.join(members) or 'none'}; make the shard again."
    )


def _captions(shard: Path, members: dict[str, tuple[str, bytes]]) -> Captions:
    try:
        fields = json.loads(members["json"][1]) if "json" in members else {}
        text = members["txt"][1].decode() if "txt" in members else ""
    except ValueError as error:
        raise BIRError(
            f"Expected captions as .txt or .json in the shard {shard}, but they cannot be read "
            f"({error}); make the shard again."
        ) from error
    return captions_from(fields, text)
