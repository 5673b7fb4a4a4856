"""Measure restored pictures: with and without originals, one by one and as sets.

  bir evaluate HQ --model FILE           restore degraded originals and measure
  bir evaluate HQ --lq LQ --model FILE   restore the pictures of LQ and measure
  bir evaluate HQ --results FOLDER       measure pictures that are restored already
  bir evaluate --results FOLDER --protocol diffbir-real    without originals
  bir evaluate HQ --scratches FILE       damage originals and measure how much of it is found
  bir evaluate HQ --estimate FILE        damage originals and measure what is said of it
  bir evaluate HQ --auto                 damage originals and measure what --auto chooses for them
  bir evaluate HQ --old-photo            make originals old and measure how they are mended
  bir evaluate --list                    the measures, their files, and the protocols

FOLDER may be what `bir restore` wrote, with DiffBIR for example. A network that measures reads its
weights from a folder laid out as torch's cache; nothing is downloaded. `bir weights measures` puts
those of LPIPS and DISTS there."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..command_line.options import (
    DTYPES,
    add_device_arguments,
    choose_device,
    positive,
    read_options,
    seed,
    write_line,
)
from ..degradations import preset_names
from ..errors import BIRError
from ..evaluation.listing import metrics_as_markdown, protocols_as_markdown
from ..evaluation.measuring import Evaluation, Sample
from ..evaluation.metrics import DEFAULT_METRICS, METRICS, Settings
from ..evaluation.old_photos import SAMPLES_OF_EACH, gains_table, old_photo_samples
from ..evaluation.protocols import PROTOCOLS, Protocol
from ..evaluation.samples import (
    degraded_pairs,
    folder_pairs,
    load,
    model_samples,
    result_samples,
)
from ..evaluation.tables import as_markdown, require_table_name, write_table
from ..evaluation.weight_files import usual_folder
from ..fallbacks import enough_memory
from ..pictures.files import find_pictures, list_pictures, read_picture, require_free
from ..weights import BUILTIN_NAMES, DEFAULT_MODEL
from .evaluate_judges import OLD_PHOTO, measure_choices, measure_estimator, measure_finder
from .evaluate_options import EvaluateOptions
from .failures import Failures, no_memory_for, say_left_out

read = partial(read_options, EvaluateOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir evaluate`."""
    parser.add_argument("hq", metavar="HQ", nargs="?", type=Path, help="folder of originals")
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help=f"{', '.join(BUILTIN_NAMES)} or a checkpoint file of a compact module, DiffIR, "
        f"SwinIR or what spandrel knows; may be repeated (default: {DEFAULT_MODEL})",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--results",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="restored pictures, named like those of HQ if it is given; may be repeated",
    )
    given.add_argument(
        "--lq", metavar="FOLDER", type=Path, help="low-quality pictures named like those of HQ"
    )
    given.add_argument(
        "--degradation",
        metavar="NAME",
        help=f"{', '.join(preset_names())} (default: simple_x4 or simple_x1, after the model; "
        "with --scratches and --old-photo foreign_old_photo, with --auto all of its cases)",
    )
    parser.add_argument(
        "--scratches",
        metavar="FILE",
        help="measure a network that finds scratches, builtin-scratches or your own: "
        "the share of the damage that it finds, and of other pixels that it takes for damage",
    )
    parser.add_argument(
        "--estimate",
        metavar="FILE",
        help="measure a network that says what is wrong with a picture, builtin-estimate or your "
        "own, on known damage",
    )
    parser.add_argument(
        "--auto",
        action="store_true",
        help="measure the rule of bir restore --auto on damage of its own and of other kinds, "
        "against each choice that is made for all pictures alike",
    )
    parser.add_argument(
        "--old-photo",
        action="store_true",
        help="make originals old and measure what each step of bir restore --old-photo gains",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        help="of the first picture; the next has the next (default: 0)",
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        help="measures, border and multiple as a paper has them; see --list",
    )
    parser.add_argument(
        "--metric",
        choices=tuple(METRICS),
        action="append",
        default=[],
        help="may be repeated (default: those of the protocol, or "
        f"{', '.join(DEFAULT_METRICS)}); see --list",
    )
    parser.add_argument(
        "--border",
        type=int,
        help="pixels that PSNR and SSIM leave out on each side; the papers take 4 for x4 (default: "
        "the protocol's, or 0)",
    )
    parser.add_argument(
        "--multiple",
        type=positive,
        help="cut originals to multiples of this size (default: the protocol's, or 1)",
    )
    parser.add_argument(
        "--reference",
        metavar="FOLDER",
        type=Path,
        help="set of pictures that FID compares the results with (default: HQ)",
    )
    parser.add_argument(
        "--metric-weights",
        metavar="FOLDER",
        type=Path,
        help=f"where the networks that measure have their weights (default: {usual_folder()})",
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="also write the table to a file ending in .md, .csv or .json; may be repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument(
        "--list", action="store_true", help="print the measures and the protocols, and end"
    )


def run(options: EvaluateOptions) -> int:
    """Measure; the table goes to stdout as Markdown. A picture that cannot be measured is named on
    stderr and left out of all means; the exit code is 2.

    Raises:
        BIRError: nothing to measure, pictures that failed, an unfit model or output, a measure
            without its originals, package or weights.
    """
    weights = options.metric_weights or usual_folder()
    if options.list:
        write_line(metrics_as_markdown(weights) + "\n\n" + protocols_as_markdown())
        return 0
    if options.scratches is not None:
        return measure_finder(options, options.scratches)
    if options.estimate is not None:
        return measure_estimator(options, options.estimate)
    if options.auto:
        return measure_choices(options)
    _require_pictures(options)
    for path in options.output:
        require_table_name(path)
        require_free(path, overwrite=options.overwrite)
    protocol = _protocol(options)
    metrics = [METRICS[name] for name in protocol.metrics]
    device = choose_device(options.device)
    evaluation = Evaluation(
        metrics,
        Settings(protocol.border, weights, device),
        has_originals=options.hq is not None,
        has_reference=options.reference is not None,
    )
    measured = list_pictures(options.results[0] if options.results else _originals(options))
    for folder in filter(None, (options.hq, *options.results, options.lq, options.reference)):
        say_left_out(find_pictures(folder)[1], folder)
    references = [] if options.reference is None else list_pictures(options.reference)
    failures = Failures(len(measured) + len(references))
    for path in tqdm(references, unit="picture", disable=None):
        try:
            with enough_memory(no_memory_for(path)):
                evaluation.add_reference(read_picture(path).image)
        except BIRError as error:
            failures.add(path, str(error))
    samples = _samples(options, protocol.multiple, device, failures)
    count = len(measured) * (SAMPLES_OF_EACH if options.old_photo else 1)
    for sample in tqdm(samples, total=count, unit="picture", disable=None):
        try:
            with enough_memory(no_memory_for(sample.name)):
                evaluation.add(sample)
        except BIRError as error:
            failures.add(Path(sample.name), str(error))
    rows = evaluation.rows()
    if not rows:
        failures.require_none("measured")
    write_line(as_markdown(rows, metrics))
    if options.old_photo:
        write_line("\n" + gains_table(rows, metrics))
    for path in options.output:
        write_table(path, rows, metrics)
    failures.require_none("measured")
    return 0


def _require_pictures(options: EvaluateOptions) -> None:
    if options.hq is None and not options.results:
        raise BIRError(
            "Expected a folder HQ of originals, or folders of results with --results, but neither "
            "came; name one."
        )
    others = [name for name in ("model", "results", "lq", "multiple") if getattr(options, name)]
    if options.old_photo and (options.hq is None or others):
        came = f"--{others[0]} came as well" if others else "none came"
        raise BIRError(
            "Expected a folder HQ of originals for --old-photo, which makes them old and mends "
            f"them, but {came}; correct the command."
        )
    if options.results and options.model:
        raise BIRError(
            "Expected either --model or --results, but both came; measure the model's results in a "
            "run of its own."
        )


def _originals(options: EvaluateOptions) -> Path:
    assert options.hq is not None  # see `_require_pictures`
    return options.hq


def _protocol(options: EvaluateOptions) -> Protocol:
    """The named protocol, or the default measures; single options change it."""
    protocol = PROTOCOLS.get(options.protocol or "", Protocol("", DEFAULT_METRICS, ""))
    return Protocol(
        protocol.name,
        tuple(dict.fromkeys(options.metric)) or protocol.metrics,
        protocol.pictures,
        border=protocol.border if options.border is None else options.border,
        multiple=options.multiple or protocol.multiple,
    )


def _samples(
    options: EvaluateOptions, multiple: int, device: torch.device, failures: Failures
) -> Iterator[Sample]:
    def on_failure(path: Path, error: BIRError) -> None:
        failures.add(path, str(error))

    if options.old_photo:
        return old_photo_samples(
            list_pictures(_originals(options)),
            options.degradation or OLD_PHOTO,
            seed=options.seed,
            device=device,
            on_failure=on_failure,
        )
    if options.results:
        return result_samples(options.results, options.hq, multiple=multiple, on_failure=on_failure)
    models = {
        str(name): load(name, device, DTYPES[options.dtype])
        for name in options.model or [DEFAULT_MODEL]
    }
    scales = {model.scale for model in models.values()}
    if len(scales) > 1:
        raise BIRError(
            f"Expected models of one scale, but {sorted(scales)} came; evaluate them one by one."
        )
    scale = scales.pop()
    originals = list_pictures(_originals(options))
    if options.lq is None:
        preset = options.degradation or f"simple_x{scale}"
        pairs = degraded_pairs(
            originals,
            preset,
            scale=scale,
            multiple=multiple,
            seed=options.seed,
            on_failure=on_failure,
        )
    else:
        pairs = folder_pairs(
            originals, options.lq, scale=scale, multiple=multiple, on_failure=on_failure
        )
    return model_samples(pairs, models, device=device, seed=options.seed)
