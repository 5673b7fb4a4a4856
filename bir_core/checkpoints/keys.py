"""Wrappers and key names of checkpoint files, brought to one form."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

StateDict = dict[str, Tensor]

# What trainers wrap a state dict in, the preferred first.
WRAPPERS = ("params_ema", "params", "state_dict")
DATA_PARALLEL = "module."
LIGHTNING_GENERATOR = "generator."
# The derived tables of DiffIR's schedule, which follow from `diffusion.betas`.
DIFFIR_TABLES = tuple(
    f"diffusion.{name}"
    for name in (
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    )
)
# DiffIR's official stage 2 saves two of its modules twice.
DIFFIR_ALIASES = {"diffusion.model.": "denoise.", "diffusion.condition.": "condition."}


def unwrap(content: Mapping[str, Any]) -> StateDict:
    """The tensors of a checkpoint under the names that the network itself uses.

    Takes `params_ema`, else `params`, else `state_dict`; strips `module.` (data parallel); of a
    Lightning file keeps the generator only, without its prefix. Does not change `content`.
    """
    wrapper = _wrapper(content)
    if wrapper is not None:
        content = content[wrapper]
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    tensors = _strip(tensors, DATA_PARALLEL, keep_others=True)
    if any(name.startswith(LIGHTNING_GENERATOR) for name in tensors):
        tensors = _strip(tensors, LIGHTNING_GENERATOR, keep_others=False)
    return tensors


def _wrapper(content: Mapping[str, Any]) -> str | None:
    return next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)


def wrapping(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What `unwrap` takes away: the key that the tensors lie under, and prefixes of their names."""
    wrapper = _wrapper(content)
    names = [str(name) for name in (content if wrapper is None else content[wrapper])]
    inner = [name.removeprefix(DATA_PARALLEL) for name in names]
    found = [wrapper] if wrapper else []
    if inner != names:
        found.append(DATA_PARALLEL)
    if any(name.startswith(LIGHTNING_GENERATOR) for name in inner):
        found.append(LIGHTNING_GENERATOR)
    return tuple(found)


def _strip(tensors: StateDict, prefix: str, *, keep_others: bool) -> StateDict:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if keep_others or name.startswith(prefix)
    }


def part(tensors: StateDict, prefix: str) -> StateDict:
    """The tensors below `prefix`, without it; all of them where the file has no such prefix."""
    return _strip(tensors, prefix, keep_others=False) or tensors


def without_diffir_duplicates(tensors: StateDict) -> StateDict:
    """Drop the derived tables and the second copies of official DiffIR files; a copy whose
    original is absent (a file that lost one of the two) takes its place."""
    kept = {name: value for name, value in tensors.items() if name not in DIFFIR_TABLES}
    originals = {name: _diffir_original(name) for name in kept}
    copies = {originals[name]: value for name, value in kept.items()}
    return copies | {name: value for name, value in kept.items() if originals[name] == name}


def _diffir_original(name: str) -> str:
    for alias, original in DIFFIR_ALIASES.items():
        if name.startswith(alias):
            return original + name.removeprefix(alias)
    return name


def count_modules(tensors: Mapping[str, Tensor], key: str, start: int = 0) -> int:
    """How many consecutive indices from `start` on are present; `key` holds {} for the index."""
    count = 0
    while key.format(start + count) in tensors:
        count += 1
    return count
