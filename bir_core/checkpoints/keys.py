"""Wrappers and key names of checkpoint files, brought to one form."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import BIRError, shown

StateDict = dict[str, Tensor]

# What trainers wrap a state dict in, the preferred first; in several layers, too.
WRAPPERS = (
    *("params_ema", "params-ema", "params", "state_dict_ema", "state_dict"),
    *("model_ema", "ema", "model_state_dict", "model_state", "model"),
    *("generator", "netG", "net_g", "net", "network", "weights"),
)
DATA_PARALLEL = "module."
COMPILED = "_orig_mod."  # torch.compile puts it before each part that it compiles
LIGHTNING_GENERATOR = "generator."
# Of a class around the network, if all names begin so.
ATTRIBUTES = ("netG.", "net_g.", "net.", "network.", "model.")
MOST_WRAPPERS = 3  # around each other
# What begins with `model.` by itself: Stable Diffusion, and chains of layers such as ESRGAN.
_OWN_MODEL = re.compile(r"model\.(\d+|diffusion_model)\.")


def unwrap(content: Mapping[str, Any]) -> StateDict:
    """The tensors of a checkpoint under the names that the network itself uses.

    Takes the first of `WRAPPERS` that holds tensors; strips `module.` (data parallel),
    `_orig_mod.` (torch.compile) and the attribute of a class around the network; of a Lightning
    file keeps the generator only, without its prefix. Does not change `content`.

    Raises:
        BIRError: a tensor without a name, or two that come to the same one.
    """
    return _unwrapped(content)[0]


def wrapping(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What `unwrap` takes away: the keys that the tensors lie under, and parts of their names."""
    return _unwrapped(content)[1]


def _unwrapped(content: Mapping[Any, Any]) -> tuple[StateDict, tuple[str, ...]]:
    found: list[str] = []
    while (wrapper := _wrapper(content)) is not None and len(found) < MOST_WRAPPERS:
        found.append(wrapper)
        content = content[wrapper]
    tensors: StateDict = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            if not isinstance(name, str):
                raise BIRError(
                    "Expected names of weights in the checkpoint, but a tensor has the key "
                    f"{shown(repr(name))}; save the network's state dict instead."
                )
            tensors[name] = value
    plain = _with_plain_names(tensors)
    if plain.keys() != tensors.keys():
        names = "".join(f".{name}" for name in tensors)
        found += [part for part in (DATA_PARALLEL, COMPILED) if f".{part}" in names]
    for prefix in (*_attribute(plain), LIGHTNING_GENERATOR):
        inner = below(plain, prefix)
        if inner:
            found.append(prefix)
            plain = inner
    return plain, tuple(found)


def _wrapper(content: Mapping[Any, Any]) -> str | None:
    """The key that the tensors lie under: one that holds some, or else the first that could."""
    known = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
    holding = (name for name in known if _holds_tensors(content[name], MOST_WRAPPERS))
    return next(holding, known[0] if known and not _holds_tensors(content, 1) else None)


def _holds_tensors(content: Mapping[Any, Any], layers: int) -> bool:
    if any(isinstance(value, Tensor) for value in content.values()):
        return True
    inner = (content.get(name) for name in WRAPPERS)
    return layers > 1 and any(
        isinstance(value, Mapping) and _holds_tensors(value, layers - 1) for value in inner
    )


def _plain_name(name: str) -> str:
    """A name without the parts that wrappers of the whole network, or compiled parts, bring in."""
    parts = [part for part in name.split(".") if part != COMPILED.strip(".")]
    while len(parts) > 1 and parts[0] == DATA_PARALLEL.strip("."):
        del parts[0]
    return ".".join(parts)


def _with_plain_names(tensors: StateDict) -> StateDict:
    renamed: StateDict = {}
    origins: dict[str, str] = {}
    for name, value in tensors.items():
        new = _plain_name(name)
        if new in renamed:
            raise BIRError(
                f"Expected each weight once in the checkpoint, but it has {shown(origins[new])} "
                f"and {shown(name)}, which are the same; the file is damaged, choose another."
            )
        renamed[new], origins[new] = value, name
    return renamed


def _attribute(tensors: StateDict) -> list[str]:
    """The attribute that all names begin with, if there is one."""
    if any(_OWN_MODEL.match(name) for name in tensors):
        return []
    begin = [prefix for prefix in ATTRIBUTES if all(name.startswith(prefix) for name in tensors)]
    return begin[:1]


def below(tensors: Mapping[str, Tensor], prefix: str) -> StateDict:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def part(tensors: StateDict, prefix: str) -> StateDict:
    """The tensors below `prefix`; all of them where the file has no such prefix."""
    return below(tensors, prefix) or tensors


def count_modules(tensors: Mapping[str, Tensor], key: str, start: int = 0) -> int:
    """How many consecutive indices from `start` on are present; `key` holds {} for the index."""
    count = 0
    while key.format(start + count) in tensors:
        count += 1
    return count
