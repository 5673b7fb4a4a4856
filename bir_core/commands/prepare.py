"""Bring a set of pictures from its files to what a training reads.

  bir prepare df2k FOLDER OUTPUT         squares of 480 pixels in hq/, their bicubic x4 in lq/
  bir prepare gopro FOLDER OUTPUT        train/ and test/, each with hq/ and lq/
  bir prepare frames FOLDER OUTPUT       pairs from the frames of videos: the mean of some is lq
  bir prepare laion FOLDER OUTPUT        list.jsonl of the pictures that are kept
  bir prepare df2k FOLDER --check        only say whether the set is complete

Nothing is downloaded. Counts, names, sizes and known hashes are compared with the published ones
first. Each file appears when it is complete; the same command goes on after an end."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..command_line.options import positive, read_options, write_line
from ..errors import BIRError
from ..fallbacks import enough_memory
from ..preparation.cutting import cutting_jobs
from ..preparation.filtering import LIST, Filter, filter_jobs, write_list
from ..preparation.frames import frame_jobs
from ..preparation.hashes import hashes_of_pictures, require_archives, require_picture
from ..preparation.jobs import Job, begin, run_jobs
from ..preparation.layout import Source, find_sources
from ..preparation.sets import SETS, PictureSet
from .failures import Failures, no_memory_for, no_room

FRAMES, LAION = "frames", "laion"
TITLES = {
    **{row.name: row.title for row in SETS.values()},
    FRAMES: "videos or bursts as pictures: the mean of consecutive frames and the middle one, as "
    "GoPro was made",
    LAION: "pictures with captions, as img2dataset writes them: those that are large, not too "
    "long, and described",
}
# Which set takes which option; the others take neither.
OPTIONS = {
    **{row.name: ("scale",) if row.makes_lq else () for row in SETS.values()},
    FRAMES: ("frames", "gamma"),
    LAION: ("least_side", "most_aspect", "least_words"),
}
_OWN = tuple(dict.fromkeys(name for names in OPTIONS.values() for name in names))
SCALE, WINDOW, GAMMA = 4, 7, 2.2


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What `bir prepare` is asked for; as its arguments."""

    name: str
    folder: Path
    output: Path | None = None
    check: bool = False
    partial: bool = False
    workers: int = 4
    scale: int | None = None
    frames: int | None = None
    gamma: float | None = None
    least_side: int | None = None
    most_aspect: float | None = None
    least_words: int | None = None


read = partial(read_options, PrepareOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir prepare`."""
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=tuple(TITLES),
        help="; ".join(f"{name}: {title}" for name, title in TITLES.items()),
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where its files are")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        type=Path,
        help="folder of the results, made if needed; not with --check",
    )
    parser.add_argument("--check", action="store_true", help="only say whether the set is complete")
    parser.add_argument(
        "--partial", action="store_true", help="take what is there of a published set"
    )
    parser.add_argument(
        "--workers", type=positive, default=4, help="pictures at the same time (default: 4)"
    )
    parser.add_argument(
        "--scale",
        type=int,
        choices=(1, 2, 3, 4),
        help=f"df2k, div2k: of the pairs; 1 makes no lq (default: {SCALE})",
    )
    parser.add_argument(
        "--frames", type=positive, help=f"frames: of each mean, an odd number (default: {WINDOW})"
    )
    parser.add_argument(
        "--gamma",
        type=float,
        help=f"frames: of the camera, undone before the mean; 1 for none (default: {GAMMA})",
    )
    usual = Filter()
    parser.add_argument(
        "--least-side",
        type=positive,
        help=f"laion: of the shorter side in pixels (default: {usual.least_side})",
    )
    parser.add_argument(
        "--most-aspect",
        type=float,
        help=f"laion: longer side by shorter side (default: {usual.most_aspect:g})",
    )
    parser.add_argument(
        "--least-words",
        type=positive,
        help=f"laion: words of the caption (default: {usual.least_words})",
    )


def run(options: PrepareOptions) -> int:
    """Check a set and make its results. A picture that fails is named on stderr and left out; the
    exit code is 2.

    Raises:
        BIRError: files are missing or others than published, options that the set does not take,
            or a folder that holds something else.
    """
    _require_options(options)
    if not options.folder.is_dir():
        raise BIRError(
            f"Expected the files of {options.name} in a folder at {options.folder}, but there is "
            "none; say where they were unpacked."
        )
    if options.output is not None:
        inside, outside = options.output.resolve(), options.folder.resolve()
        if inside == outside or outside in inside.parents:
            raise BIRError(
                f"Expected a folder for the results that is not within {options.folder}, but "
                f"{options.output} came; choose another one."
            )
    if options.name == FRAMES:
        return _prepare_frames(options)
    if options.name == LAION:
        return _prepare_laion(options)
    return _prepare_set(SETS[options.name], options)


def _require_options(options: PrepareOptions) -> None:
    if options.check == (options.output is not None):
        came = "both came" if options.check else "neither came"
        raise BIRError(f"Expected either OUTPUT or --check, but {came}; correct the command.")
    taken = OPTIONS[options.name]
    for name in _OWN:
        if name not in taken and getattr(options, name) is not None:
            raise BIRError(
                f"Expected no --{name.replace('_', '-')} for {options.name}, which has no use for "
                "it, but it came; leave it out."
            )
    for name in ("check", "partial"):
        if options.name not in SETS and getattr(options, name):
            raise BIRError(
                f"Expected a published set for --{name} ({', '.join(SETS)}), but {options.name} "
                "came; leave it out."
            )


def _prepare_set(row: PictureSet, options: PrepareOptions) -> int:
    scale = (options.scale or SCALE) if row.makes_lq else 1
    archives = require_archives(row, options.folder)
    sources = find_sources(row, options.folder, partial=options.partial)
    hashes = hashes_of_pictures(row, options.folder)
    failures = Failures(len(sources))
    output = options.output or Path()
    if options.output is not None:
        _begin(options, {"scale": scale} if row.makes_lq else {})
    headers = tqdm(sources, unit="picture", desc="sizes", disable=None)
    jobs = cutting_jobs(
        headers, output, scale=scale, hashes=hashes, on_failure=partial(_failed, failures)
    )
    files = sum(len(job.files) for job in jobs)
    small = len(sources) - len(jobs) - len(failures.names)
    known = f"; {', '.join(archives)} as published" if archives else ""
    too_small = f"; {small} smaller than a square" if small else ""
    write_line(f"{row.name}: {len(sources)} pictures, {files} files{too_small}{known}")
    if options.output is not None:
        _run(jobs, options, failures)
    elif hashes:
        _compare_hashes(sources, hashes, failures)
    failures.require_none("prepared")
    return 0


def _compare_hashes(sources: list[Source], hashes: dict[str, str], failures: Failures) -> None:
    for source in tqdm(sources, unit="picture", desc="hashes", disable=None):
        try:
            require_picture(source.hq, hashes)
        except BIRError as error:
            failures.add(source.hq, str(error))
    known = sum(source.hq.name in hashes for source in sources)
    write_line(f"hashes of {known} pictures compared")


def _prepare_frames(options: PrepareOptions) -> int:
    frames = WINDOW if options.frames is None else options.frames
    gamma = GAMMA if options.gamma is None else options.gamma
    windows = frame_jobs(options.folder, _output(options), frames=frames, gamma=gamma)
    _begin(options, {"frames": frames, "gamma": gamma})
    failures = Failures(len(windows.jobs))
    write_line(
        f"frames: {len(windows.jobs)} pairs of {frames} frames; {windows.left_out} frames at the "
        "ends left out"
    )
    _run(windows.jobs, options, failures)
    failures.require_none("prepared")
    return 0


def _prepare_laion(options: PrepareOptions) -> int:
    given = {name: getattr(options, name) for name in OPTIONS[LAION]}
    rule = Filter(**{name: value for name, value in given.items() if value is not None})
    output = _output(options)
    jobs = filter_jobs(options.folder, output, rule)
    _begin(options, {name: getattr(rule, name) for name in OPTIONS[LAION]})
    failures = Failures(len(jobs))
    _run(jobs, options, failures)
    failures.require_none("filtered")
    counts = write_list(jobs, output)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    write_line(f"{output / LIST}: of {counts.total()} pictures {reasons}")
    return 0


def _output(options: PrepareOptions) -> Path:
    assert options.output is not None  # see `_require_options`
    return options.output


def _begin(options: PrepareOptions, settings: dict[str, object]) -> None:
    folder = str(options.folder.resolve())
    begin(_output(options), {"set": options.name, "folder": folder, **settings})


def _run(jobs: Sequence[Job], options: PrepareOptions, failures: Failures) -> None:
    """Do what is not done, with a bar."""
    done = sum(job.is_done() for job in jobs)
    running = run_jobs(jobs, options.workers, partial(_failed, failures))
    with enough_memory(no_memory_for(options.folder)):
        for _ in tqdm(running, total=len(jobs), initial=done, unit="picture", disable=None):
            pass
    made = sum(job.is_done() for job in jobs) - done
    write_line(f"{options.output}: {made} made now, {done} were there")


def _failed(failures: Failures, source: Path, error: BIRError) -> None:
    if no_room(error):
        raise error
    failures.add(source, str(error))
