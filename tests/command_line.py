"""Runs `bir` as a real process, on small random models."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from progress import run

from bir_core.checkpoints import save_checkpoint
from bir_core.cli import main
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

ROOT = Path(__file__).parents[1]


def command(*arguments):
    return [sys.executable, "-m", "bir_core", *map(str, arguments)]


def environment():
    """One thread: the other tests' processes share the machine. No buffer: lines come at once."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run_bir(*arguments, **options):
    """Run `bir` to its end, from the repository's root."""
    return run(command(*arguments), cwd=ROOT, env=environment(), **options)


def run_here(*arguments):
    """The same within this process, which saves the time to start one."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def save_small_model(path, task="sr", scale=1, stage=2):
    """A DiffIR of the smallest sizes with random weights, as a checkpoint file."""
    torch.manual_seed(0)
    config = DiffIRConfig(
        task=task,
        scale=scale,
        dim=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        heads=(1, 1, 2, 2),
        n_encoder_res=1,
    )
    network = (DiffIRStage2 if stage == 2 else DiffIRStage1)(config)
    save_checkpoint(network, path)
    return path
