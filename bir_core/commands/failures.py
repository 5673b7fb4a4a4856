"""What is said of pictures that could not be done, or not with all that belongs to them."""

import errno
from collections import Counter
from pathlib import Path

from ..command_line.options import write_error
from ..errors import BIRError

MOST_NAMES = 10
# No space, none left of a quota, a disk that became read-only.
_NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS") if hasattr(errno, name)}


def say_left_out(others: list[Path], folder: Path) -> None:
    """Say on stderr, in one line, what else of a folder looks like pictures but is not read."""
    if not others:
        return
    kinds = Counter(path.suffix.lower() or path.name for path in others)
    named = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())[:MOST_NAMES])
    write_error(
        f"{len(others)} of {folder} left out, which cannot be read ({named}): only PNG, JPEG, WebP "
        "and TIFF are; convert the others"
    )


def losses(left_out: tuple[str, ...]) -> str:
    """The end of a picture's line: what of its side data was left out."""
    return f"  (left out: {', '.join(left_out)})" if left_out else ""


def no_memory_for(picture: Path | str) -> str:
    """The sentence for a picture for which the memory ran out."""
    return (
        f"Expected enough memory for {picture}, but it ran out; close other programs, or take a "
        "smaller picture."
    )


def no_room(error: BIRError) -> bool:
    """Whether writing failed as it will for all pictures, so that going on has no sense."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_ROOM


class Failures:
    """Names each picture that failed on stderr, and all of them at the end.

    Args:
        total: of the pictures; the failure of a single one is raised at once.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.names: list[str] = []

    def add(self, source: Path, reason: str) -> None:
        """Say why a picture failed.

        Raises:
            BIRError: it is the only one.
        """
        if self.total == 1:
            raise BIRError(reason)
        write_error(reason)
        self.names.append(str(source))

    def require_none(self, done: str) -> None:
        """Raise BIRError with the names if pictures failed to be `done`."""
        if not self.names:
            return
        names = ", ".join(sorted(self.names)[:MOST_NAMES])
        more = len(self.names) - MOST_NAMES
        raise BIRError(
            f"Expected {self.total} usable pictures, but {len(self.names)} could not be {done} "
            f"({names}{f' and {more} more' if more > 0 else ''}; see above); mend or remove them."
        )
