"""Pairs from the frames of videos or bursts: their mean is lq, the middle one hq."""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..degradations.frames import average_frames, require_gamma
from ..errors import BIRError
from ..pictures.files import find_pictures, read_picture, write_picture
from .jobs import Job


@dataclass(frozen=True)
class Windows:
    """What was found.

    Attributes:
        jobs: one for each pair.
        left_out: frames at the ends of videos that make no whole window.
    """

    jobs: list[Job]
    left_out: int


def frame_jobs(folder: Path, output: Path, *, frames: int, gamma: float) -> Windows:
    """One job for each window of consecutive frames; windows do not overlap.

    Args:
        folder: of the frames of a video as pictures, or of such folders. Their names are sorted
            with numbers in them as numbers.
        frames: of a window, odd.
        gamma: see `average_frames`.

    Raises:
        BIRError: an even or too small number, another gamma than above 0, or no window.
    """
    require_gamma(gamma)
    if frames < 3 or frames % 2 == 0:
        raise BIRError(
            f"Expected an odd number of frames from 3 on, of which one is in the middle, but "
            f"{frames} came; GoPro has 7 to 13."
        )
    videos = {folder.resolve().name: _frames(folder)}
    if not videos[folder.resolve().name]:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
        videos = {path.name: _frames(path) for path in below}
    jobs, left_out = [], 0
    for name, paths in videos.items():
        whole = len(paths) - len(paths) % frames
        left_out += len(paths) - whole
        for start in range(0, whole, frames):
            window = paths[start : start + frames]
            target = f"{name}_{window[frames // 2].stem}.png"
            files = output / "hq" / target, output / "lq" / target
            jobs.append(Job(window[0], files, partial(_write_pair, window, files, gamma)))
    if not jobs:
        raise BIRError(
            f"Expected at least {frames} frames of a video in {folder} or in a folder in it, but "
            "there are fewer; write the frames of a video as pictures first, as ffmpeg -i VIDEO "
            "FOLDER/%06d.png does."
        )
    return Windows(jobs, left_out)


def _write_pair(window: list[Path], files: tuple[Path, Path], gamma: float) -> None:
    middle = read_picture(window[len(window) // 2])
    mean = average_frames((read_picture(path).image for path in window), gamma)
    for path, image in zip(files, (middle.image, mean), strict=True):
        write_picture(path, replace(middle, image=image, alpha=None), overwrite=True)


def _frames(folder: Path) -> list[Path]:
    return sorted(find_pictures(folder)[0], key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """The parts of a name, digits by their value."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
