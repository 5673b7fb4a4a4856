"""From what is wrong with a picture to what is to be done: a rule, whose numbers were measured.

Restoring costs detail wherever there was no damage, so damage counts by what is there at least,
given how far its estimate may be off. The numbers come from photographs of the training, damaged
at random; the section "The choice" of the model card says how good the rule is on others.
"""

import math
from dataclasses import dataclass

from ..errors import BIRError
from ..estimate import Estimate, Measured

# So many spreads are taken off damage that may not be there.
DOUBT = 0.35
# Below, cleaning takes as much detail as noise, in steps of 8 bit.
LEAST_NOISE = 1.5
# From this quality on, JPEG takes less than cleaning may.
FAINT_JPEG = 96.0
# The gentle network cleans JPEG down to this quality better than the other one, as long as there is
# no more noise than this with it; and noise in colour alone, however much, but not grey noise.
GENTLE_JPEG, GENTLE_NOISE = 65.0, 2.0
PURE_JPEG = 95.0
GREY = 0.5
# Blur of this sigma in pixels makes the finest detail that is left about 1.4 pixels wide, and so,
# where the size stays, does noise of this sigma, in which finer detail drowns.
PIXEL_BLUR, PIXEL_NOISE = 0.55, 20.0
# From such a width in pixels on, the picture is reduced by 2, 3 and 4 before it is restored: what
# it loses it did not have, and the network that enlarges it again sharpens it.
TO_REDUCE = {2: 1.5, 3: 2.6, 4: 3.6}
# Edges of less sharpness are as wide as detail of 1.5 pixels, whatever the network says of blur and
# enlargement, which it misses where JPEG lies above or below them.
SOFT = 0.18
# Where nobody asked for a scale, pictures whose longer side has fewer pixels are enlarged by 4 and
# by 2; but no network makes more than 4 pixels of one of detail.
SMALLEST, SMALL = 320, 512
MOST_SCALE = 4
# Of pictures that are enlarged 4 times, those with no more noise, no lower quality of JPEG and all
# their detail are sharpened. Of others, the damage would be.
SHARPENED_NOISE, SHARPENED_JPEG = 3.0, 90.0
# From such noise on that the gentle network cleans better, it does so before another one enlarges,
# unless the picture is reduced, which cleans as well.
CLEANED_FIRST = 12.0
# The damage at which DiffBIR may invent the most: noise, quality of JPEG, and the width in pixels
# of the finest detail.
WORST_NOISE, WORST_JPEG, WORST_WIDTH = 30.0, 20.0, 4.0
# DiffBIR's fidelity (see `diffbir.fidelity`) with hardly any damage, and with the worst. 0.5 is
# what the authors set.
MOST_FIDELITY, LEAST_FIDELITY = 0.75, 0.45
# From this share of the worst damage on, noise up to this timestep on the condition hides what
# stage 1 left of it.
STRONG_DAMAGE, NOISE_AUG = 0.5, 60
# At the same size, from this noise on, DiffBIR's task is to denoise.
DENOISED = 10.0

CLEANER, GENTLE = "builtin-x1", "builtin-diffir-x1"
TWICE, FAITHFUL, SHARP = "builtin-x2", "builtin-x4", "builtin-x4-sharp"


@dataclass(frozen=True, kw_only=True)
class DiffBIRChoice:
    """How DiffBIR is to restore a picture.

    Attributes:
        task: "sr" or "denoise".
        fidelity: as of `diffbir.fidelity.of_fidelity`, from which strength, guidance and blending
            follow.
        noise_aug: timestep up to which noise is put on the condition; for v2.1 only, which was
            trained with it.
        reasons: a line for each choice.
    """

    task: str = "sr"
    fidelity: float = MOST_FIDELITY
    noise_aug: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is to be done to a picture.

    Attributes:
        model: the name of a built-in network; None where the picture is best left as it is.
        scale: sides of the result by those of the picture.
        reduce: by which the picture is reduced before all else; 1 for not.
        clean: the name of the network that cleans before `model` enlarges; None for none.
        diffbir: how DiffBIR would restore it, instead of all this but the scale.
        reasons: a line for each choice.
    """

    model: str | None
    scale: float
    reduce: int = 1
    clean: str | None = None
    diffbir: DiffBIRChoice = DiffBIRChoice()
    reasons: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether the picture is best left as it is."""
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
    drowned = _width_of_detail(found, with_noise=True)
    on_scale = ""
    if scale is None:
        scale = _scale(max(height, width), _reduction(drowned))
        if scale > 1:
            on_scale = f"enlarged {scale:g} times: {width}x{height} pixels are few"
    elif scale > 1:
        on_scale = f"enlarged {scale:g} times, as asked"
    width_of_detail = drowned if scale == 1 else _width_of_detail(found)
    reduce, on_width = _reduction(width_of_detail), ""
    if reduce > 1:
        on_width = (
            f"reduced by {reduce} first: the finest detail that is left is {width_of_detail:.1f} "
            "pixels wide"
        )
    damage = _damage(found)
    enlargement = scale * reduce
    if enlargement == 1 and not damage:
        return Choice(
            model=None,
            scale=1.0,
            reasons=("nothing to do: no noise and no JPEG that cleaning would not make worse",),
        )
    cleaner, kind = _cleaner(found)
    first = ""
    if enlargement == 1:
        model, how = cleaner, f"{kind} cleaning"
    else:
        model, how = _enlarger(found, enlargement, reduce)
        if reduce == 1 and cleaner == GENTLE and _least(found.noise_sigma) >= CLEANED_FIRST:
            first = f"cleaned before it is enlarged, by {cleaner}: noise in colour without JPEG"
    seen = tuple(filter(None, (damage and f"damaged by {damage}", on_scale)))
    return Choice(
        model=model,
        scale=scale,
        reduce=reduce,
        clean=cleaner if first else None,
        diffbir=_diffbir(found, scale, seen),
        reasons=(*seen, *filter(None, (on_width, first)), f"{model}: {how}"),
    )


def _least(measured: Measured) -> float:
    return max(0.0, measured.value - DOUBT * measured.spread)


def _quality(found: Estimate) -> float:
    return 100.0 if found.jpeg_quality is None else found.jpeg_quality.value


def _damage(found: Estimate) -> str:
    """What is to be cleaned, in words; "" for nothing."""
    kinds = []
    if _least(found.noise_sigma) >= LEAST_NOISE:
        kinds.append(f"noise of {found.noise_sigma.value:.0f} steps")
    if _quality(found) < FAINT_JPEG:
        kinds.append(f"JPEG of quality {_quality(found):.0f}")
    return " and ".join(kinds)


def _width_of_detail(found: Estimate, *, with_noise: bool = False) -> float:
    """Pixels that the finest detail that is left is wide at least, by enlargement and the blur
    before it or by soft edges, and by the noise in which it drowns; 1 in a sharp picture."""
    blur = _least(found.blur_sigma) / PIXEL_BLUR
    noise = _least(found.noise_sigma) / PIXEL_NOISE if with_noise else 0.0
    width = max(1.0, _least(found.enlargement)) * math.hypot(1.0, blur, noise)
    return max(width, TO_REDUCE[2]) if found.sharpness.value < SOFT else width


def _reduction(width: float) -> int:
    return max((by for by, least in TO_REDUCE.items() if width >= least), default=1)


def _scale(longer: int, reduce: int) -> float:
    wanted = 1 if longer >= SMALL else 2 if longer >= SMALLEST else 4
    return float(max(1, min(wanted, MOST_SCALE // reduce)))


def _cleaner(found: Estimate) -> tuple[str, str]:
    """The network that cleans at the same size, and how it does."""
    noise, quality = _least(found.noise_sigma), _quality(found)
    if quality >= PURE_JPEG:
        gentle = noise < GENTLE_NOISE or found.noise_grey < GREY
    else:
        gentle = noise < GENTLE_NOISE and quality >= GENTLE_JPEG
    return (GENTLE, "gentle") if gentle else (CLEANER, "thorough")


def _enlarger(found: Estimate, enlargement: float, reduce: int) -> tuple[str, str]:
    """The network that enlarges, and how it does."""
    if enlargement <= 2:
        return TWICE, "faithful enlargement, which cleans as well"
    noise, quality = found.noise_sigma, _quality(found)
    clean = noise.value + DOUBT * noise.spread <= SHARPENED_NOISE and quality >= SHARPENED_JPEG
    if clean and reduce == 1:
        return SHARP, "sharp enlargement, as there is hardly any damage to be sharpened with it"
    return FAITHFUL, "faithful enlargement, which does not sharpen the damage"


def _diffbir(found: Estimate, scale: float, seen: tuple[str, ...]) -> DiffBIRChoice:
    noise, quality, width = _least(found.noise_sigma), _quality(found), _width_of_detail(found)
    worst = max(
        noise / WORST_NOISE,
        (100 - quality) / (100 - WORST_JPEG),
        (width - 1) / (WORST_WIDTH - 1),
    )
    share = min(1.0, worst)
    fidelity = round(MOST_FIDELITY - (MOST_FIDELITY - LEAST_FIDELITY) * share, 2)
    reasons = [*seen, f"fidelity {fidelity:g}: the damage is at {share:.0%} of the worst"]
    denoise = scale == 1 and noise >= DENOISED and width < TO_REDUCE[2]
    if denoise:
        reasons.append("task denoise: noise at the same size")
    if share >= STRONG_DAMAGE:
        reasons.append(f"noise_aug {NOISE_AUG}: hides what stage 1 leaves of strong damage")
    return DiffBIRChoice(
        task="denoise" if denoise else "sr",
        fidelity=fidelity,
        noise_aug=NOISE_AUG if share >= STRONG_DAMAGE else 0,
        reasons=tuple(reasons),
    )
