"""Lines for the user, whatever stdout and stderr can take."""

import errno
import io
import os
import sys

import pytest

from bir_core.command_line import console
from bir_core.command_line.console import (
    one_line,
    printable,
    require_output,
    write_error,
    write_line,
)
from bir_core.errors import BIRError


class Refusing(io.StringIO):
    """A stream that fails as the system fails."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_characters_that_the_console_lacks_are_spelt_out(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write_line("caf\u00e9 " + os.fsdecode(b"\xff"))
    assert raw.getvalue().split() == [b"caf\\xe9", b"\\udcff"]
    assert printable("\u0416", io.TextIOWrapper(io.BytesIO(), encoding="cp1252")) == "\\u0416"


def test_a_name_with_line_breaks_stays_in_its_line():
    assert one_line("a\nb\x1b[0m\u2028c") == "a\\nb\\x1b[0m\\u2028c"


def test_a_full_output_is_told_once_at_the_end(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Refusing(OSError(errno.ENOSPC, "No space left on device")))
    write_line("a")
    write_line("b")
    with pytest.raises(BIRError, match="No space left"):
        require_output()
    require_output()


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_reader_that_left_is_no_fault(monkeypatch, error):
    monkeypatch.setattr(sys, "stdout", Refusing(error))
    monkeypatch.setattr(sys, "stderr", Refusing(error))
    write_line("a")
    write_error("b")
    require_output()


def test_closed_streams_lead_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    console.open_closed_streams()
    write_line("a")
    write_error("b")
    require_output()
    sys.stdout.close()
    sys.stderr.close()
