"""Check weight files: what each is, that it loads completely, and what a small picture gives.

The report is text to paste into an issue; it names files, and no folders. Files of one DiffBIR that
are given together, such as IRControlNet, base and stage 1, also run together:

  bir verify DiffBIR_v2.1.pt sd2.1-base-zsnr-laionaes5.ckpt realesrgan_s4_swinir_100k.pth

The exit code is 0 if everything ran, 1 if a file failed or could not be checked, 2 if the command
itself could not run."""

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..atomic_files import write_text, writing
from ..command_line.options import (
    DTYPES,
    add_device_arguments,
    choose_device,
    read_options,
    write_line,
)
from ..diffbir.versions import VERSIONS
from ..latents import PADDED_MULTIPLE
from ..pictures.files import require_free
from ..verification.checking import verify
from ..verification.pipelines import Conditions
from ..verification.report import as_json, as_markdown, environment
from ..weights import BUILTIN_NAMES

DEFAULT_SIDE = Conditions.side
REPORT = "the report"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What `bir verify` is asked for; as its arguments."""

    files: tuple[str, ...]
    device: str = "auto"
    dtype: str = "float32"
    version: str | None = None
    size: int = DEFAULT_SIDE
    json: bool = False
    output: Path | None = None
    overwrite: bool = False


read = partial(read_options, VerifyOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir verify`."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="safetensors or PyTorch checkpoint, folder in the layout of diffusers, or "
        f"{' or '.join(BUILTIN_NAMES)}",
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--version",
        choices=tuple(VERSIONS),
        help="of DiffBIR (default: by the name of the IRControlNet's file)",
    )
    parser.add_argument(
        "--size",
        metavar="PIXELS",
        type=_side,
        default=DEFAULT_SIDE,
        help=f"side of the picture that files of a DiffBIR make together (default: {DEFAULT_SIDE}; "
        "512 is what it was trained at)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="write the report here instead of to stdout"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < PADDED_MULTIPLE or int(text) % PADDED_MULTIPLE:
        raise argparse.ArgumentTypeError(
            f"expected a multiple of {PADDED_MULTIPLE} pixels, but {text} came"
        )
    return int(text)


def run(options: VerifyOptions) -> int:
    """Check the files and write the report.

    Raises:
        BIRError: a device that is not there, or an output that cannot be written.
    """
    if options.output is not None:
        require_free(options.output, overwrite=options.overwrite)
        with writing(options.output, REPORT):  # now, not after the work
            tempfile.TemporaryFile(dir=options.output.parent).close()
    conditions = Conditions(
        device=choose_device(options.device),
        dtype=DTYPES[options.dtype],
        side=options.size,
        version=options.version,
    )
    where = environment(conditions)
    with tqdm(desc="files", unit="file", disable=None) as bar:

        def tell(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(what)
            bar.update(done - bar.n)

        verification = verify(options.files, conditions, tell)
    text = (as_json if options.json else as_markdown)(verification, where)
    if options.output is None:
        write_line(text)
    else:
        write_text(options.output, text + "\n", REPORT)
    return 0 if verification.passed else 1
