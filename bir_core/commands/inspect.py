"""Say what a checkpoint file is, without building the network, and whether its checksums, if it has
any, are right. A published file is also known by its name: what for, where from, its licence.

Of a picture, say what is wrong with it: blur, noise, JPEG, enlargement, edges, colours and
contrast, each with what it may be off by.

With --cost say what a network computes and moves for a picture of a size, by part:

  bir inspect builtin-diffir-x4 --cost 640x480
  bir inspect realsr_x4 --cost                      # a published network, by its name
  bir inspect diffbir-v2.1 --cost 128x128 --steps 20    # a whole run of DiffBIR"""

import argparse
import dataclasses
import json
from typing import Any

from ..checkpoints import ModelInfo, inspect
from ..checkpoints.completeness import dtype_name
from ..checkpoints.files import model_file, require_whole
from ..command_line.options import Values, option_names, picture_size, read_options, write_line
from ..diffbir import arguments as diffbir
from ..diffbir.method import DiffBIROptions
from ..errors import BIRError
from ..models import KnownFile, known_file
from ..weights import BUILTIN_NAMES
from .inspect_cost import NETWORKS, RUNS, inspect_cost
from .inspect_picture import inspect_picture, is_picture

SIZE = (256, 256)  # height and width in pixels, as the papers count


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What `bir inspect` is asked for; as its arguments.

    Attributes:
        cost: height and width in pixels of the picture that the cost is for; None for no cost.
        of_run, given: of a whole run, and which of its options were given.
    """

    file: str
    json: bool = False
    cost: tuple[int, int] | None = None
    of_run: DiffBIROptions = DiffBIROptions()
    given: tuple[str, ...] = ()


def read(values: Values) -> InspectOptions:
    """The options by a parser's values."""
    given = [name for name in option_names(_add_run_arguments) if values[name] is not None]
    of_run = diffbir.read(DiffBIROptions, values)
    return read_options(InspectOptions, {**values, "of_run": of_run, "given": given})


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("A run of DiffBIR", f"only with --cost of {', '.join(RUNS)}")
    diffbir.add_cost_arguments(group)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir inspect`."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help=f"safetensors or PyTorch checkpoint, or {' or '.join(BUILTIN_NAMES)}; or a picture",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.add_argument(
        "--cost",
        metavar="WIDTHxHEIGHT",
        nargs="?",
        const=SIZE,
        type=picture_size,
        help="parameters, multiply-adds and bytes read and written, by part, for a picture of this "
        "size in pixels that comes in (default of the option: 256x256); FILE may also be a "
        f"published network, {', '.join(NETWORKS)}, or a whole run, "
        f"{', '.join(RUNS)}",
    )
    _add_run_arguments(parser)


def run(options: InspectOptions) -> int:
    """Write the facts or the cost of a checkpoint, or what is wrong with a picture, to stdout.

    Raises:
        BIRError: unreadable, of no known kind, the cost of a picture, or options that only the
            cost of a run has for anything else.
    """
    if options.cost is not None:
        if is_picture(options.file):
            raise BIRError(
                f"Expected a network with --cost, but {options.file} is a picture; name a file of "
                "weights or a network."
            )
        return inspect_cost(
            options.file, options.cost, options.of_run, options.given, as_json=options.json
        )
    if options.given:
        raise BIRError(
            f"Expected --cost with --{options.given[0].replace('_', '-')}, which is of a run's "
            "cost, but it is not there; add it, or leave the option out."
        )
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
