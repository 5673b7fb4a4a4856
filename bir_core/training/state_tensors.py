"""Whether the tensors of a state are those of a training, before any of them is taken up."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.completeness import dtype_name, weight_differences
from ..errors import BIRError, shown, shown_path
from ..images import is_finite
from .phases import Update
from .state import TrainingState, with_prefix

OPTIMIZERS = "optimizer"
# What AdamW keeps of a parameter; `step` is a single number.
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def require_state_of(
    state: TrainingState,
    networks: Mapping[str, nn.Module],
    updates: tuple[Update, ...],
    path: Path,
) -> None:
    """Compare a state with the training that is to go on from it.

    Args:
        networks: those that the state holds, by the first parts of their names in it.
        updates: of the phase that the state was saved in.
        path: of the state, for the error.

    Raises:
        BIRError: tensors that are absent, foreign, of another shape or type, or not finite.
    """
    own = {
        name: value
        for prefix, network in networks.items()
        for name, value in with_prefix(prefix, network.state_dict()).items()
    }
    expected = own | _expected_moments(state, updates, path)
    differences = weight_differences(expected, state.tensors)
    differences.require_none(f"the training state {shown_path(path)}")
    for name, value in state.tensors.items():
        own_type = expected[name].dtype
        if value.dtype == own_type and is_finite(value):
            continue
        found = "with NaN or infinity"
        if value.dtype != own_type:
            found = f"{dtype_name(value.dtype)} instead of {dtype_name(own_type)}"
        raise BIRError(
            f"Expected weights as finite losses leave them in the training state "
            f"{shown_path(path)}, but {shown(name)} came {found}; start again without --resume."
        )


def _expected_moments(
    state: TrainingState, updates: tuple[Update, ...], path: Path
) -> dict[str, Tensor]:
    """What the optimisers keep of the parameters that the state has anything of: those of parts
    that no gradient reached have nothing."""
    expected: dict[str, Tensor] = {}
    for update in updates:
        prefix = f"{OPTIMIZERS}.{update.name}"
        present = {name.partition(".")[0] for name in state.part(prefix)}
        known = [index for index in range(len(update.parameters)) if f"{index}" in present]
        if not known:
            raise BIRError(
                f"Expected the moments of the optimiser {update.name} in the training state "
                f"{shown_path(path)}, but it has none; start again without --resume."
            )
        for index in known:
            values = {name: update.parameters[index].detach() for name in MOMENTS}
            values[STEP] = torch.zeros(())
            expected |= with_prefix(f"{prefix}.{index}", values)
    return expected
