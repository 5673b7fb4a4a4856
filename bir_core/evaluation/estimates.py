"""How far the estimate of damage is off, on pictures that were damaged in known ways.

Some of the damage is the package's own, some is done by Pillow, which the estimator never saw.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..degradations import FixedDegradation, MixedKernels, degrade
from ..errors import BIRError
from ..estimate import Estimate, estimate
from ..networks.estimator import Estimator
from ..pictures.files import read_picture
from ..seeds import image_generator
from .samples import OnFailure, raise_failure

# (image (1, 3, H, W) in [0, 1], generator) -> the damaged one
Damage = Callable[[Tensor, torch.Generator], Tensor]
MEASURED = ("blur_sigma", "noise_sigma", "jpeg_quality", "enlargement")


@dataclass(frozen=True)
class Kind:
    """A kind of damage.

    Attributes:
        name: in words.
        damage: that does it.
        truth: what is to be found, of `MEASURED`; the others are 0, or 1 for the enlargement, and
            a picture without JPEG is asked for none.
        grey: whether its noise is the same in all channels.
    """

    name: str
    damage: Damage
    truth: Mapping[str, float]
    grey: bool = False


@dataclass(frozen=True)
class EstimateErrors:
    """Of a picture with one kind of damage: the absolute errors of `MEASURED`; None where there is
    nothing to be found, for the quality also where none is seen.

    Attributes:
        wavelets: error of the noise by wavelets.
        seen: whether it says rightly that there was a JPEG, or none.
    """

    kind: str
    blur_sigma: float
    noise_sigma: float
    jpeg_quality: float | None
    enlargement: float
    wavelets: float
    seen: bool


def damage_kinds() -> tuple[Kind, ...]:
    """Those that are measured."""
    kinds = [Kind("none", lambda image, _: image, {})]
    for grey in (False, True):
        kinds += [
            Kind(
                f"noise {sigma}, {'grey' if grey else 'colour'}",
                _own(noise=sigma, grey=grey),
                {"noise_sigma": sigma},
                grey,
            )
            for sigma in (5, 10, 20, 35)
        ]
    kinds += [
        Kind(f"JPEG {quality}", _jpeg(quality), {"jpeg_quality": quality})
        for quality in (30, 50, 75, 90)
    ]
    kinds += [
        Kind(f"blur {sigma}", _own(blur=sigma), {"blur_sigma": sigma}) for sigma in (0.8, 1.5, 2.5)
    ]
    kinds += [
        Kind(f"enlarged {factor}, {name}", _enlarged(factor, mode), {"enlargement": factor})
        for factor in (2, 3, 4)
        for name, mode in (
            ("bicubic", Image.Resampling.BICUBIC),
            ("Lanczos", Image.Resampling.LANCZOS),
        )
    ]
    kinds += [
        Kind(
            "blur 1, noise 10",
            _own(blur=1.0, noise=10),
            {"blur_sigma": 1.0, "noise_sigma": 10},
        ),
        Kind(
            "blur 1.5, JPEG 75",
            _then(_own(blur=1.5), _jpeg(75)),
            {"blur_sigma": 1.5, "jpeg_quality": 75},
        ),
        Kind(
            "blur 1, noise 10, JPEG 70",
            _then(_own(blur=1.0, noise=10), _jpeg(70)),
            {"blur_sigma": 1.0, "noise_sigma": 10, "jpeg_quality": 70},
        ),
        Kind(
            "JPEG 40, then enlarged 2",
            _then(_jpeg(40), _enlarged(2, Image.Resampling.BICUBIC, reduce=False)),
            {"jpeg_quality": 40, "enlargement": 2},
        ),
    ]
    return tuple(kinds)


def _own(*, blur: float = 0.0, noise: float = 0.0, grey: bool = False) -> Damage:
    """The package's blur and noise."""
    kernels = MixedKernels(
        sizes=(21,),
        sinc_probability=0.0,
        weights=(1, 0, 0, 0, 0, 0),
        sigma=(max(blur, 0.1),) * 2,
    )
    preset = FixedDegradation(
        scale=1,
        blur=kernels,
        noise_sigma=(noise, noise),
        jpeg_quality=(101.0, 101.0),
        blur_probability=float(blur > 0),
        noise_probability=float(noise > 0),
        jpeg_probability=0.0,
        grey_probability=float(grey),
    )

    def damage(image: Tensor, generator: torch.Generator) -> Tensor:
        return degrade(image, preset, generator=generator).lq

    return damage


def _by_pillow(change: Callable[[Image.Image], Image.Image]) -> Damage:
    def damage(image: Tensor, _: torch.Generator) -> Tensor:
        steps = (image[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        changed = torch.from_numpy(np.array(change(Image.fromarray(steps))))
        return changed.permute(2, 0, 1)[None].float() / 255

    return damage


def _jpeg(quality: int) -> Damage:
    def change(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return _by_pillow(change)


def _enlarged(factor: int, mode: Image.Resampling, *, reduce: bool = True) -> Damage:
    """Enlarged by Pillow; reduced before, so that the size stays, or a part of it."""

    def change(image: Image.Image) -> Image.Image:
        small = (max(1, image.width // factor), max(1, image.height // factor))
        before = (
            image.resize(small, Image.Resampling.BICUBIC) if reduce else image.crop((0, 0, *small))
        )
        return before.resize((factor * small[0], factor * small[1]), mode)

    return _by_pillow(change)


def _then(first: Damage, second: Damage) -> Damage:
    def both(image: Tensor, generator: torch.Generator) -> Tensor:
        return second(first(image, generator), generator)

    return both


def score_estimator(
    network: Estimator,
    originals: Sequence[Path],
    *,
    seed: int,
    on_failure: OnFailure = raise_failure,
) -> Iterator[list[EstimateErrors]]:
    """Damage originals in all ways, picture i with seed + i, and estimate the damage; yields the
    errors of a picture."""
    for index, path in enumerate(originals):
        try:
            hq = read_picture(path).image
            yield [
                _errors(kind, estimate(kind.damage(hq, image_generator(seed, index)), network))
                for kind in damage_kinds()
            ]
        except BIRError as error:
            on_failure(path, error)


def _errors(kind: Kind, found: Estimate) -> EstimateErrors:
    quality = kind.truth.get("jpeg_quality")
    said = found.jpeg_quality
    wanted = {"blur_sigma": 0.0, "noise_sigma": 0.0, "enlargement": 1.0, **kind.truth}
    return EstimateErrors(
        kind.name,
        abs(found.blur_sigma.value - wanted["blur_sigma"]),
        abs(found.noise_sigma.value - wanted["noise_sigma"]),
        None if quality is None or said is None else abs(said.value - quality),
        abs(found.enlargement.value - wanted["enlargement"]),
        abs(found.wavelet_noise.value - wanted["noise_sigma"]),
        (quality is None) == (said is None),
    )


def estimate_table(errors: Sequence[EstimateErrors]) -> str:
    """Markdown: medians over the pictures for each kind of damage, and over all of them."""
    lines = [
        "| damage | blur, pixels | noise, steps | wavelets | JPEG quality | JPEG seen rightly | "
        "enlargement |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(each.kind for each in errors):
        lines.append(_line(name, [each for each in errors if each.kind == name]))
    lines.append(_line("all, median", errors))
    lines.append(_line("all, mean", errors, fmean))
    return "\n".join(lines)


def _line(
    name: str,
    errors: Sequence[EstimateErrors],
    middle: Callable[[Sequence[float]], float] = median,
) -> str:
    qualities = [each.jpeg_quality for each in errors if each.jpeg_quality is not None]
    numbers = (
        f"{middle([each.blur_sigma for each in errors]):.2f}",
        f"{middle([each.noise_sigma for each in errors]):.1f}",
        f"{middle([each.wavelets for each in errors]):.1f}",
        f"{middle(qualities):.0f}" if qualities else "-",
        f"{fmean(each.seen for each in errors):.0%}",
        f"{middle([each.enlargement for each in errors]):.2f}",
    )
    return f"| {name} | {' | '.join(numbers)} |"
