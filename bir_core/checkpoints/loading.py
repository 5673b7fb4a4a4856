"""From a file, a folder, a built-in name or a state dict to a network."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BIRError, shown, shown_path
from ..images import is_finite
from .architectures import (
    ARCHITECTURES,
    FOLDERS,
    Architecture,
    ModelInfo,
    foreign_kind,
    networks_in,
)
from .completeness import WeightDifferences, require_weights, weight_differences
from .diffusers import network_file
from .files import model_file, open_checkpoint
from .keys import StateDict, unwrap
from .origin import Origin
from .stored import enough_memory

Source = str | Path | Mapping[str, Any]
# What sizes that do not belong together lead to, where a configuration is read or a network built.
ODD_SIZES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)


@contextmanager
def _opened(
    source: Source, wanted: Sequence[str]
) -> Iterator[tuple[StateDict, Callable[[Tensor], Tensor], Origin]]:
    """The unwrapped tensors of a source, a function that gives one with its numbers, and where they
    come from."""
    if not isinstance(source, str | Path):
        yield unwrap(source), lambda tensor: tensor, Origin()
        return
    path = model_file(source)
    if len(wanted) == 1 and os.path.isdir(path):
        path = _file_in(path, wanted[0])
    with open_checkpoint(path) as checkpoint:
        origin = Origin(path.name, checkpoint.metadata)
        yield unwrap(checkpoint.content), checkpoint.read, origin


def _file_in(folder: Path, network: str) -> Path:
    """The file of a network in a folder in the layout of diffusers, which holds several."""
    if network not in FOLDERS:
        raise BIRError(
            f"Expected a file for the network {network}, but found a folder at {folder}, "
            f"in which only {', '.join(FOLDERS)} are looked for; give the file itself."
        )
    return network_file(folder / FOLDERS[network])


def _name(source: Source) -> str:
    return shown_path(source) if isinstance(source, str | Path) else "the state dict"


def _network(
    tensors: StateDict, wanted: Sequence[str], name: str
) -> tuple[Architecture, StateDict]:
    """The row of the network that tensors hold, among the `wanted` ones if there are any, and its
    own tensors in canonical form."""
    rows = [row for row in ARCHITECTURES if not wanted or row.name in wanted]
    if not rows:
        names = ", ".join(row.name for row in ARCHITECTURES)
        raise BIRError(
            f"Expected one of the architectures {names}, but {wanted[0]!r} came; choose one of "
            "these."
        )
    for row in rows:
        own = row.canonical(tensors)
        if row.holds(own):
            return row, own
    other = next(iter(networks_in(tensors)), None)
    expected = " or ".join(row.description for row in rows)
    if other is not None:
        raise BIRError(
            f"Expected a {expected} file, but {name} is a {other.description} file, "
            f"{other.belongs}; choose a {expected} file."
        )
    keys = ", ".join(shown(key) for key in list(tensors)[:5])
    guess = foreign_kind(tensors) or (
        f"its first keys are {keys}" if keys else "it holds no tensors"
    )
    raise BIRError(f"Expected a {expected} file, but {name} is none: {guess}; choose another file.")


def _info(row: Architecture, tensors: StateDict) -> ModelInfo:
    """Of tensors in canonical form."""
    require_weights(tensors, f"a {row.description}")
    try:
        config = row.config(tensors)
    except KeyError as error:
        raise BIRError(
            f"Expected a {row.description} file, but its layer {shown(error)} is of an unknown "
            "size or absent; the file is damaged or of another network."
        ) from error
    except ODD_SIZES as error:
        raise _odd_sizes(row, error) from error
    variant = next((name for name, known in row.variants.items() if known == config), "custom")
    return ModelInfo(
        architecture=row.name,
        variant=variant,
        task=row.task or getattr(config, "task", ""),
        scale=getattr(config, "scale", 1),
        config=config,
        parameters=sum(
            value.numel() for name, value in tensors.items() if name not in row.optional
        ),
        dtype=tensors[row.required[0]].dtype,
        size_multiple=config.size_multiple,
        may_be_tiled=row.may_be_tiled,
        half_precision=row.half_precision,
    )


def _odd_sizes(row: Architecture, error: Exception) -> BIRError:
    return BIRError(
        f"Expected a {row.description} file, but the shapes of its layers do not belong together "
        f"({type(error).__name__}: {shown(error)}); the file is damaged or of another network."
    )


def _built(row: Architecture, info: ModelInfo, **arguments: Any) -> nn.Module:
    """The network without numbers."""
    try:
        with torch.device("meta"):
            return row.build(info.config, **arguments)
    except ODD_SIZES as error:
        raise _odd_sizes(row, error) from error


def _wanted(architecture: str | None) -> tuple[str, ...]:
    return () if architecture is None else (architecture,)


def inspect(source: Source, *, architecture: str | None = None) -> ModelInfo:
    """Say what a checkpoint is. Of a file, only the names, types and shapes are read.

    Args:
        source: as in `load_model`.
        architecture: the network to look for in a file that holds several, such as a Stable
            Diffusion checkpoint (`sd_unet`, `sd_vae`); None takes the first of `ARCHITECTURES`.

    Raises:
        BIRError: unreadable (see `open_checkpoint`) or of no known, or of another, architecture.
    """
    with _opened(source, _wanted(architecture)) as (tensors, *_):
        return _info(*_network(tensors, _wanted(architecture), _name(source)))


def outline(source: Source, *, architecture: str | None = None) -> nn.Module:
    """The network that a checkpoint holds, on the device `meta`: shapes without numbers.

    Args:
        source, architecture: as in `inspect`.

    Returns:
        The network in eval mode; its attribute `info` is the `ModelInfo`.

    Raises:
        BIRError: as `inspect`.
    """
    wanted = _wanted(architecture)
    with _opened(source, wanted) as (tensors, *_):
        row, own = _network(tensors, wanted, _name(source))
        info = _info(row, own)
    model = _built(row, info)
    model.info = info  # type: ignore[assignment]
    return model.eval()


def find_architecture(source: Source, names: Sequence[str]) -> str:
    """Which of several architectures a checkpoint holds: the first one in the order of
    `ARCHITECTURES`.

    Raises:
        BIRError: unreadable, or of none of them.
    """
    with _opened(source, names) as (tensors, *_):
        return _network(tensors, names, _name(source))[0].name


def origin_of(source: Source, architecture: str) -> Origin:
    """Where a network would come from, without its weights.

    Raises:
        BIRError: unreadable, or of another architecture.
    """
    wanted = _wanted(architecture)
    with _opened(source, wanted) as (tensors, _, origin):
        _network(tensors, wanted, _name(source))
        return origin


def networks_of(source: str | Path) -> list[Architecture]:
    """The rows of all networks in the file of a path or a built-in name, in the order of the table;
    none for what is not known here.

    Raises:
        BIRError: unreadable.
    """
    with _opened(source, ()) as (tensors, *_):
        return networks_in(tensors)


def describe(row: Architecture, tensors: StateDict) -> tuple[ModelInfo, WeightDifferences]:
    """What the network of a row is in a file that holds it, and how its weights differ from those
    that a network of these sizes has.

    Args:
        tensors: as from `keys.unwrap`.

    Raises:
        BIRError: sizes that cannot be read, or of a network that is not known here.
    """
    own = row.canonical(tensors)
    info = _info(row, own)
    return info, weight_differences(_built(row, info).state_dict(), own, row.optional)


def load_model(
    source: Source,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    architecture: str | None = None,
    operations: Any = nn,
) -> nn.Module:
    """Build the network that a checkpoint holds, ready to run.

    Of a file only this network's weights are read, one after the other, into memory of their own:
    what happens to the file afterwards does not matter.

    Args:
        source: a file, a folder in the layout of diffusers, the name of a built-in model
            (`weights.BUILTIN_NAMES`), or the dictionary read from a file; in any known wrapper.
        device: where the weights go.
        dtype: what the weights become; None is float32, also from a file stored in half precision.
        architecture: refuse every other one (`diffir_s2`, ...), and take this one's part of a file
            that holds several: `sd_unet`, `sd_vae` or `text_encoder` of a Stable Diffusion
            checkpoint; these, `ir_controlnet` or `swinir` of a full file of DiffBIR v1. None takes
            the first of `ARCHITECTURES` that the file holds.
        operations: the namespace of the layer classes, `torch.nn` or one that a host brings.

    Returns:
        The network in eval mode, without gradients; its attribute `info` is the `ModelInfo`, and
        `origin` the `Origin`.

    Raises:
        BIRError: as `inspect`; weights that are absent, too many, of another shape, NaN or
            infinite; or too little memory for them.
    """
    wanted, name = _wanted(architecture), _name(source)
    with _opened(source, wanted) as (tensors, read, origin):
        row, canonical = _network(tensors, wanted, name)
        info = _info(row, canonical)
        model = _built(row, info, operations=operations)
        own = model.state_dict()
        differences = weight_differences(own, canonical, row.optional)
        differences.require_none(f"{name} ({row.description})")

        def converted(key: str, tensor: Tensor) -> Tensor:
            with enough_memory(name):
                value = read(tensor)
                if not is_finite(value):
                    raise BIRError(
                        f"Expected finite weights in {name}, but {shown(key)} holds NaN or "
                        "infinity; the training that made it diverged or the file is damaged: "
                        "choose another file."
                    )
                return value.to(device, dtype or torch.float32)

        used = {id(value) for value in canonical.values()}
        # Where a layout joins or reshapes tensors on the way, all of the file are this network's.
        every = not used <= {id(value) for value in tensors.values()}
        weights = row.canonical(
            {
                key: converted(key, value) if every or id(value) in used else value
                for key, value in tensors.items()
            }
        )
    # What a file may lack follows from the configuration.
    own = {
        key: weights[key] if key in weights else value.to(device, dtype or torch.float32)
        for key, value in own.items()
    }
    model.load_state_dict(own, strict=True, assign=True)
    model.eval().requires_grad_(False)
    # torch types attributes as tensors or modules
    model.info = info  # type: ignore[assignment]
    model.origin = origin  # type: ignore[assignment]
    return model
