"""Say what a checkpoint file is, without building the network, and whether its checksums, if it has
any, are right. A published file is also known by its name: what for, where from, its licence.

Of a picture, say what is wrong with it: blur, noise, JPEG, enlargement, edges, colours and
contrast, each with what it may be off by."""

import argparse
import dataclasses
import json
from functools import partial
from typing import Any

from ..checkpoints import ModelInfo, inspect
from ..checkpoints.completeness import dtype_name
from ..checkpoints.files import model_file, require_whole
from ..command_line.options import read_options, write_line
from ..models import KnownFile, known_file
from ..weights import BUILTIN_NAMES
from .inspect_picture import inspect_picture, is_picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What `bir inspect` is asked for; as its arguments."""

    file: str
    json: bool = False


read = partial(read_options, InspectOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir inspect`."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help=f"safetensors or PyTorch checkpoint, or {' or '.join(BUILTIN_NAMES)}; or a picture",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")


def run(options: InspectOptions) -> int:
    """Write the facts of a checkpoint, or what is wrong with a picture, to stdout."""
    if is_picture(options.file):
        return inspect_picture(options.file, as_json=options.json)
    facts = _facts(inspect(options.file))
    require_whole(model_file(options.file))
    known = known_file(options.file)
    if options.json:
        published = None if known is None else dataclasses.asdict(known)
        write_line(json.dumps({**facts, "published": published}, indent=2))
        return 0
    config = facts.pop("config")
    facts["parameters"] = f"{facts['parameters']:,}"
    by_name = {} if known is None else _by_name(known)
    for name, value in (facts | config | by_name).items():
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        write_line(f"{name + ':':24}{shown}")
    return 0


def _facts(info: ModelInfo) -> dict[str, Any]:
    return dataclasses.asdict(info) | {"dtype": dtype_name(info.dtype)}


def _by_name(known: KnownFile) -> dict[str, str]:
    return {
        "by its name": known.name,
        "for": known.purpose,
        "from": known.source,
        "licence": known.licence,
        "commercial use": known.commercial,
    }
