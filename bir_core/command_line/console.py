"""Lines for the user. A line that cannot be written never ends the work."""

import contextlib
import io
import os
import re
import sys
from typing import TextIO

from ..errors import BIRError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _Nowhere(io.TextIOBase):
    """A stream that takes the place of one that cannot be written any more.

    Attributes:
        reason: why not; None for a reader that left, as `head` does, or if it was told.
    """

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    def write(self, text: str) -> int:
        return len(text)


def write_line(text: str) -> None:
    """Write a line to stdout, above the progress bars if there are any.

    If stdout is closed or full, this and all further lines go nowhere; `require_output` tells."""
    try:
        _write(text, sys.stdout)
    except (BrokenPipeError, ValueError):  # ValueError: closed from within
        _silence("stdout")
    except OSError as error:
        _silence("stdout", error.strerror or str(error))


def write_error(text: str) -> None:
    """Write `bir: text` as one line to stderr, above the progress bars; nowhere if it is closed."""
    try:
        _write(f"bir: {one_line(text)}", sys.stderr)
    except (OSError, ValueError):
        _silence("stderr")


def require_output() -> None:
    """Raise BIRError if lines of stdout were lost since the last call, but not to a reader that
    had left."""
    stream = sys.stdout
    if isinstance(stream, _Nowhere) and stream.reason is not None:
        reason, stream.reason = stream.reason, None
        raise BIRError(
            f"Expected to write to the standard output, but it failed ({reason}); the work is "
            "done, but its lines are lost: check where they go."
        )


def one_line(text: str) -> str:
    """A text with its control characters spelt out: names of files may hold any of them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(text: str, stream: TextIO) -> str:
    """A text with what a stream's encoding lacks spelt out."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def open_closed_streams() -> None:
    """Connect closed standard streams to nowhere: Python has None for them, and the next file that
    is opened would take their number and get what is meant for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        setattr(sys, name, open(os.devnull, "r+" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def _write(text: str, stream: TextIO) -> None:
    from tqdm import tqdm  # here, since `bir --help` writes nothing by it

    tqdm.write(printable(text, stream), file=stream)
    # Not only at the end, where the interpreter would report a full disk in its own way.
    stream.flush()


def _silence(name: str, reason: str | None = None) -> None:
    """Let a standard stream lead nowhere, and what it still holds, too."""
    stream: TextIO = getattr(sys, name)
    setattr(sys, name, _Nowhere(reason))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
