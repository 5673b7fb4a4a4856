"""What each step of the chain for old photographs gains, on photographs that were made old."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from ..checkpoints import load_model
from ..choosing import carry_out, choose
from ..degradations import degrade
from ..errors import BIRError
from ..estimate import estimate
from ..estimate.estimating import load_estimator
from ..images import luma, resize
from ..old_photo import mend
from ..pictures.files import read_picture
from ..seeds import image_generator, image_seed
from .damage import old_photo_preset
from .measuring import Sample
from .metrics import Metric
from .samples import OnFailure, raise_failure
from .tables import Row

# The scan, and what it is after each step; then what comes of it with one of them left out.
SCAN, STEPS = "scan", ("scratches", "levels", "clean")
INTERPOLATED, ENLARGED = "half the size, x2 by interpolation", "half the size, x2"
SAMPLES_OF_EACH = 2
# From a picture (1, 3, H, W), what is left out and the enlargement to the restored picture.
Chain = Callable[[Tensor, Sequence[str], float], Tensor]


def after(step: str) -> str:
    """What a picture is called after a step."""
    return f"+ {step}"


def without(step: str) -> str:
    """What the result is called with one step left out."""
    return f"all but {step}"


# By step, the result with it and without it.
PAIRS = {
    "scratches": (after("clean"), without("scratches")),
    "levels": (after("clean"), without("levels")),
    "clean": (after("clean"), after("levels")),
    "enlarge": (ENLARGED, INTERPOLATED),
}


def old_photo_samples(
    originals: Sequence[Path],
    preset: str,
    *,
    seed: int,
    device: torch.device,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Sample]:
    """Make originals old, picture i with seed + i, and mend them: two samples of each, at its size
    after every step and with each left out, and at half its size enlarged again. The original of
    a print without colours is grey, as they cannot be found again.

    Raises:
        BIRError: as `old_photo_preset`.
    """
    parameters = old_photo_preset(preset)

    @cache
    def load(name: str) -> nn.Module:
        return load_model(name, device=device)

    estimator = load_estimator()

    def chain(scan: Tensor, left_out: Sequence[str], scale: float, seed: int) -> Tensor:
        mended = mend(scan, load, without=left_out, seed=seed).image
        if "clean" in left_out:
            return mended
        found = estimate(mended.cpu(), estimator)
        choice = choose(found, *mended.shape[-2:], scale=scale)
        return carry_out(mended, choice, load, seed=seed)

    for index, path in enumerate(originals):
        of_picture = partial(chain, seed=image_seed(seed, index))
        try:
            hq = read_picture(path).image
            height, width = (max(1, side // 2) for side in hq.shape[-2:])
            halves = resize(hq, height, width, "bicubic").clamp(0, 1)
            cut = hq[..., : 2 * height, : 2 * width]
            for image in (hq, halves):
                made = degrade(image, parameters, generator=image_generator(seed, index))
                is_grey = made.draws["grey_print"]
                assert isinstance(is_grey, Tensor)
                wanted = hq if image is hq else cut
                if is_grey[0]:
                    wanted = luma(wanted).expand_as(wanted)
                scan = made.lq.to(device)
                restored = _steps(scan, of_picture) if image is hq else _enlarged(scan, of_picture)
                yield Sample(path.name, restored, wanted)
        except BIRError as error:
            on_failure(path, error)


def _steps(scan: Tensor, chain: Chain) -> dict[str, Tensor]:
    steps = {after(step): chain(scan, STEPS[index + 1 :], 1.0) for index, step in enumerate(STEPS)}
    return {
        SCAN: scan,
        **steps,
        **{without(step): chain(scan, [step], 1.0) for step in STEPS[:-1]},
    }


def _enlarged(scan: Tensor, chain: Chain) -> dict[str, Tensor]:
    height, width = scan.shape[-2:]
    clean = chain(scan, (), 1.0)
    return {
        INTERPOLATED: resize(clean, 2 * height, 2 * width).clamp(0, 1),
        ENLARGED: chain(scan, (), 2.0),
    }


def gains_table(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """Markdown: what each step gains against leaving it out, in the mean and in the picture that
    gains least, by each measure; of a measure that is to be low, what it falls by."""
    parts = [_gains(rows, metric) for metric in metrics if metric.compares != "others"]
    return "\n\n".join(parts)


def _gains(rows: Sequence[Row], metric: Metric) -> str:
    sign = 1 if metric.higher_is_better else -1
    values = {(row.model, row.picture): row.values[metric.name] for row in rows}
    pictures = dict.fromkeys(row.picture for row in rows if row.picture != "mean")
    lines = [f"| step | gain in {metric.title}, mean | least | of |", "|---|---|---|---|"]
    for step, (with_it, without_it) in PAIRS.items():
        found = {}
        for picture in pictures:
            have, lack = values.get((with_it, picture)), values.get((without_it, picture))
            if have is not None and lack is not None:
                found[picture] = sign * (have - lack)
        if found:
            least = min(found, key=found.__getitem__)
            mean, digits = fmean(found.values()), metric.decimals
            numbers = f"{mean:+.{digits}f} | {found[least]:+.{digits}f}"
            lines.append(f"| {step} | {numbers} | {least} |")
    return "\n".join(lines)
