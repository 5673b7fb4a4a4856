"""The jobs of a published set."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from ..errors import BIRError
from .hashes import require_picture
from .jobs import Job
from .layout import Source
from .pieces import Piece, files_of, pieces_of, write_pieces


def cutting_jobs(
    sources: Iterable[Source],
    output: Path,
    *,
    scale: int,
    hashes: dict[str, str],
    on_failure: Callable[[Path, BIRError], None],
) -> list[Job]:
    """One job for each picture of a set that gives results.

    Args:
        scale: of the low-quality pictures that are made; 1 makes none.
        hashes: see `hashes_of_pictures`.
        on_failure: is told of a picture that cannot be taken; the others go on.
    """
    jobs = []
    for source in sources:
        try:
            pieces = pieces_of(source, scale)
        except BIRError as error:
            on_failure(source.hq, error)
            continue
        files = [path for piece in pieces for path in files_of(piece, source, output, scale)]
        if files:
            make = partial(_make, source, pieces, output, scale, hashes)
            jobs.append(Job(source.hq, tuple(files), make))
    return jobs


def _make(
    source: Source, pieces: list[Piece], output: Path, scale: int, hashes: dict[str, str]
) -> None:
    require_picture(source.hq, hashes)
    write_pieces(source, pieces, output, scale)
