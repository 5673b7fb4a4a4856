"""A file appears under its name only when it is complete."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BIRError

# What stands between the name and the random part of a temporary file.
_MARK = "-part-"
_RANDOM_BYTES = 4  # as hexadecimal digits, twice as many characters
# Bytes of a file name that every file system holds, those of encrypted home folders included.
_MOST_NAME_BYTES = 143
CHECK_FOLDER = "check the folder and the free space"


def make_folder(folder: Path) -> None:
    """Make the folder of an output, and those above it, if it is absent.

    Raises:
        BIRError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BIRError(
            f"Expected a folder for the output at {folder}, but it cannot be made "
            f"({error.strerror or error}); choose another one."
        ) from error


def file_number(path: Path) -> tuple[int, int] | None:
    """Device and number of a file: the same under another name or spelling of it. None if there is
    no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@contextmanager
def writing(path: str | Path, what: str, advice: str = CHECK_FOLDER) -> Iterator[None]:
    """Make a sentence of it if a file cannot be written.

    Args:
        what: is written, and `advice`, what to do, as parts of the sentence.

    Raises:
        BIRError: an OSError came.
    """
    try:
        yield
    except OSError as error:
        raise BIRError(
            f"Expected to write {what} {path}, but it failed ({error.strerror or error}); {advice}."
        ) from error


def write_text(path: Path, text: str, what: str) -> None:
    """Write a text as UTF-8, whole or not at all; arguments and errors as of `writing`."""
    with writing(path, what), complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` at the end.

    On any failure, a full disk and Ctrl-C included, the temporary file is removed, the error goes
    on, and what stood under `path` before stays as it was. A process that is killed outright leaves
    the temporary file behind: see `remove_leftovers`.

    Yields:
        A path in the same folder, with the same suffix, of an empty file.
    """
    path = Path(path)
    temporary = _make_beside(path)
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files that killed processes left beside `paths`, which nobody may be
    writing now."""
    names: dict[Path, set[tuple[str, str]]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(_ends(path))
    for folder, wanted in names.items():
        for found in folder.glob(f".*{_MARK}*"):
            parts = re.fullmatch(rf"(\..*{_MARK})[a-z0-9_]{{8}}(\.[^.]*|)", found.name, re.DOTALL)
            if parts and (parts[1], parts[2]) in wanted:
                found.unlink(missing_ok=True)


def _make_beside(path: Path) -> Path:
    """A new empty file, as readable as any other. Its mode comes with it and is not changed later,
    which mounts of other systems (SMB, FUSE) refuse."""
    start, end = _ends(path)
    while True:
        temporary = path.parent / f"{start}{secrets.token_hex(_RANDOM_BYTES)}{end}"
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return temporary


def _ends(path: Path) -> tuple[str, str]:
    """What the names of the temporary files for a path begin and end with: a long name is replaced
    by its digest, since with an addition the folder might not hold it."""
    start, end = f".{path.stem}{_MARK}", path.suffix
    if len(os.fsencode(start + end)) + 2 * _RANDOM_BYTES > _MOST_NAME_BYTES:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
        start, end = f".{digest}{_MARK}", end if len(os.fsencode(end)) < 32 else ""
    return start, end
