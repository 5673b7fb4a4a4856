"""Multiply-adds and traffic of a network, counted on PyTorch's device `meta`: without memory for
weights or maps, and without computing anything."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# The name of what a network does itself, between its parts: sums, resizing, joining of maps.
BETWEEN = "between the parts"
# It hands on memory that it got, though its schema does not say so.
ALSO_VIEWS = (torch.ops.aten._unsafe_view.default,)
# They read no more of their table than they give.
GATHERING = (torch.ops.aten.embedding.default, torch.ops.aten.index.Tensor)


@dataclass(frozen=True)
class Cost:
    """What a part of a network, or all of it, takes in one call.

    Attributes:
        parameters: their number, each once.
        multiply_adds: of convolutions, linear layers and attention, as papers count them; a
            multiplication with the addition after it is one.
        read, written: bytes that the operations take from memory and put there, each by itself and
            without caches: inputs, weights included, and outputs.
    """

    parameters: int = 0
    multiply_adds: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.read + other.read,
            self.written + other.written,
        )

    def calls(self, count: int) -> "Cost":
        """Of so many calls; the parameters stay."""
        return Cost(
            self.parameters, self.multiply_adds * count, self.read * count, self.written * count
        )


def total(parts: Mapping[str, Cost]) -> Cost:
    """The sum of all parts."""
    return sum(parts.values(), Cost())


def count(
    network: nn.Module, call: Callable[[nn.Module], object], *, depth: int = 1
) -> dict[str, Cost]:
    """What one call of a network takes, by part, in the type of its weights.

    Args:
        network: on the device `meta`.
        call: runs the network on inputs on `meta`, which are made before the network is called.
        depth: parts are called by so many of the names that lead to them.

    Returns:
        From the names of the parts, in their order, to their cost; `BETWEEN` last, if there is any.
    """

    def part(names: list[str]) -> str:
        return ".".join(names[:depth]) or BETWEEN

    found: dict[str, Cost] = {}
    for name, parameter in network.named_parameters():
        owner = part(name.split(".")[:-1])
        found[owner] = found.get(owner, Cost()) + Cost(parameters=parameter.numel())
    running: list[str] = [""]

    def add(cost: Cost) -> None:
        owner = part(list(filter(None, running[-1].split("."))))
        found[owner] = found.get(owner, Cost()) + cost

    with _names_of_running(network, running), torch.no_grad(), _Attention(add), _Operations(add):
        call(network)
    between = found.pop(BETWEEN, None)
    return found if between is None else {**found, BETWEEN: between}


@contextmanager
def _names_of_running(network: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the names of the modules that are at work, the innermost last."""

    def entering(name: str) -> Callable[..., None]:
        return lambda module, inputs: running.append(name)

    def leaving(module: nn.Module, inputs: object, output: object) -> None:
        running.pop()

    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_pre_hook(entering(name)).remove)
            stack.callback(module.register_forward_hook(leaving).remove)
        yield


class _Attention(TorchFunctionMode):
    """Attention is one operation, as PyTorch runs it where it can: its matrix never comes to the
    memory. On `meta` it would be taken apart."""

    def __init__(self, add: Callable[[Cost], None]) -> None:
        super().__init__()
        self.add = add

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        tensors = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
        query, key, value = tensors[:3]
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        multiply_adds = query.numel() * key.shape[-2] + out.numel() * key.shape[-2]
        self.add(Cost(0, multiply_adds, _bytes(tensors), _bytes([out])))
        return out


# torch leaves this class untyped
class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """All operations below: those that PyTorch's table knows have multiply-adds, and those that do
    not only look at memory in another way move bytes."""

    def __init__(self, add: Callable[[Cost], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.add = add

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = _tensors((args, kwargs or {}))
        allocates = not inputs or func.name().startswith("aten::new_empty")
        if allocates or func.is_view or func in ALSO_VIEWS:
            return out
        operations = 0
        if func.overloadpacket in flop_registry:
            operations = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        written = _bytes(_tensors(out))
        read = written + _bytes(inputs[1:]) if func in GATHERING else _bytes(inputs)
        self.add(Cost(0, operations // 2, read, written))
        return out


def _tensors(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if not isinstance(value, tuple | list):
        return []
    return [tensor for each in value for tensor in _tensors(each)]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(prod(tensor.shape) * tensor.element_size() for tensor in tensors)
