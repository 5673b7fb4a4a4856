"""From what is wrong with a picture to what is to be done: a rule, whose numbers were measured.

Restoring costs detail wherever there was no damage, so damage counts by what is there at least,
given how far its estimate may be off.
"""

import math
from dataclasses import dataclass

from ..errors import BIRError
from ..estimate import Estimate, Measured

# So many spreads are taken off a damage, or put on it, to be cautious.
DOUBT = 0.5
# Noise below, in steps of 8 bit, loses less than what cleaning takes of the detail.
LEAST_NOISE = 1.5
# JPEG of a quality from here on likewise.
FAINT_JPEG = 96.0
# The gentle network is the better one up to this noise where there is no JPEG below this quality.
GENTLE_NOISE, GENTLE_JPEG = 12.0, 45.0
# Blur of this sigma spreads a pixel of detail over about 1.4 pixels.
PIXEL_SIGMA = 0.6
# Pixels to a pixel of detail from which the picture is reduced by 2, and by 4, before all else.
LEAST_SPREAD_TO_HALVE, LEAST_SPREAD_TO_QUARTER = 1.7, 3.2
# Where nobody asked for a scale, pictures whose longer side has fewer pixels are enlarged.
SMALLEST, SMALL = 320, 512
MOST_SCALE = 4
# What a picture may have at most, and its JPEG at least, to be sharpened as it is enlarged.
MOST_NOISE_TO_SHARPEN, LEAST_JPEG_TO_SHARPEN = 3.0, 90.0
# The damage at which DiffBIR is to invent as freely as it may: noise, quality of JPEG, and how many
# pixels wide the finest detail is.
WORST_NOISE, WORST_JPEG, WORST_DETAIL = 30.0, 20.0, 4.0
# DiffBIR's fidelity (see `diffbir.fidelity`) of pictures with hardly any and with the worst damage.
MOST_FIDELITY, LEAST_FIDELITY = 0.75, 0.45
# From this share of the worst damage on, noise on the condition hides its traces from DiffBIR.
STRONG_DAMAGE, NOISE_AUG = 0.5, 60
# From this noise on, and with nothing else to mend, the task is to remove noise.
DENOISED = 10.0

CLEANER, GENTLE = "builtin-x1", "builtin-diffir-x1"
TWICE, FAITHFUL, SHARP = "builtin-x2", "builtin-x4", "builtin-x4-sharp"
NETWORK_SCALES = {CLEANER: 1, GENTLE: 1, TWICE: 2, FAITHFUL: 4, SHARP: 4}


@dataclass(frozen=True, kw_only=True)
class DiffBIRChoice:
    """How DiffBIR is to restore a picture.

    Attributes:
        task: "sr" or "denoise".
        fidelity: as of `diffbir.fidelity.of_fidelity`, from which strength, guidance and blending
            follow.
        noise_aug: timestep up to which noise is put on the condition; for v2.1 only, which was
            trained with it.
        reasons: a sentence for each choice.
    """

    task: str
    fidelity: float
    noise_aug: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is to be done to a picture.

    Attributes:
        model: the name of a built-in network; None where none is needed.
        scale: sides of the result by those of the picture.
        reduce: by which the picture is reduced before all else; 1 for not.
        clean: the name of the network that cleans before `model` enlarges; None for none.
        diffbir: how DiffBIR would restore it; None where nothing is to be done.
        reasons: a sentence for each choice.
    """

    model: str | None
    scale: float
    reduce: int = 1
    clean: str | None = None
    diffbir: DiffBIRChoice | None = None
    reasons: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether the picture stays as it is."""
        return self.model is None


def choose(found: Estimate, height: int, width: int, *, scale: float | None = None) -> Choice:
    """What is to be done to a picture.

    Args:
        found: what is wrong with it.
        height, width: of the picture in pixels.
        scale: sides of the result by those of the picture, from 1 on; None to enlarge only what
            has few pixels.

    Raises:
        BIRError: a picture without pixels, or a scale below 1.
    """
    if min(height, width) < 1 or (scale is not None and not scale >= 1):
        raise BIRError(
            "Expected a picture of 1 pixel or more and a scale of 1 or more, but "
            f"{width}x{height} pixels and a scale of {scale} came; correct them."
        )
    reduce, on_reducing = _reduction(found)
    if scale is None:
        scale, on_scale = _scale(max(height, width), reduce)
    else:
        on_scale = f"enlarged {scale:g} times, as asked" if scale > 1 else ""
    damage = _damage(found)
    enlarged = scale * reduce
    if enlarged == 1 and not damage:
        return Choice(
            model=None, scale=1.0, reasons=("nothing to do: neither noise nor JPEG to clean",)
        )
    model, on_model = _network(found, enlarged)
    clean, on_cleaning = _cleaning(found, enlarged)
    reasons = (damage, on_reducing, on_scale, on_cleaning, on_model)
    return Choice(
        model=model,
        scale=scale,
        reduce=reduce,
        clean=clean,
        diffbir=_diffbir(found, enlarged),
        reasons=tuple(filter(None, reasons)),
    )


def _least(measured: Measured) -> float:
    """What it is at least, most likely."""
    return max(0.0, measured.value - DOUBT * measured.spread)


def _pixels_of_detail(found: Estimate) -> float:
    """How many pixels wide the finest detail is at least, 1 in a sharp picture."""
    blur = _least(found.blur_sigma) / PIXEL_SIGMA
    return max(1.0, _least(found.enlargement)) * math.hypot(1.0, blur)


def _reduction(found: Estimate) -> tuple[int, str]:
    pixels = _pixels_of_detail(found)
    if pixels < LEAST_SPREAD_TO_HALVE:
        return 1, ""
    reduce = 2 if pixels < LEAST_SPREAD_TO_QUARTER else 4
    return reduce, (
        f"reduced by {reduce} first, as by blur or enlargement its finest detail is {pixels:.1f} "
        "pixels wide"
    )


def _scale(longer: int, reduce: int) -> tuple[float, str]:
    """For a picture of a longer side of so many pixels, of which every `reduce` are one of detail.
    No network gives more than 4 times the detail."""
    wanted = 1 if longer >= SMALL else 2 if longer >= SMALLEST else 4
    scale = min(wanted, MOST_SCALE // reduce)
    if scale <= 1:
        return 1.0, ""
    return float(scale), f"enlarged {scale} times, as its longer side has {longer} pixels only"


def _damage(found: Estimate) -> str:
    """What is to be cleaned, in words; "" for nothing."""
    kinds = []
    if _least(found.noise_sigma) >= LEAST_NOISE:
        kinds.append(f"noise of {found.noise_sigma.value:.0f} steps")
    quality = found.jpeg_quality
    if quality is not None and quality.value < FAINT_JPEG:
        kinds.append(f"JPEG of quality {quality.value:.0f}")
    return " and ".join(kinds)


def _quality(found: Estimate) -> float:
    return 100.0 if found.jpeg_quality is None else found.jpeg_quality.value


def _network(found: Estimate, enlarged: float) -> tuple[str, str]:
    """The network that does the last step, for a result so many times as large."""
    noise, quality = found.noise_sigma, _quality(found)
    if enlarged == 1:
        gentle = noise.value < GENTLE_NOISE and quality >= GENTLE_JPEG
        return (GENTLE, "the gentle one, for faint damage") if gentle else (CLEANER, "")
    if enlarged <= 2:
        return TWICE, ""
    most = noise.value + noise.spread
    if most <= MOST_NOISE_TO_SHARPEN and quality >= LEAST_JPEG_TO_SHARPEN:
        return SHARP, "sharpened, as there is no damage that would be sharpened with it"
    return FAITHFUL, "not sharpened, as the damage would be sharpened with it"


def _cleaning(found: Estimate, enlarged: float) -> tuple[str | None, str]:
    """The network that cleans before another one enlarges."""
    return None, ""


def _diffbir(found: Estimate, enlarged: float) -> DiffBIRChoice:
    noise = _least(found.noise_sigma)
    shares = {
        f"noise of {noise:.0f} steps": noise / WORST_NOISE,
        f"JPEG of quality {_quality(found):.0f}": (100 - _quality(found)) / (100 - WORST_JPEG),
        "its lost detail": (_pixels_of_detail(found) - 1) / (WORST_DETAIL - 1),
    }
    reason, worst = max(shares.items(), key=lambda item: item[1])
    worst = min(1.0, worst)
    fidelity = MOST_FIDELITY - (MOST_FIDELITY - LEAST_FIDELITY) * worst
    reasons = [f"a fidelity of {fidelity:.2f}, for {worst:.0%} of the worst damage, {reason}"]
    denoise = enlarged == 1 and noise >= DENOISED
    if denoise:
        reasons.append("the task denoise, as noise is what is to go at this size")
    if worst >= STRONG_DAMAGE:
        reasons.append(f"noise up to timestep {NOISE_AUG} on the condition, to hide its damage")
    return DiffBIRChoice(
        task="denoise" if denoise else "sr",
        fidelity=round(fidelity, 2),
        noise_aug=NOISE_AUG if worst >= STRONG_DAMAGE else 0,
        reasons=tuple(reasons),
    )
