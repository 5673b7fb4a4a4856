"""What is decided before a picture is worked on."""

from dataclasses import dataclass

from ..memory import MemoryPlan
from .settings import DiffBIRSettings
from .stage1 import Stage1Sizes
from .versions import Order


@dataclass(frozen=True, kw_only=True)
class Run:
    """How pictures of one size go through both stages.

    Attributes:
        order: of stage 1 and the resizing.
        sizes: on the way.
        settings: with the plan's numbers where the memory was to decide.
        plan: what it takes of the memory.
    """

    order: Order
    sizes: Stage1Sizes
    settings: DiffBIRSettings
    plan: MemoryPlan
