"""The methods of restoration, one row each. The commands read this table and name no method."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from .checkpoints.loading import find_architecture
from .command_line.options import Values, half_precision, positive, read_options
from .compact import method as compact
from .diffbir import arguments as diffbir_arguments
from .diffbir import method as diffbir
from .diffir import method as diffir
from .errors import BIRError
from .memory import MemoryPlan
from .weights import BUILTIN_NAMES, DEFAULT_DIFFIR, DEFAULT_MODEL

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# (name of the stage, steps done, steps in all); may raise to cancel.
Report = Callable[[str, int, int], None]
# (image (1, 3, H, W) in [0, 1], mask (1, 1, H, W) in [0, 1] or None, report) -> restored image
RestoreImage = Callable[[Tensor, Tensor | None, Report], Tensor]
# (height, width) of a picture -> what is planned, in words, and the plan
PlanImage = Callable[[int, int], tuple[str, MemoryPlan]]
# (image (1, 3, H, W) in [0, 1], seed) -> (1, 3, H scale, W scale)
RestoreSeeded = Callable[[Tensor, int], Tensor]
OwnOptions = TypeVar("OwnOptions", bound="DataclassInstance")
# (options, device) -> an option or its absence in words -> from options to those with it
Savings = Callable[[OwnOptions, torch.device], Mapping[str, Callable[[OwnOptions], OwnOptions]]]


@dataclass(frozen=True, kw_only=True)
class Method(Generic[OwnOptions]):
    """How the commands use a method.

    Attributes:
        options: the frozen dataclass of its own options. Of the options that methods share (see
            `add_network_arguments`) it takes those that have a field in it.
        read: from this dataclass and the values of the parser of `bir restore` or `bir plan`.
        prepare: loads what the options name for a device; also gives the sides of the output by
            those of the input, fractions of a pixel dropped.
        plan: from the options, a device and its memory in bytes; also gives the sides of the output
            as `prepare` does.
        savings: what may take less memory than the options do on a device, as `Savings`.
        add_arguments: to the parser of `bir restore`, the options that only this method takes;
            those that were not given stay None.
        add_plan_arguments: the same for `bir plan`.
        default_model: of --model, for a method that takes it; None: it must be given.
        networks: architectures whose file restores a picture by itself: from such a network and
            its name to what `bir evaluate` calls, and its scale.
    """

    options: type[OwnOptions]
    read: Callable[[type[OwnOptions], Values], OwnOptions] = read_options
    prepare: Callable[[OwnOptions, torch.device], tuple[RestoreImage, float]]
    plan: Callable[[OwnOptions, torch.device, int], tuple[PlanImage, float]]
    savings: Savings[OwnOptions] = lambda options, device: {}
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    add_plan_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    default_model: str | None = None
    networks: Mapping[str, Callable[[nn.Module, str], tuple[RestoreSeeded, int]]] = field(
        default_factory=dict
    )

    def takes(self, option: str) -> bool:
        """Whether it reads a shared option."""
        return option in {field.name for field in fields(self.options)}


METHODS: dict[str, Method[Any]] = {
    "compact": Method(
        options=compact.CompactOptions,
        prepare=compact.prepare,
        plan=compact.plan,
        savings=half_precision,
        default_model=DEFAULT_MODEL,
        networks={"compact": compact.open_network},
    ),
    "diffir": Method(
        options=diffir.DiffIROptions,
        prepare=diffir.prepare,
        plan=diffir.plan,
        savings=half_precision,
        default_model=DEFAULT_DIFFIR,
        networks={"diffir_s2": diffir.open_network},
    ),
    "diffbir": Method(
        add_arguments=diffbir_arguments.add_arguments,
        add_plan_arguments=diffbir_arguments.add_plan_arguments,
        options=diffbir.DiffBIROptions,
        read=diffbir_arguments.read,
        prepare=diffbir.prepare,
        plan=diffbir.plan,
        savings=diffbir.savings,
    ),
}


def takers(option: str) -> str:
    """The methods that take a shared option, in words."""
    return " or ".join(name for name, method in METHODS.items() if method.takes(option))


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bir restore` that several methods share; those that were not given stay
    None."""
    group = parser.add_argument_group("One network", f"only with --method {takers('model')}")
    add_model_argument(group)
    group.add_argument(
        "--strip",
        metavar="ROWS",
        type=positive,
        help="rows that are computed at a time; fewer take less memory; the result is the same "
        "(default: from free memory)",
    )
    masks = parser.add_argument_group("Mask", f"only with --method {takers('mask')}")
    masks.add_argument(
        "--mask",
        metavar="FILE|FOLDER",
        type=Path,
        help="for all pictures, or a folder of masks named like the pictures: for inpainting by "
        "DiffIR white in the hole (from middle grey on), black or transparent elsewhere; for "
        "DiffBIR see --painted",
    )


def add_model_argument(parser: argparse._ActionsContainer) -> None:
    """--model, of one network; None if it was not given."""
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help=f"{', '.join(BUILTIN_NAMES)} or a checkpoint file (default: {DEFAULT_MODEL})",
    )


def choose_method(method: str | None, model: str | None) -> tuple[str, str | None]:
    """Method and model: what was not given follows from the other.

    Raises:
        BIRError: as `method_of_model`, or no model where the method has no default.
    """
    name = method or method_of_model(model or DEFAULT_MODEL)
    chosen = model or METHODS[name].default_model
    if chosen is None and METHODS[name].takes("model"):
        raise BIRError(
            f"Expected --model for --method {name}, but none came; give the file of its network."
        )
    return name, chosen


def method_of_model(model: str) -> str:
    """The method that restores with a model: the name of a built-in one, or a file.

    Raises:
        BIRError: unreadable, or a file that no method restores with by itself.
    """
    methods = {
        architecture: name for name, method in METHODS.items() for architecture in method.networks
    }
    return methods[find_architecture(model, tuple(methods))]
