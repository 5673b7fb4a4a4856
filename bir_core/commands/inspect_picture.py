"""What `bir inspect` says of a picture: what is wrong with it."""

import json
from pathlib import Path

from ..command_line.options import write_line
from ..estimate import estimate_file
from ..estimate.words import in_words
from ..pictures.codecs import format_of
from ..pictures.files import SUFFIXES


def is_picture(file: str) -> bool:
    """Whether a file begins as a picture, or is called like one."""
    path = Path(file)
    return path.suffix.lower() in SUFFIXES or format_of(path) is not None


def inspect_picture(file: str, *, as_json: bool) -> int:
    """Write what is wrong with a picture to stdout, in words or as one JSON object."""
    found = estimate_file(file)
    if as_json:
        write_line(json.dumps(found.numbers(), indent=2))
        return 0
    for line in in_words(found):
        write_line(line)
    return 0
