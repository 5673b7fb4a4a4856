"""The arguments of `bir restore` that only DiffIR takes."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only `--method diffir` takes; those that were not given stay None."""
    group = parser.add_argument_group("DiffIR", "only with --method diffir")
    group.add_argument(
        "--mask",
        metavar="FILE|FOLDER",
        type=Path,
        help="for inpainting: a mask for all pictures, white in the hole (from middle grey on), "
        "black or transparent elsewhere, or a folder of masks named like the pictures",
    )
