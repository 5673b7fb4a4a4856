"""Whole trainings with the smoke recipes, as real processes where they are killed."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import command, environment, run_here
from training_pictures import write_pictures

from bir_core import load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.errors import BIRError
from bir_core.training import loop
from bir_core.training.diffir import stage1_training
from bir_core.training.recipe import load_recipe, recipe_to_table
from bir_core.training.run import run_recipe
from bir_core.training.state import TrainingState, read_state, save_state

ROOT = Path(__file__).parents[2]
# Small enough for a process that has to be started, killed and started again.
SHORT = ("data.batch=2", "save_every=10", "iterations=40")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def stage1_file(pictures, tmp_path_factory):
    recipe = load_recipe("smoke_s1", ("iterations=5",))
    return run_recipe(recipe, data=pictures, output=tmp_path_factory.mktemp("s1") / "out", device="cpu")


def arguments(recipe, pictures, output, *more, changes=SHORT):
    settings = [part for change in changes for part in ("--set", change)]
    return ["train", recipe, "--data", pictures, "--output", output, "--device", "cpu", *settings, *more]


def losses(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_stage_1_learns_and_its_model_opens(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    model = run_recipe(
        load_recipe("smoke_s1"), data=pictures, output=tmp_path, validation=pictures, device="cpu"
    )
    values = losses(tmp_path, "network/total")
    assert len(values) == 60
    assert sum(values[-10:]) < 0.8 * sum(values[:10])
    quality = losses(tmp_path, "validation/psnr")
    assert len(quality) == 3
    assert quality[-1] > quality[0]
    assert load_model(model).info.architecture == "diffir_s1"
    assert load_model(tmp_path / "best.safetensors").info.scale == 4


def test_stage_2_learns_in_two_phases(pictures, stage1_file, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    recipe = load_recipe("smoke_s2")
    model = run_recipe(recipe, data=pictures, output=tmp_path, stage1=stage1_file, device="cpu")
    prior = losses(tmp_path, "encoder/total")
    assert len(prior) == recipe.encoder_iterations - 1
    assert prior[-1] < 0.8 * prior[0]
    joint = losses(tmp_path, "network/total")
    assert len(prior) + len(joint) == recipe.iterations
    assert sum(joint[-10:]) < 0.8 * sum(joint[:10])
    assert load_model(model, architecture="diffir_s2")(torch.rand(1, 3, 8, 8)).shape[-1] == 32


def test_first_phase_leaves_g_as_stage_1_made_it(pictures, stage1_file, tmp_path):
    recipe = load_recipe("smoke_s2", ("iterations=15", "ema=0.0"))
    model = load_model(
        run_recipe(recipe, data=pictures, output=tmp_path, stage1=stage1_file, device="cpu")
    )
    before = load_model(stage1_file).G.state_dict()
    after = model.G.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def killed_and_resumed(first, resumed, output, killed_after):
    """Run `first`, kill it without warning once the state of an iteration is saved, run `resumed`."""
    process = subprocess.Popen(
        command(*first), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    state = output / "state.safetensors"
    deadline = time.monotonic() + 100
    while not (state.exists() and read_state(state).iteration >= killed_after):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    process.wait()
    process.stderr.close()
    done = read_state(state).iteration
    finished = subprocess.run(
        command(*resumed), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert finished.returncode == 0, finished.stderr
    return done


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("smoke_s1", ("data.pool=4", "data.accumulate=2", "optimizer.clip=0.1")),
        ("smoke_s2", ("data.workers=1", "precision=bf16")),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bytes(pictures, stage1_file, tmp_path, recipe, changes):
    stage1 = ["--stage1", stage1_file] if recipe.endswith("s2") else []
    changes = (*SHORT, *changes)

    def line(output, *more):
        return arguments(recipe, pictures, output, *stage1, *more, changes=changes)

    uncut = subprocess.run(
        command(*line(tmp_path / "uncut")), cwd=ROOT, env=environment(), capture_output=True, timeout=100
    )
    assert uncut.returncode == 0, uncut.stderr.decode()
    cut = tmp_path / "cut"
    done = killed_and_resumed(line(cut), line(cut, "--resume"), cut, killed_after=10)
    assert done < 40, "the training was over before it was killed; make it longer"
    for name in ("model.safetensors", "state.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "uncut" / name).read_bytes()
    assert not list(cut.glob(".*safetensors")), "half-written files are left"
