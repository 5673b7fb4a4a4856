"""Where training examples come from, by what `--data` names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ...errors import BIRError
from ..recipe import DataRecipe
from .files import FileList, FolderSource, find_pairs
from .pictures import WholeExample
from .shards import ShardSource, find_shards


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


def open_source(
    path: str | Path,
    data: DataRecipe,
    *,
    held_out: tuple[str, ...] = (),
    index: Path | None = None,
) -> ExampleSource:
    """The examples of a folder of pictures, of a list of files, or of WebDataset shards.

    Args:
        path: a folder of pictures (see `find_pairs`) or of `.tar` files; one `.tar` file or a
            pattern as `shards-{000..099}.tar`; any other file is a list (see `FileList`).
        data: the recipe's part about pairs.
        held_out: names of pictures in the folder to leave out.
        index: file that keeps what is found out about shards, so that the next start is quick;
            None: nothing is kept.

    Raises:
        BIRError: nothing there, or nothing that can be trained on.
    """
    path = Path(path)
    paired, captions = data.degradation == "pairs", data.captions is not None
    shards = find_shards(path)
    if held_out and (shards or path.is_file()):
        raise BIRError(
            f"Expected a folder with the held-out picture {held_out[0]}, but {path} is none; give "
            "validation pictures of their own with --val."
        )
    if shards:
        return ShardSource(
            shards, paired=paired, captions=captions, workers=data.workers, index=index
        )
    if path.is_file():
        return FileList(path, paired=paired, captions=captions)
    return FolderSource(find_pairs(path, paired=paired, exclude=held_out), captions=captions)


def held_out_source(path: str | Path, data: DataRecipe, held_out: Sequence[str]) -> ExampleSource:
    """The pictures of a folder that are held out of training by their names."""
    pairs = find_pairs(path, paired=data.degradation == "pairs")
    return FolderSource([pair for pair in pairs if pair.hq.name in held_out])
