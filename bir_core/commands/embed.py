"""Write the embedding of a prompt to a file, for `bir restore --method diffbir`."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from ..checkpoints import load_model
from ..command_line.options import read_options, write_line
from ..diffbir.prompts import encode_prompts, save_embedding
from ..errors import BIRError
from ..networks.text_encoder import TextEncoder


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """What `bir embed` is asked for; as its arguments."""

    text: str
    output: Path
    base: Path
    overwrite: bool = False


read = partial(read_options, EmbedOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir embed`."""
    parser.add_argument("text", metavar="TEXT", help="the prompt; may be empty")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="safetensors file to write")
    parser.add_argument(
        "--base",
        metavar="FILE|FOLDER",
        type=Path,
        required=True,
        help="Stable Diffusion 2.1 or its text encoder: a file, or a folder in the layout of "
        "diffusers",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def run(options: EmbedOptions) -> int:
    """Embed one prompt."""
    if options.output.exists() and not options.overwrite:
        raise BIRError(
            f"Expected a free name for the embedding, but {options.output} exists and is kept; "
            "choose another name or allow it with --overwrite."
        )
    encoder = cast(TextEncoder, load_model(options.base, architecture="text_encoder"))
    save_embedding(options.output, encode_prompts(encoder, [options.text]), options.text)
    write_line(str(options.output))
    return 0
