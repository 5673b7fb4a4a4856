"""List the model files that are known by name: what each is for, where it is published, where it
goes, its licence, and whether it is at hand.

Nothing is downloaded. `commercial use` is what the licence of the weights says, as far as its
authors state one; it is no legal advice."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..command_line.options import add_models_argument, read_options, write_line
from ..models import ENVIRONMENT, KNOWN_FILES, KnownFile, find_file, models_folder

COLUMNS = ("file", "for", "from", "folder", "licence", "commercial use")


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """What `bir models` is asked for; as its arguments."""

    models: Path | None = None
    markdown: bool = False


read = partial(read_options, ModelsOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir models`."""
    add_models_argument(parser)
    parser.add_argument("--markdown", action="store_true", help="the table of the README")


def run(options: ModelsOptions) -> int:
    """Print the table.

    Raises:
        BIRError: the folder of models that was named is none.
    """
    if options.markdown:
        for line in markdown():
            write_line(line)
        return 0
    folder = models_folder(options.models)
    for known in KNOWN_FILES:
        write_line(
            f"{known.name}\n"
            f"  for:      {known.purpose}\n"
            f"  from:     {known.source}\n"
            f"  folder:   {known.folder or 'none'}\n"
            f"  licence:  {known.licence}; commercial use: {known.commercial}\n"
            f"  at hand:  {_at_hand(known, folder)}\n"
        )
    write_line(
        f"Folder of models: {folder}"
        if folder
        else f"No folder of models; name one by --models or the variable {ENVIRONMENT}."
    )
    write_line("The weights of measures are listed by `bir evaluate --list`.")
    return 0


def markdown() -> Iterator[str]:
    """The lines of a Markdown table, the same on every machine."""
    yield _row(COLUMNS)
    yield _row(["---"] * len(COLUMNS))
    for known in KNOWN_FILES:
        cells = [f"`{known.name}`", known.purpose, known.source, known.folder or "none"]
        yield _row([*cells, known.licence, known.commercial])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _at_hand(known: KnownFile, folder: Path | None) -> str:
    found = find_file(known.name, folder)
    return "no" if found is None else str(found) if known.folder else "yes"
