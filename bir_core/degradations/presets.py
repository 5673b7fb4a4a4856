"""Named degradations."""

from ..errors import BIRError
from .pipeline import BlurRanges, FixedDegradation

# A sigma of 2 at the size of the hq image is half a pixel after x4.
_PRESETS: dict[str, FixedDegradation] = {
    "simple_x1": FixedDegradation(
        scale=1, blur=BlurRanges(size=11, anisotropic_probability=0.5, sigma=(0.2, 1.5))
    ),
    "simple_x4": FixedDegradation(
        scale=4, blur=BlurRanges(size=13, anisotropic_probability=0.5, sigma=(0.2, 2.0))
    ),
}


def preset_names() -> tuple[str, ...]:
    """Every name that `get_preset` knows, sorted."""
    return tuple(sorted(_PRESETS))


def get_preset(name: str) -> FixedDegradation:
    """The parameters of a named degradation.

    Raises:
        BIRError: an unknown name.
    """
    if name not in _PRESETS:
        raise BIRError(
            f"A degradation preset should be one of {', '.join(preset_names())}, "
            f"but {name!r} came; choose one of these."
        )
    return _PRESETS[name]
