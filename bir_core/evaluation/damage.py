"""How well a network finds damage: on pictures that were damaged, and on the same undamaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from ..degradations import Degradation, degrade, get_preset
from ..errors import BIRError
from ..estimate.scratches import find_damage, grown
from ..networks.damage import DamageFinder
from ..pictures.files import read_picture
from ..seeds import image_generator
from .samples import OnFailure, raise_failure

# What is found so many pixels away counts.
TOLERANCE = 2
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class DamageScore:
    """A picture at one threshold.

    Attributes:
        picture: its name.
        threshold: of the probability.
        damaged: pixels whose damage can be seen, as a share of all.
        found: those of them that were found, as a share; None where there is no damage.
        false: pixels that were found away from any damage, as a share of all.
        false_undamaged: pixels that were found in the picture before it was damaged.
    """

    picture: str
    threshold: float
    damaged: float
    found: float | None
    false: float
    false_undamaged: float


def found_and_false(mask: Tensor, damage: Tensor) -> tuple[float | None, float]:
    """The share of the damage that a mask finds, None without damage, and the share of all pixels
    that it finds beside it; `TOLERANCE` pixels are allowed both times.

    Args:
        mask, damage: (1, 1, H, W), 0 or 1.
    """
    near, around = grown(mask, TOLERANCE), grown(damage, TOLERANCE)
    false = float((mask * (1 - around)).mean())
    return (float((damage * near).sum() / damage.sum()) if damage.any() else None), false


def old_photo_preset(name: str) -> Degradation:
    """A preset that says where it damages the surface of pictures.

    Raises:
        BIRError: an unknown one, or one that does not.
    """
    preset = get_preset(name)
    if not preset.damages_surface:
        raise BIRError(
            "Expected a preset that damages the surface of pictures, but "
            f"{name} does not; choose old_photo or foreign_old_photo."
        )
    return preset


def score_finder(
    model: DamageFinder,
    originals: Sequence[Path],
    preset: str,
    *,
    seed: int,
    device: torch.device,
    on_failure: OnFailure = raise_failure,
) -> Iterator[list[DamageScore]]:
    """Damage originals, picture i with seed + i, and look for it; yields the scores of a picture at
    all `THRESHOLDS`.

    Raises:
        BIRError: as `old_photo_preset`.
    """
    parameters = old_photo_preset(preset)

    def probability(image: Tensor) -> Tensor:
        return find_damage(image.to(device), model).cpu()

    for index, path in enumerate(originals):
        try:
            hq = read_picture(path).image
            yield _scores(path.name, hq, parameters, image_generator(seed, index), probability)
        except BIRError as error:
            on_failure(path, error)


def _scores(
    name: str,
    hq: Tensor,
    preset: Degradation,
    generator: torch.Generator,
    probability: Callable[[Tensor], Tensor],
) -> list[DamageScore]:
    degraded = degrade(hq, preset, generator=generator)
    assert degraded.damage is not None  # see `Degradation.damages_surface`
    damaged, undamaged = probability(degraded.lq), probability(hq)
    scores = []
    for threshold in THRESHOLDS:
        mask = (damaged >= threshold).float()
        found, false = found_and_false(mask, degraded.damage)
        alone = float((undamaged >= threshold).float().mean())
        share = float(degraded.damage.mean())
        scores.append(DamageScore(name, threshold, share, found, false, alone))
    return scores


def damage_table(scores: Sequence[DamageScore], threshold: float) -> str:
    """Markdown of each picture at one threshold, and of the means at each; shares in percent."""
    lines = [
        "| picture | threshold | damaged | found | false | false, undamaged |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(each) for each in scores if each.threshold == threshold]
    for step in THRESHOLDS:
        lines.append(_line(_mean([each for each in scores if each.threshold == step])))
    worst = max(
        (each for each in scores if each.threshold == threshold),
        key=lambda each: each.false_undamaged,
    )
    lines.append("")
    lines.append(
        f"Worst undamaged picture at {threshold}: {worst.picture}, {worst.false_undamaged:.2%}."
    )
    return "\n".join(lines)


def _mean(scores: Sequence[DamageScore]) -> DamageScore:
    """Means of all pictures; the damage of all of them counts as one, by its pixels."""
    seen = [each for each in scores if each.found is not None]
    pixels = sum(each.damaged for each in seen)
    found = sum(each.damaged * (each.found or 0.0) for each in seen) / pixels if seen else None
    return DamageScore(
        "all",
        scores[0].threshold,
        fmean(each.damaged for each in scores),
        found,
        fmean(each.false for each in scores),
        fmean(each.false_undamaged for each in scores),
    )


def _line(score: DamageScore) -> str:
    found = "" if score.found is None else f"{score.found:.1%}"
    return (
        f"| {score.picture} | {score.threshold} | {score.damaged:.2%} | {found} | "
        f"{score.false:.3%} | {score.false_undamaged:.3%} |"
    )
