"""How to recognise a network that finds damage and read its sizes from tensor shapes."""

from ..networks.damage import DamageConfig
from .keys import StateDict, count_modules

DAMAGE_REQUIRED = ("first.weight", "down.0.weight", "bottom.0.norm.weight", "up.0.weight")


def damage_config(tensors: StateDict) -> DamageConfig:
    """The configuration. Raises KeyError or BIRError for a damaged file."""
    levels = count_modules(tensors, "down.{}.weight")
    deeper = (tensors[f"down.{level}.weight"].shape[0] for level in range(levels))
    return DamageConfig(features=(tensors["first.weight"].shape[0], *deeper))
