"""The parts of `bir evaluate` that measure what judges pictures, not what restores them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ..checkpoints import load_model
from ..command_line.options import choose_device, write_line
from ..errors import BIRError
from ..estimate.scratches import THRESHOLD, load_finder
from ..evaluation.choices import CASES, ChoiceScore, choice_table, score_choices
from ..evaluation.damage import DamageScore, damage_table, score_finder
from ..evaluation.estimates import EstimateErrors, estimate_table, score_estimator
from ..evaluation.samples import OnFailure
from ..networks.estimator import Estimator
from ..pictures.files import find_pictures, list_pictures
from .evaluate_options import EvaluateOptions
from .failures import Failures, say_left_out

# Of which one is measured at a time.
JUDGED = ("scratches", "estimate", "auto", "old_photo")
# Other damage than that on which the built-in networks learnt to find it.
OLD_PHOTO = "foreign_old_photo"

Score = TypeVar("Score")


def measure_finder(options: EvaluateOptions, source: str) -> int:
    """The table of a network that finds scratches."""
    hq = _only_originals(options, "scratches")
    device = choose_device(options.device)
    model = load_finder(source, device=device)
    preset = options.degradation or OLD_PHOTO

    def scored(originals: list[Path], on_failure: OnFailure) -> Iterator[list[DamageScore]]:
        return score_finder(
            model, originals, preset, seed=options.seed, device=device, on_failure=on_failure
        )

    return _measure_damaged(hq, scored, lambda scores: damage_table(scores, THRESHOLD))


def measure_estimator(options: EvaluateOptions, source: str) -> int:
    """The table of a network that says what is wrong with a picture."""
    hq = _only_originals(options, "estimate", "degradation")
    network = load_model(source, architecture="estimator")
    assert isinstance(network, Estimator)  # load_model refuses every other architecture

    def scored(originals: list[Path], on_failure: OnFailure) -> Iterator[list[EstimateErrors]]:
        return score_estimator(network, originals, seed=options.seed, on_failure=on_failure)

    return _measure_damaged(hq, scored, estimate_table)


def measure_choices(options: EvaluateOptions) -> int:
    """The table of the rule that chooses for a picture."""
    hq = _only_originals(options, "auto")
    device = choose_device(options.device)
    cases = tuple(CASES) if options.degradation is None else (options.degradation,)

    def scored(originals: list[Path], on_failure: OnFailure) -> Iterator[list[ChoiceScore]]:
        return score_choices(
            originals, cases, seed=options.seed, device=device, on_failure=on_failure
        )

    return _measure_damaged(hq, scored, choice_table)


def _only_originals(options: EvaluateOptions, judged: str, *others: str) -> Path:
    """The folder of originals, without what else is judged, the options that measure restored
    pictures, and `others`."""
    others += tuple(name for name in JUDGED if name != judged)
    others += ("model", "results", "lq", "protocol", "metric", "reference", "output")
    given = [name for name in others if getattr(options, name)]
    if options.hq is None or given:
        came = f"--{given[0].replace('_', '-')} came as well" if given else "none came"
        raise BIRError(
            f"Expected a folder HQ of undamaged originals for --{judged}, and no options that "
            f"measure restored pictures, but {came}; correct the command."
        )
    return options.hq


def _measure_damaged(
    hq: Path,
    scored: Callable[[list[Path], OnFailure], Iterator[list[Score]]],
    table: Callable[[list[Score]], str],
) -> int:
    """Write the table of the scores of all originals that can be read."""
    originals = list_pictures(hq)
    say_left_out(find_pictures(hq)[1], hq)
    failures = Failures(len(originals))
    scores: list[Score] = []
    pictures = scored(originals, lambda path, error: failures.add(path, str(error)))
    for of_picture in tqdm(pictures, total=len(originals), unit="picture", disable=None):
        scores += of_picture
    if scores:
        write_line(table(scores))
    failures.require_none("measured")
    return 0
