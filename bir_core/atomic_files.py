"""A file appears under its name only when it is complete."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What stands between the name and the random part of a temporary file.
_MARK = "-part-"


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
    prefix = f".{path.stem}{_MARK}"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files that killed processes left beside `paths`, which nobody may be
    writing now."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for found in folder.glob(f".*{_MARK}*"):
            parts = re.fullmatch(rf"\.(.*){_MARK}[a-z0-9_]{{8}}(\.[^.]*|)", found.name)
            if parts and parts[1] + parts[2] in wanted:
                found.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
