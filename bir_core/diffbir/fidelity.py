"""One number for how close the result stays to the picture."""

from dataclasses import dataclass

from ..errors import BIRError
from .masks import LEAST_STRENGTH
from .settings import GuidancePer

# At 1: the guidance per 512 x 512 pixels, and the blending.
MOST_GUIDANCE = 1.0
MOST_BLENDING = 0.5


@dataclass(frozen=True)
class Fidelity:
    """What a fidelity means for the parts of a run, as in `DiffBIRSettings`.

    Attributes:
        strength: factor on the control of IRControlNet.
        guidance: scale of the restoration guidance, at any size (see `guidance_per`).
        blending: share of the picture before the diffusion, which invents nothing, in the result.
    """

    strength: float
    guidance: float
    blending: float
    guidance_per: GuidancePer = "512x512"


def of_fidelity(fidelity: float) -> Fidelity:
    """From invented freely (0) over what the authors set (0.5) to faithful (1); none of the three
    parts falls on the way. Below the middle the control weakens, above it the guidance grows evenly
    and the blending slowly at first, since it costs sharpness.

    Raises:
        BIRError: a number outside of 0 to 1.
    """
    if not 0 <= fidelity <= 1:
        raise BIRError(
            f"The fidelity should be a number from 0 (invent) to 1 (faithful), but {fidelity} "
            "came; choose one in this range."
        )
    freedom, faith = max(0.0, 1 - 2 * fidelity), max(0.0, 2 * fidelity - 1)
    return Fidelity(
        strength=1 - (1 - LEAST_STRENGTH) * freedom,
        guidance=MOST_GUIDANCE * faith,
        blending=MOST_BLENDING * faith**2,
    )
