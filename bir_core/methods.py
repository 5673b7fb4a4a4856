"""The methods of restoration, one row each. The commands read this table and name no method."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .diffbir import method as diffbir
from .diffir import method as diffir
from .memory import MemoryPlan

# (name of the stage, steps done, steps in all); may raise to cancel.
Report = Callable[[str, int, int], None]
# (image (1, 3, H, W) in [0, 1], mask (1, 1, H, W) of 0 and 1 or None, report) -> restored image
RestoreImage = Callable[[Tensor, Tensor | None, Report], Tensor]
# (height, width) of a picture -> what is planned, in words, and the plan
PlanImage = Callable[[int, int], tuple[str, MemoryPlan]]
# (image (1, 3, H, W) in [0, 1], seed) -> (1, 3, H scale, W scale)
RestoreSeeded = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the commands use a method.

    Attributes:
        add_arguments: the options of `bir restore` that only this method takes; those that were
            not given stay None.
        prepare: loads what the options name for a device.
        add_plan_arguments: the options of `bir plan` that only this method takes.
        plan: from these options, a device and its memory in bytes.
        networks: architectures whose file restores a picture by itself: from such a network and
            its name to what `bir evaluate` calls, and its scale.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace, torch.device], RestoreImage]
    add_plan_arguments: Callable[[argparse.ArgumentParser], None]
    plan: Callable[[argparse.Namespace, torch.device, int], PlanImage]
    networks: Mapping[str, Callable[[nn.Module, str], tuple[RestoreSeeded, int]]] = field(
        default_factory=dict
    )


METHODS = {
    "diffir": Method(
        add_arguments=diffir.add_arguments,
        prepare=diffir.prepare,
        add_plan_arguments=diffir.add_plan_arguments,
        plan=diffir.plan,
        networks={"diffir_s2": diffir.open_network},
    ),
    "diffbir": Method(
        add_arguments=diffbir.add_arguments,
        prepare=diffbir.prepare,
        add_plan_arguments=diffbir.add_plan_arguments,
        plan=diffbir.plan,
    ),
}
DEFAULT_METHOD = "diffir"
