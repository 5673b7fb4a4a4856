"""How long the command line takes to answer, and to restore a small picture from a cold start,
against the import of torch alone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from .. import __name__ as package
from ..pictures.files import Picture, write_picture
from .comparing import Measured
from .measuring import SEED

MODEL = "builtin-x1"
SIDE = 64  # pixels of the small picture


def environment() -> dict[str, str]:
    """Of a process that finds this package, which may be a folder that is not installed."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def compare_starts(device: str, repeats: int) -> list[Measured]:
    """Seconds of each side from the start of its process to its end, the median of its runs. The
    runs alternate, after one of each that only fills the disk's cache."""
    with tempfile.TemporaryDirectory() as folder:
        picture, restored = Path(folder, "picture.png"), Path(folder, "restored.png")
        pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))
        write_picture(picture, Picture(pixels))
        restore = ("restore", str(picture), str(restored), "--model", MODEL, "--device", device)
        sides = {
            "`import torch`": ("-c", "import torch"),
            "`bir --help`": ("-m", package, "--help"),
            f"`bir restore` of {SIDE}x{SIDE}": ("-m", package, *restore, "--overwrite"),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats + 1):
            for side, arguments in sides.items():
                start = perf_counter()
                subprocess.run(
                    [sys.executable, *arguments],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env=environment(),
                )
                seconds[side].append(perf_counter() - start)
    medians = {side: median(runs[1:]) for side, runs in seconds.items()}
    first = next(iter(medians.values()))
    return [
        Measured(side=side, seconds=own, faster=first / own, runs=repeats)
        for side, own in medians.items()
    ]
