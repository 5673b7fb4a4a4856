"""How long the command line takes to answer, against the import of torch alone."""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from .. import __name__ as package

SIDES = {"bir --help": ("-m", package, "--help"), "import torch": ("-c", "import torch")}


def environment() -> dict[str, str]:
    """Of a process that finds this package, which may be a folder that is not installed."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def start_seconds(repeats: int) -> dict[str, float]:
    """Seconds of each side from its start to its end, the shortest of its runs. The runs of the
    sides alternate, after one of each that only fills the disk's cache."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats + 1):
        for side, arguments in SIDES.items():
            start = perf_counter()
            subprocess.run(
                [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, env=environment()
            )
            seconds[side].append(perf_counter() - start)
    return {side: min(runs[1:]) for side, runs in seconds.items()}
