"""Whether tensors are all the weights of a network, and nothing else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BIRError, shown
from ..images import is_finite

MOST_NAMES = 3
# What weights may be stored as.
WEIGHT_TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)


def dtype_name(dtype: torch.dtype) -> str:
    """As in `float32`."""
    return str(dtype).removeprefix("torch.")


def require_weights(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise BIRError for tensors that can be the weights of no network: of integers, booleans or
    complex numbers, empty, single numbers, or sparse. Sizes may be read from the others.

    Args:
        what: the network, for the sentence.
    """
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        found = None
        if tensor.dtype not in WEIGHT_TYPES or tensor.layout != torch.strided:
            found = f"is of the type {dtype_name(tensor.dtype)}"
            found += "" if tensor.layout == torch.strided else f" and {tensor.layout}"
        elif not shape or 0 in shape:
            found = f"has the shape {shape}"
        if found:
            raise BIRError(
                f"Expected weights of {what}, in float numbers, but {shown(name)} {found}; the "
                "file is damaged, quantised or of another network: choose another file."
            )


def require_sound(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise BIRError where a network has float numbers and the tensors of a file, under the same
    names, have others, NaN or infinity.

    Args:
        own: the network's state dict.
        what: file and network, for the sentence.
    """
    for name, value in own.items():
        if not value.is_floating_point() or name not in tensors:
            continue
        tensor = tensors[name]
        if tensor.dtype not in WEIGHT_TYPES or not is_finite(tensor):
            kind = f"numbers of {dtype_name(tensor.dtype)}"
            found = "NaN or infinity" if tensor.dtype in WEIGHT_TYPES else kind
            raise BIRError(
                f"Expected finite weights in {what}, but {shown(name)} holds {found}; the file is "
                "damaged: get it again."
            )


@dataclass(frozen=True)
class WeightDifferences:
    """How tensors differ from the weights that a network has.

    Attributes:
        absent: keys of the network that are not there.
        surplus: keys that the network does not have.
        differing: keys of another shape, with both shapes, in words.
    """

    absent: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    def require_none(self, what: str) -> None:
        """Raise BIRError if there is any; `what` names file and network in the sentence."""
        found = (("lacks", self.absent), ("has besides", self.surplus), ("has", self.differing))
        for problem, keys in found:
            if keys:
                more = " and more" if len(keys) > MOST_NAMES else ""
                raise BIRError(
                    f"Expected the weights of one network in {what}, but it {problem} "
                    f"{', '.join(shown(key, 160) for key in keys[:MOST_NAMES])}{more}; "
                    "the file is damaged or of a changed network."
                )


def weight_differences(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optional: Collection[str] = ()
) -> WeightDifferences:
    """Compare the weights of a network, which may lie on any device, with those of a file.

    Args:
        own: the network's state dict.
        tensors: the file's, under the same names.
        optional: keys that may be absent.
    """
    return WeightDifferences(
        absent=tuple(key for key in own if key not in tensors and key not in optional),
        surplus=tuple(key for key in tensors if key not in own),
        differing=tuple(
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in tensors and own[key].shape != tensors[key].shape
        ),
    )
