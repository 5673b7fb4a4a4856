"""Peak memory of the tensors that a call makes, on any device, and how many operations it takes.

What a process holds says little here: the allocator keeps what one call has freed for the next.
"""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Cost:
    """Of a call.

    Attributes:
        tensors: peak bytes of the tensors that it made.
        operations: those that compute or copy, views not among them; a device is given at least
            one kernel for each.
    """

    tensors: int
    operations: int


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts operations, and the bytes of the storages that they return, for as long as a tensor
    has them. What is mapped from a file is not among them.

    Attributes:
        peak: the most bytes at a time, since the beginning or the last `restart`.
        operations: as of `Cost`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By the storage itself: on "meta", which computes nothing, no storage has an address.
        self.tensors: Counter[int] = Counter()
        self.sizes: dict[int, int] = {}
        self.peak = 0
        self.operations = 0

    def restart(self) -> int:
        """The peak so far; the next begins with the tensors that are alive."""
        peak, self.peak = self.peak, sum(self.sizes.values())
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        outputs = func(*args, **(kwargs or {}))
        self.operations += not func.is_view
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self._add(leaf, before)
        return outputs

    def _add(self, tensor: Tensor, before: set[int]) -> None:
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity not in self.sizes:
            if identity in before:  # of a tensor that was there before the call
                return
            self.sizes[identity] = storage.nbytes()
            self.peak = max(self.peak, sum(self.sizes.values()))
        self.tensors[identity] += 1
        weakref.finalize(tensor, self._remove, identity)

    def _remove(self, identity: int) -> None:
        self.tensors[identity] -= 1
        if not self.tensors[identity]:
            del self.tensors[identity], self.sizes[identity]


def cost_of(call: Callable[[], Tensor]) -> tuple[Tensor, Cost]:
    """What a call returns, and what it costs. What the operations themselves take while they run is
    not counted."""
    with TensorMemory() as storages:
        result = call()
    return result, Cost(storages.peak, storages.operations)


def peak_tensors_of(call: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What a call returns, and the peak bytes of the tensors that it made, as of `cost_of`."""
    result, cost = cost_of(call)
    return result, cost.tensors
