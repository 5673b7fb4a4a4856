"""Whether tensors are all the weights of a network, and nothing else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import BIRError

MOST_NAMES = 3


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
                    f"{', '.join(keys[:MOST_NAMES])}{more}; "
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
