"""Counts where the host would wait for a device, without one.

Tensors on `meta` stand for those of a device: they hold no numbers, so a read is not only counted
but has to be made up. What a copy in its turn would do is `memory.sent`, which is left out.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bir_core import tiling
from bir_core.diffusion import noise
from bir_core.exact_vae import maps

DEVICE = torch.device("meta")
READS = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
}
COPIES = {"aten::_to_copy", "aten::copy_"}
FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}


def _devices(values):
    return {value.device for value in values if isinstance(value, torch.Tensor)}


class _FromNumbers(TorchFunctionMode):
    """Counts tensors of the device that are made of numbers, which no dispatch tells of."""

    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in FROM_NUMBERS and result.device == DEVICE:
            self.counted.append(function.__name__)
        return result


class Waits(TorchDispatchMode):
    """Counts reads of a device's numbers and copies from and to it, and makes up what they give.

    Attributes:
        counted: the names of the operations that would wait, in their order.
        operations: how many operations the device was given.
    """

    def __init__(self):
        super().__init__()
        self.counted = []
        self.operations = 0
        self.from_numbers = _FromNumbers(self.counted)

    def __enter__(self):
        self.from_numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.from_numbers.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.name().split(".")[0]
        devices = _devices((*args, *kwargs.values()))
        target = kwargs.get("device")
        if DEVICE in devices and name in READS:
            self.counted.append(name)
            return False if args[0].dtype == torch.bool else 1.0
        moves = name == "aten::_to_copy" and target is not None and {target} != devices
        if name in COPIES and DEVICE in {*devices, target} and (moves or len(devices) > 1):
            self.counted.append(name)
            if name == "aten::_to_copy" and target != DEVICE:
                dtype = kwargs.get("dtype") or args[0].dtype
                return torch.zeros(args[0].shape, dtype=dtype, device=target)
            if name == "aten::copy_" and args[0].device != DEVICE:
                return args[0].zero_()
        result = function(*args, **kwargs)
        self.operations += DEVICE in _devices([result, *args])
        return result


def sent_in_turn(tensor, like):
    return torch.empty_like(tensor, dtype=like.dtype, device=like.device)


def without_device(monkeypatch):
    """Let copies in their turn go to `DEVICE`."""
    for module in (noise, maps, tiling):
        monkeypatch.setattr(module, "sent", sent_in_turn)
