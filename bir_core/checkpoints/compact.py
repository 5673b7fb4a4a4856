"""How to recognise a compact restoration module and read its sizes from tensor shapes."""

import re
from math import isqrt

from ..errors import BIRError
from ..networks.compact import CompactConfig
from .keys import StateDict, count_modules

_LAYER = re.compile(r"body\.\d+\.(weight|bias)")
COMPACT_REQUIRED = ("body.0.weight", "body.1.weight", "body.2.weight")


def compact_tensors(tensors: StateDict) -> StateDict:
    """Only files of a plain chain; a network of another kind may also have a part `body`."""
    return dict(tensors) if all(_LAYER.fullmatch(name) for name in tensors) else {}


def compact_config(tensors: StateDict) -> CompactConfig:
    """The configuration. Raises KeyError or BIRError for a damaged file."""
    last = count_modules(tensors, "body.{}.weight") - 1
    channels = tensors[f"body.{last}.weight"].shape[0]
    scale = isqrt(channels // 3)
    if channels != 3 * scale**2:
        raise BIRError(
            "Expected a compact restoration module whose last layer has 3 x scale x scale "
            f"channels, but it has {channels}; the file is damaged or of another network."
        )
    features = tensors["body.0.weight"].shape[0]
    return CompactConfig(scale=scale, features=features, layers=last // 2 - 1)
