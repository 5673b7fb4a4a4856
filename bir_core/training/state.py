"""The state of a training: one safetensors file that replaces the one before when complete."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..checkpoints.files import open_checkpoint, write_tensors
from ..checkpoints.keys import below
from ..checkpoints.origin import HEADER_KEY
from ..errors import BIRError, shown

STATE_FILE = "state.safetensors"
START_AGAIN = "start again without --resume"


@dataclass(frozen=True)
class TrainingState:
    """What is needed to go on.

    Attributes:
        iteration: the last one that is done.
        tensors: networks, averages, optimiser states and pools, by dotted names.
        recipe: the recipe's table.
        processes: how many took part.
        best: best value of validation so far; None before the first.
    """

    iteration: int
    tensors: dict[str, Tensor]
    recipe: dict[str, Any]
    processes: int
    best: float | None

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below `name.`, without this prefix."""
        return below(self.tensors, f"{name}.")


def with_prefix(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names `name.*`."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Moments and step counts under names `<index of the parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; rates and betas stay as the optimiser has them."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            # A fused update walks through the memory of weights and moments side by side.
            if isinstance(value, Tensor) and value.stride() != parameter.stride() and value.dim():
                moments[name] = torch.empty_like(parameter).copy_(value)


def one_key(about: Mapping[str, Any]) -> dict[str, str]:
    """Header of a safetensors file. Several keys would come in a random order, and the bytes of
    equal trainings would differ."""
    return {HEADER_KEY: json.dumps(about)}


def model_header(iteration: int, recipe: Mapping[str, Any]) -> dict[str, str]:
    """What a model file says of its training. It may travel, so it does not say in which folder its
    start lay.

    Args:
        recipe: its table.
    """
    start = recipe.get("start_from")
    table = dict(recipe) if start is None else {**recipe, "start_from": Path(start).name}
    return one_key({"iteration": iteration, "recipe": table})


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state; what stood there before stays until the new file is complete.

    Raises:
        BIRError: it cannot be written (folder missing, disk full).
    """
    about = {
        "iteration": state.iteration,
        "recipe": state.recipe,
        "processes": state.processes,
        "best": state.best,
        "tensors": len(state.tensors),
    }
    write_part(path, state.tensors, one_key(about))


def write_part(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a part of the state; errors as `save_state`."""
    advice = "make space and go on with --resume: the state before is whole"
    write_tensors(path, tensors, "the training state", advice=advice, metadata=metadata)


def read_state(path: Path) -> TrainingState:
    """Read a state.

    Raises:
        BIRError: no state there, or a damaged one.
    """
    if not os.path.isfile(path):
        raise BIRError(
            f"Expected a training state at {path} to resume, but found none; "
            "start without --resume."
        )
    with open_checkpoint(path, START_AGAIN) as checkpoint:
        tensors = checkpoint.everything()
        metadata = checkpoint.metadata
    try:
        about = json.loads(metadata[HEADER_KEY])
        state = TrainingState(
            iteration=about["iteration"],
            tensors=tensors,
            recipe=about["recipe"],
            processes=about["processes"],
            best=about["best"],
        )
        # States of older versions do not say how many tensors they have.
        complete = about.get("tensors", len(tensors)) == len(tensors)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _no_state(path, f"{type(error).__name__}: {shown(error)}") from error
    if not complete:
        raise _no_state(path, f"{len(tensors)} of {shown(about['tensors'])} tensors are there")
    for name, right in (
        ("iteration", type(state.iteration) is int and state.iteration > 0),
        ("processes", type(state.processes) is int and state.processes > 0),
        ("recipe", isinstance(state.recipe, dict)),
        ("best", state.best is None or (type(state.best) is float and not isnan(state.best))),
    ):
        if not right:
            raise _no_state(path, f"its {name} is {shown(repr(about[name]))}")
    return state


def _no_state(path: Path, reason: str) -> BIRError:
    return BIRError(
        f"Expected a training state in {path}, but it is damaged or another file ({reason}); "
        f"{START_AGAIN}."
    )


def keep_last(folder: Path, count: int) -> None:
    """Remove all files model_<iteration>.safetensors but those of the last `count` iterations."""
    numbers = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := re.fullmatch(r"model_(\d+)\.safetensors", path.name))
    }
    for iteration in sorted(numbers)[:-count]:
        numbers[iteration].unlink()


def as_device(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies on a device."""
    return {name: value.to(device) for name, value in tensors.items()}
