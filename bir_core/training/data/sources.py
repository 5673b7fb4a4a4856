"""Where training examples come from, by what `--data` names."""

import logging
from pathlib import Path
from typing import Protocol

from ...errors import BIRError
from ..recipe import DataRecipe, ValidationRecipe
from .files import FileList, FolderSource, find_pairs, share_of
from .pictures import WholeExample
from .shards import ShardSource, find_shards

logger = logging.getLogger(__name__)


class ExampleSource(Protocol):
    """Whole examples by number, counted from 0.

    Attributes:
        sizes: examples in each of its parts, which are numbered through; a part is what is read
            best at one time (a shard).
    """

    sizes: tuple[int, ...]

    def read(self, index: int) -> WholeExample:
        """Read an example.

        Raises:
            BIRError: it is absent, damaged or not complete.
        """

    def name(self, index: int) -> str:
        """What a report calls an example."""


def open_source(path: str | Path, data: DataRecipe, *, index: Path | None = None) -> ExampleSource:
    """The examples of a folder of pictures, of a list of files, or of WebDataset shards.

    Args:
        path: a folder of pictures (see `find_pairs`) or of `.tar` files; one `.tar` file or a
            pattern as `shards-{000..099}.tar`; any other file is a list (see `FileList`).
        data: the recipe's part about pairs.
        index: file that keeps what is found out about shards, so that the next start is quick;
            None: nothing is kept.

    Raises:
        BIRError: nothing there, or nothing that can be trained on.
    """
    path = Path(path)
    paired, captions = data.degradation == "pairs", data.captions is not None
    shards = find_shards(path)
    if shards:
        return ShardSource(
            shards, paired=paired, captions=captions, workers=data.workers, index=index
        )
    if path.is_file():
        return FileList(path, paired=paired, captions=captions)
    return FolderSource(find_pairs(path, paired=paired), captions=captions)


def open_split(
    path: str | Path,
    data: DataRecipe,
    validation: ValidationRecipe,
    *,
    index: Path | None = None,
) -> tuple[ExampleSource, ExampleSource | None]:
    """The examples to train on, and those that the recipe holds out of a folder to measure on; None
    where it names none that is there, which the log says.

    Args:
        path, data, index: as of `open_source`.

    Raises:
        BIRError: as `open_source`, or all pictures are held out.
    """
    source = open_source(path, data, index=index)
    names, share = set(validation.held_out), validation.held_out_share
    if not (names or share):
        return source, None
    if not isinstance(source, FolderSource):
        logger.warning("no validation: %s is no folder to hold pictures out of; see --val", path)
        return source, None
    pairs = source.pairs
    held_out = {pair for pair in pairs if pair.hq.name in names}
    held_out |= share_of(pairs, share, validation.held_out_most, Path(path))
    if not held_out:
        logger.warning("no validation: none of the pictures to be held out is in %s", path)
        return source, None
    absent = names - {pair.hq.name for pair in held_out}
    if absent:
        logger.warning("not in %s to be held out: %s", path, ", ".join(sorted(absent)))
    kept = [pair for pair in pairs if pair not in held_out]
    if not kept:
        raise BIRError(
            f"Expected pictures to train on in {path}, but all are held out; add pictures."
        )
    tested = FolderSource([pair for pair in pairs if pair in held_out])
    return FolderSource(kept, captions=source.captions), tested
