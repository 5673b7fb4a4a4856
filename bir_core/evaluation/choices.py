"""How good the rule is that chooses for a picture: against each choice made for all pictures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from ..checkpoints import load_model
from ..choosing import Choice, carry_out, choose
from ..degradations import Degradation, degrade, get_preset
from ..degradations.enlarged import EnlargedDegradation
from ..degradations.fixed import FixedDegradation
from ..errors import BIRError
from ..estimate import estimate
from ..estimate.estimating import load_estimator
from ..images import resize
from ..metrics import psnr
from ..pictures.files import read_picture
from ..seeds import image_generator, image_seed
from .samples import OnFailure, raise_failure

AUTO, INPUT = "auto", "input"
# Of a picture in dB. Beyond, nobody sees a difference; without any it would be infinite.
MOST_PSNR = 60.0


def _damage(**more: tuple[float, float] | float) -> FixedDegradation:
    """Of known amounts, given as ranges of `FixedDegradation`; what is not given is left out."""
    present = {
        f"{step}_probability": 1.0
        for step, name in (("blur", "blur"), ("noise", "noise_sigma"), ("jpeg", "jpeg_quality"))
        if name in more
    }
    none = get_preset("clean_x1")
    assert isinstance(none, FixedDegradation)
    return replace(none, **present, **more)  # type: ignore[arg-type]


def _cases() -> dict[str, tuple[Degradation, int]]:
    """The damage and the enlargement that undoes its reduction, by the name of the case."""
    foreign = get_preset("foreign_x4")
    assert isinstance(foreign, FixedDegradation)
    twice = EnlargedDegradation(
        damage=_damage(noise_sigma=(4.0, 4.0), jpeg_quality=(80.0, 80.0)),
        enlargement=(2.0, 2.0),
        resize_modes=("bicubic",),
    )
    same_size: dict[str, Degradation] = {
        "clean_x1": get_preset("clean_x1"),
        "jpeg_90": get_preset("jpeg_90"),
        "simple_x1": get_preset("simple_x1"),
        "enlarged": get_preset("enlarged"),
        "realesrgan_x1": get_preset("realesrgan_x1"),
        "foreign_x1": foreign.with_scale(1),
        "noise_10": _damage(noise_sigma=(10.0, 10.0)),
        "grey_noise_15": _damage(noise_sigma=(15.0, 15.0), grey_probability=1.0),
        "jpeg_50": _damage(jpeg_quality=(50.0, 50.0)),
        "twice": twice,
    }
    names = {2: ("clean_x2", "simple_x2"), 4: ("clean_x4", "simple_x4", "foreign_x4")}
    return {
        **{name: (degradation, 1) for name, degradation in same_size.items()},
        **{name: (get_preset(name), scale) for scale, each in names.items() for name in each},
    }


CASES = _cases()
# What is done to all pictures alike, by the enlargement.
FIXED: dict[int, dict[str, Choice]] = {
    scale: {
        name: Choice(model=model, scale=float(scale), reduce=reduce, clean=clean, reasons=())
        for name, model, reduce, clean in rows
    }
    for scale, rows in {
        1: (
            ("x1", "builtin-x1", 1, None),
            ("diffir-x1", "builtin-diffir-x1", 1, None),
            ("reduced by 2, x2", "builtin-x2", 2, None),
            ("reduced by 4, x4", "builtin-x4", 4, None),
        ),
        2: (("x2", "builtin-x2", 1, None), ("x1, then x2", "builtin-x2", 1, "builtin-x1")),
        4: (
            ("x4", "builtin-x4", 1, None),
            ("x4-sharp", "builtin-x4-sharp", 1, None),
            ("x1, then x4", "builtin-x4", 1, "builtin-x1"),
        ),
    }.items()
}


@dataclass(frozen=True)
class ChoiceScore:
    """A picture with one damage.

    Attributes:
        case: its name among `CASES`.
        psnr: of each way to restore it on luma, in dB up to `MOST_PSNR`, by its name: `AUTO`,
            `INPUT` (nothing done, or enlarged by bicubic interpolation), and those of `FIXED`.
        chosen: what the rule chose, in short.
    """

    picture: str
    case: str
    psnr: dict[str, float]
    chosen: str


def score_choices(
    originals: Sequence[Path],
    cases: Sequence[str],
    *,
    seed: int,
    device: torch.device,
    on_failure: OnFailure = raise_failure,
) -> Iterator[list[ChoiceScore]]:
    """Damage originals, picture i with seed + i, and restore them in all ways; yields the scores of
    a picture in all cases.

    Raises:
        BIRError: an unknown case.
    """
    unknown = [name for name in cases if name not in CASES]
    if unknown:
        raise BIRError(
            f"Expected one of {', '.join(CASES)} as the damage for --auto, but {unknown[0]} came; "
            "choose one of these."
        )
    networks = {
        name: load_model(name, device=device)
        for fixed in FIXED.values()
        for name in {choice.model for choice in fixed.values()}
        if name is not None
    }
    estimator = load_estimator()

    for index, path in enumerate(originals):
        restore = partial(carry_out, load=networks.__getitem__, seed=image_seed(seed, index))
        try:
            hq = read_picture(path).image
            scores = []
            for case in cases:
                degradation, scale = CASES[case]
                generator = image_generator(seed, index)
                degraded = degrade(hq, degradation, generator=generator)
                lq = degraded.lq.to(device)
                choice = choose(estimate(degraded.lq, estimator), *lq.shape[-2:], scale=scale)
                restored = {INPUT: resize(lq, *degraded.hq.shape[-2:]) if scale > 1 else lq}
                restored |= {name: restore(lq, fixed) for name, fixed in FIXED[scale].items()}
                same = (name for name, fixed in FIXED[scale].items() if _alike(choice, fixed))
                name = next(same, None)
                restored[AUTO] = restore(lq, choice) if name is None else restored[name]
                numbers = {
                    name: min(float(psnr(image.cpu(), degraded.hq, channel="y")), MOST_PSNR)
                    for name, image in restored.items()
                }
                scores.append(ChoiceScore(path.name, case, numbers, _in_short(choice)))
            yield scores
        except BIRError as error:
            on_failure(path, error)


def _alike(choice: Choice, other: Choice) -> bool:
    """Whether both come to the same steps, whatever their reasons."""
    return replace(choice, diffbir=other.diffbir, reasons=other.reasons) == other


def _in_short(choice: Choice) -> str:
    if choice.is_nothing:
        return "nothing"
    reduced = [f"reduced by {choice.reduce}"] if choice.reduce > 1 else []
    networks = filter(None, (choice.clean, choice.model))
    return ", ".join((*reduced, *(name.removeprefix("builtin-") for name in networks)))


def choice_table(scores: Sequence[ChoiceScore]) -> str:
    """Markdown with a line for each case: mean PSNR of what was chosen, of the input, and of the
    best that is chosen for all pictures alike, how far it is from the rule's, and what was chosen
    how often."""
    lines = [
        "| case | auto | input | best for all | auto against it | worst picture | chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(each.case for each in scores):
        lines.append(_line(case, [each for each in scores if each.case == case]))
    return "\n".join(lines)


def _line(case: str, scores: Sequence[ChoiceScore]) -> str:
    means = {name: fmean(each.psnr[name] for each in scores) for name in scores[0].psnr}
    best = max((name for name in means if name != AUTO), key=means.__getitem__)
    gaps = [each.psnr[AUTO] - each.psnr[best] for each in scores]
    chosen = Counter(each.chosen for each in scores).most_common()
    words = "; ".join(f"{count} {name}" for name, count in chosen)
    return (
        f"| `{case}` | {means[AUTO]:.2f} | {means[INPUT]:.2f} | {means[best]:.2f} ({best}) | "
        f"{fmean(gaps):+.2f} | {min(gaps):+.2f} | {words} |"
    )
