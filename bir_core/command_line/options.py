"""Arguments and output that several sub-commands share.

Here ends what knows of argparse: each command and each method reads the parser's values into a
frozen dataclass of its own (`read_options`), and what lies below takes that.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..errors import BIRError
from ..models import ENVIRONMENT
from ..seeds import SEEDS
from .console import write_error as write_error
from .console import write_line as write_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
# The values of a parser by their names; None for what was not given and has no default.
Values = Mapping[str, Any]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SLOW_ON_CPU = {"float16": "a CPU", "bfloat16": "a CPU without instructions for it"}


def positive(text: str) -> int:
    """Type of an argument: a whole number from 1 on."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, but {text} came")
    return number


def seed(text: str) -> int:
    """Type of an argument: a whole number from 0 to 2^64 - 1."""
    number = _whole(text)
    if not 0 <= number < SEEDS:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 to {SEEDS - 1}, but {text} came"
        )
    return number


def picture_size(text: str) -> tuple[int, int]:
    """Type of an argument: WIDTHxHEIGHT in pixels, to height and width."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected a size in pixels such as 640x480, but {text} came"
        )
    return int(found[2]), int(found[1])


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, but {text} came") from error


def read_options(kind: type[Options], values: Values) -> Options:
    """A dataclass of options from a parser's values of the same names; what was not given keeps the
    dataclass's default, and lists become tuples."""
    given = {field.name: values.get(field.name) for field in fields(kind) if field.init}
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }
    )


def option_names(add_arguments: Callable[[argparse.ArgumentParser], None]) -> list[str]:
    """The names of the values that `add_arguments` adds to those of a parser."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return list(vars(parser.parse_args([])))


def add_picture_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """The input, a picture or a folder, and an output called `output`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="picture or folder of pictures")
    parser.add_argument(
        output,
        metavar=output.upper(),
        type=Path,
        help="file or existing folder for a picture; folder, made if needed, for a folder",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """--device and --dtype."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto)",
    )
    parser.add_argument(
        "--dtype",
        choices=tuple(DTYPES),
        default="float32",
        help="number format of the computation (default: float32)",
    )


def add_models_argument(parser: argparse.ArgumentParser) -> None:
    """--models; None if it was not given."""
    parser.add_argument(
        "--models",
        metavar="FOLDER",
        type=Path,
        help=f"where files are looked for by their names, laid out as ComfyUI's models (default: "
        f"the variable {ENVIRONMENT}, or else those of the ComfyUI that this package lies in)",
    )


def half_precision(options: Any, device: torch.device) -> dict[str, Callable[[Any], Any]]:
    """The saving of a method (`methods.Savings`) whose options have a `dtype`."""
    if options.dtype != "float32":
        return {}
    words = "--dtype float16" + (" (slow on a CPU)" if device.type == "cpu" else "")
    return {words: lambda options: replace(options, dtype="float16")}


def hint_at_dtype(dtype: str, device: torch.device) -> None:
    """Say on stderr where half precision is slow: on a CPU."""
    if device.type == "cpu" and dtype in SLOW_ON_CPU:
        write_error(
            f"--dtype {dtype} is slow on {SLOW_ON_CPU[dtype]}, and less exact than float32, which "
            "is taken without the option"
        )


def choose_device(name: str) -> torch.device:
    """The device for an argument of --device.

    Raises:
        BIRError: this machine or this torch has none of that kind.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[name]:
        raise BIRError(
            f"Expected a device that this machine has, but --device {name} came and torch "
            f"{torch.__version__} finds none; leave the option out or use --device cpu."
        )
    return torch.device(name)
