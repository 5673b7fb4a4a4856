"""See how good the numbers of `bir_core/choosing/rule.py` are, after new weights of the estimator.

python .ci/calibrate_choices.py measure FOLDER TABLE [PICTURES]
python .ci/calibrate_choices.py look TABLE

`measure` damages photographs of a folder at random, 10 times each, and writes to a table of JSON
lines what was done to them, what is estimated, and the PSNR of each way to restore them at their
size: a few seconds a line, 100 lines do. `look` prints how far the rule is from the best way for
each picture, with the estimates and with the truth in their place, and what other numbers would
change.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from bir_core.checkpoints import load_model
from bir_core.choosing import Choice, carry_out, choose, rule
from bir_core.degradations import degrade, get_preset
from bir_core.degradations.enlarged import EnlargedDegradation
from bir_core.degradations.fixed import FixedDegradation
from bir_core.degradations.kernels import MixedKernels
from bir_core.estimate import Estimate, Measured, estimate
from bir_core.images import resize
from bir_core.metrics import psnr
from bir_core.pictures.files import list_pictures, read_picture
from bir_core.seeds import image_generator

# The photographs are JPEGs, of whose traces little is left when they are reduced so; and the side
# of what is cut out.
REDUCED, SIDE = 1.6, 320
EACH = 10
# Beyond, nobody sees a difference; of a clean picture left alone it is infinite.
MOST_PSNR = 50.0
WAYS = {
    "nothing": Choice(model=None, scale=1.0),
    **{name: Choice(model=name, scale=1.0) for name in (rule.CLEANER, rule.GENTLE)},
    **{
        f"reduced by {by}": Choice(model=model, scale=1.0, reduce=by)
        for by, model in ((2, rule.TWICE), (3, rule.FAITHFUL), (4, rule.FAITHFUL))
    },
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "DOUBT": (0.0, 0.25, 0.75, 1.0),
    "LEAST_NOISE": (0.5, 1.0, 2.0, 3.0),
    "FAINT_JPEG": (92.0, 94.0, 98.0),
    "GENTLE_JPEG": (40.0, 50.0, 70.0, 80.0),
    "GENTLE_NOISE": (1.0, 4.0, 8.0),
    "PURE_JPEG": (85.0, 90.0, 98.0),
    "SOFT": (0.0, 0.14, 0.16, 0.2, 0.25),
    "PIXEL_BLUR": (0.4, 0.5, 0.7),
    "PIXEL_NOISE": (12.0, 15.0, 25.0, 100.0),
    "TO_REDUCE": ({2: 1.5, 3: 2.6, 4: 3.6}, {2: 1.8, 3: 2.6, 4: 3.6}, {2: 1.6, 3: 2.2, 4: 3.2}),
}


def drawn(seed: int) -> dict[str, Any]:
    """Noise, JPEG, blur and enlargement, each of which may be absent."""
    draw = random.Random(seed)

    def sometimes(share: float, low: float, high: float, absent: float) -> float:
        happens, value = draw.random() < share, draw.uniform(low, high)
        return value if happens else absent

    return {
        "noise": sometimes(0.65, 1, 30, 0.0),
        "grey": float(draw.random() < 0.35),
        "jpeg": int(sometimes(0.6, 25, 99, 100)),
        "blur": sometimes(0.35, 0.4, 2.2, 0.0),
        "enlargement": sometimes(0.3, 1.2, 4, 1.0),
    }


def damage(truth: dict[str, Any]) -> EnlargedDegradation:
    """Of exactly these amounts."""
    none, enlarged = get_preset("clean_x1"), get_preset("enlarged")
    assert isinstance(none, FixedDegradation) and isinstance(enlarged, EnlargedDegradation)
    blur = max(truth["blur"], 0.1)
    kernels = MixedKernels(
        sizes=(21,), sinc_probability=0.0, weights=(1, 0, 0, 0, 0, 0), sigma=(blur, blur)
    )
    before = replace(
        none,
        blur=kernels,
        noise_sigma=(truth["noise"],) * 2,
        jpeg_quality=(float(truth["jpeg"]),) * 2,
        blur_probability=float(truth["blur"] > 0),
        noise_probability=float(truth["noise"] > 0),
        jpeg_probability=float(truth["jpeg"] < 100),
        grey_probability=truth["grey"],
    )
    return replace(
        enlarged,
        damage=before,
        enlargement=(truth["enlargement"],) * 2,
        enlarge_probability=float(truth["enlargement"] > 1),
        late_jpeg_probability=0.0,
        grey_picture_probability=0.0,
    )


def measure(folder: Path, table: Path, pictures: int) -> None:
    """Write a line for each picture and damage."""
    paths = list_pictures(folder)
    load = cache(load_model)
    with table.open("w") as file:
        for index, path in enumerate(paths[:: max(1, len(paths) // pictures)]):
            hq = photograph(path)
            for seed in range(index * EACH, (index + 1) * EACH):
                truth = drawn(seed)
                lq = degrade(hq, damage(truth), generator=image_generator(seed)).lq
                line = {
                    "truth": truth,
                    "estimate": estimate(lq).numbers(),
                    "psnr": {
                        name: float(psnr(carry_out(lq, way, load), hq, channel="y"))
                        for name, way in WAYS.items()
                    },
                }
                file.write(json.dumps(line) + "\n")
                file.flush()


def photograph(path: Path) -> Tensor:
    """A piece of a photograph without the traces of its JPEG, in steps of 8 bit."""
    image = read_picture(path).image
    height, width = (round(side / REDUCED) for side in image.shape[-2:])
    small = resize(image, height, width).clamp(0, 1)[..., :SIDE, :SIDE]
    return (small * 255).round() / 255


def estimated(line: dict[str, Any]) -> Estimate:
    """What was estimated."""
    numbers = line["estimate"]

    def measured(name: str) -> Measured | None:
        value = numbers[name]
        return None if value is None else Measured(value, numbers[f"{name}_spread"])

    names = [name for name in numbers if not name.endswith("_spread")]
    plain = ("noise_grey", "jpeg", "colour_cast")
    return Estimate(**{n: numbers[n] if n in plain else measured(n) for n in names})


def true(line: dict[str, Any]) -> Estimate:
    """What was done, without any doubt."""
    truth = line["truth"]
    return replace(
        estimated(line),
        blur_sigma=Measured(truth["blur"], 0.0),
        noise_sigma=Measured(truth["noise"], 0.0),
        noise_grey=truth["grey"],
        jpeg_quality=None if truth["jpeg"] == 100 else Measured(float(truth["jpeg"]), 0.0),
        enlargement=Measured(truth["enlargement"], 0.0),
    )


def chosen(found: Estimate) -> str:
    """The rule's choice, as a name of `WAYS`."""
    choice = choose(found, SIDE, SIDE, scale=1)
    if choice.reduce > 1:
        return f"reduced by {choice.reduce}"
    return choice.model or "nothing"


def loss(lines: list[dict[str, Any]], found: Callable[[dict[str, Any]], Estimate]) -> float:
    """dB below the best way for each picture, on the average."""
    distances = []
    for line in lines:
        reached = {name: min(value, MOST_PSNR) for name, value in line["psnr"].items()}
        distances.append(max(reached.values()) - reached[chosen(found(line))])
    return fmean(distances)


def look(table: Path) -> None:
    """Print what the rule loses, and would with other numbers."""
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    say(f"{len(lines)} damaged pictures, dB below the best way for each on the average")
    for way in WAYS:
        best = [max(min(each, MOST_PSNR) for each in line["psnr"].values()) for line in lines]
        own = [min(line["psnr"][way], MOST_PSNR) for line in lines]
        say(f"  {way} for all: {fmean(best) - fmean(own):.3f}")
    say(f"  rule: {loss(lines, estimated):.3f}; by the truth: {loss(lines, true):.3f}")
    for name, values in OTHERS.items():
        usual = getattr(rule, name)
        for value in values:
            setattr(rule, name, value)
            say(f"  {name} {value}: {loss(lines, estimated):.3f}, {loss(lines, true):.3f}")
        setattr(rule, name, usual)


def say(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 12)
    else:
        look(Path(sys.argv[2]))
