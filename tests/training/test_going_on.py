"""Stopping, saving and going on: what resume takes, and what it refuses."""

import json
import logging
import os
import re
import signal
import subprocess
import time

import pytest
from command_line import command, environment, run_bir, run_here
from progress import bounded
from safetensors import safe_open

from bir_core.errors import BIRError
from bir_core.training import loop
from bir_core.training.data import BatchSource
from bir_core.training.methods.table import load_recipe
from bir_core.training.pace import Pace, duration, stop_on_sigterm
from bir_core.training.run import run_recipe
from bir_core.training.state import read_state
from bir_core.training.validation import ValidationSet

BASE = ("data.batch=2", "save_every=2", "iterations=2")


def trained(pictures, output, *changes, **more):
    recipe = load_recipe("smoke_s1", (*BASE, *changes))
    return run_recipe(recipe, data=pictures, output=output, device="cpu", **more)


def signal_at(monkeypatch, iteration):
    """SIGTERM comes to this process while an iteration's batch is read."""
    batches = BatchSource.iterations

    def sending(self, first, last):
        for number, made in enumerate(batches(self, first, last), first):
            if number == iteration:
                os.kill(os.getpid(), signal.SIGTERM)
            yield made

    monkeypatch.setattr(BatchSource, "iterations", sending)


def test_sigterm_saves_and_the_training_goes_on_to_the_same_bytes(pictures, tmp_path, monkeypatch):
    changes = ("iterations=6", "save_every=100", "data.pool=4")
    whole = trained(pictures, tmp_path / "whole", *changes)
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signal_at(patch, 3)
        with pytest.raises(BIRError, match="SIGTERM came; iteration 3 is saved: .*--resume"):
            trained(pictures, tmp_path / "cut", *changes)
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_state(tmp_path / "cut" / "state.safetensors").iteration == 3
    model = trained(pictures, tmp_path / "cut", *changes, resume="auto")
    assert model.read_bytes() == whole.read_bytes()


def test_a_process_that_gets_sigterm_ends_with_a_sentence(pictures, tmp_path):
    settings = ("--set", "save_every=1", "--set", "iterations=100000", "--device", "cpu")
    line = ("train", "smoke_s1", "--data", pictures, "--output", tmp_path / "out", *settings)
    process = subprocess.Popen(
        command(*line), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with bounded("the first state", process.pid):
        while not (tmp_path / "out" / "state.safetensors").exists():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 2
    assert re.search(rb"bir: .*SIGTERM came; iteration \d+ is saved", errors), errors


def test_resume_auto_starts_where_nothing_is_and_goes_on_where_a_state_is(pictures, tmp_path):
    trained(pictures, tmp_path, resume="auto")
    trained(pictures, tmp_path, "iterations=3", resume="auto")
    assert read_state(tmp_path / "state.safetensors").iteration == 3


@pytest.mark.parametrize(
    "change",
    ["data.workers=1", "data.cache=true", "save_minutes=3.0", "keep=1", "validation.border=2"],
)
def test_resume_takes_what_leaves_the_weights_alone(pictures, tmp_path, change):
    whole = trained(pictures, tmp_path / "whole", "iterations=3").with_name("state.safetensors")
    trained(pictures, tmp_path / "cut")
    trained(pictures, tmp_path / "cut", "iterations=3", change, resume=True)
    state = read_state(tmp_path / "cut" / "state.safetensors")
    expected = read_state(whole).tensors
    assert all(value.equal(expected[name]) for name, value in state.tensors.items())


@pytest.mark.parametrize("change", ["optimizer.rate=1e-5", "optimizer.clip=0.5"])
def test_resume_takes_what_the_advice_says_and_tells(pictures, tmp_path, caplog, change):
    """The error of a loss that is not finite advises a lower rate or clipping."""
    trained(pictures, tmp_path)
    trained(pictures, tmp_path, "iterations=3", change, resume=True)
    key, _, value = change.partition("=")
    assert f"resumed after iteration 2 with another `{key}`: {float(value)}" in caplog.text


@pytest.mark.parametrize(
    "change", ["data.batch=1", "optimizer.betas=[0.8, 0.9]", "seed=5", "validation.held_out=['a']"]
)
def test_resume_refuses_another_mathematics(pictures, tmp_path, change):
    trained(pictures, tmp_path)
    with pytest.raises(BIRError, match=f"`{change.partition('=')[0]}` is"):
        trained(pictures, tmp_path, change, resume=True, validation=pictures)


def test_the_last_models_are_kept(pictures, tmp_path):
    last = trained(pictures, tmp_path, "iterations=4", "save_every=1", "keep=2")
    kept = sorted(path.name for path in tmp_path.glob("model_*"))
    assert kept == ["model_3.safetensors", "model_4.safetensors"]
    assert (tmp_path / kept[-1]).read_bytes() == last.read_bytes()


def test_minutes_save_beside_iterations(pictures, tmp_path):
    """6e-7 minutes are over after every iteration."""
    changes = ("iterations=3", "save_every=100", "keep=9")
    trained(pictures, tmp_path / "minutes", *changes, "save_minutes=6e-7")
    assert len(list((tmp_path / "minutes").glob("model_*"))) == 3
    trained(pictures, tmp_path / "iterations", *changes)
    assert len(list((tmp_path / "iterations").glob("model_*"))) == 1


NAN = float("nan")


@pytest.fixture
def measured(monkeypatch):
    """Gives each validation the next values of PSNR, SSIM and LPIPS in a list."""
    coming = []
    validate = loop.Run.validate

    def next_values(self, *arguments):
        current = dict(zip(("psnr", "ssim", "lpips"), coming.pop(0), strict=True))
        names = self.validation.measures
        monkeypatch.setattr(
            ValidationSet, "measure", lambda *_: {name: current[name] for name in names}
        )
        validate(self, *arguments)

    monkeypatch.setattr(loop.Run, "validate", next_values)
    return coming


def best_of(output):
    """Value and iteration of the best model."""
    with safe_open(output / "best.safetensors", "pt") as file:
        iteration = json.loads(file.metadata()["training"])["iteration"]
    return read_state(output / "state.safetensors").best, iteration


@pytest.mark.parametrize(("best", "iteration"), [("psnr", 2), ("ssim", 3), ("lpips", 4)])
def test_best_by_its_measure_and_never_by_nan(
    pictures, tmp_path, lpips_weights, measured, best, iteration
):
    measured += [(NAN, NAN, NAN), (30.0, 0.5, 0.4), (29.0, 0.9, NAN), (20.0, NAN, 0.3)]
    changes = ("iterations=4", "validation.every=1", f"validation.best={best}")
    trained(pictures, tmp_path, *changes, validation=pictures)
    assert best_of(tmp_path)[1] == iteration


@pytest.mark.parametrize(
    ("best", "third", "kept"),
    [("psnr", 29.0, 2), ("psnr", 31.0, 3), ("lpips", 0.25, 2), ("lpips", 0.15, 3)],
)
def test_resume_keeps_the_best_and_which_way_is_better(
    pictures, tmp_path, lpips_weights, measured, best, third, kept
):
    measured += [(29.5, 0.5, 0.3), (30.0, 0.5, 0.2), (third, 0.5, third), (NAN, NAN, NAN)]
    changes = ("validation.every=1", f"validation.best={best}")
    trained(pictures, tmp_path, *changes, validation=pictures)
    assert best_of(tmp_path)[1] == 2
    trained(pictures, tmp_path, *changes, "iterations=4", resume=True, validation=pictures)
    value, iteration = best_of(tmp_path)
    assert iteration == kept
    expected = third if kept == 3 else {"psnr": 30.0, "lpips": 0.2}[best]
    assert value == pytest.approx(expected)  # sums of processes are in float32


@pytest.mark.parametrize("best", ["ssim", "lpips"])
def test_best_of_another_measure_is_forgotten(pictures, tmp_path, lpips_weights, measured, best):
    measured += [(30.0, 0.5, 0.4), (30.0, 0.5, 0.4), (30.0, 0.5, 0.4)]
    trained(pictures, tmp_path, "validation.every=1", validation=pictures)
    changes = ("iterations=3", "validation.every=1", f"validation.best={best}")
    trained(pictures, tmp_path, *changes, resume=True, validation=pictures)
    assert best_of(tmp_path)[0] == pytest.approx({"ssim": 0.5, "lpips": 0.4}[best])


def test_the_log_estimates_the_time_left(pictures, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "duration", lambda seconds: f"{seconds > 0} time")
    with caplog.at_level(logging.INFO, "bir_core.training"):
        trained(pictures, tmp_path)
    assert re.search(r"iteration 1 of 2: .*; about True time left", caplog.text)
    assert re.search(r"iteration 2 of 2: .*; about False time left", caplog.text)


def test_pace_counts_from_the_iteration_that_was_resumed():
    now = 100.0
    pace = Pace(11, 30, save_minutes=1.0, clock=lambda: now)
    now += 50
    assert pace.left(15) == 50 / 5 * 15
    assert not pace.save_is_due()
    now += 10
    assert pace.save_is_due()
    pace.was_saved()
    assert not pace.save_is_due()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min")]
    + [(86390, "1 d 0 h"), (190800, "2 d 5 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_sigterm_is_only_noted():
    with stop_on_sigterm() as stop:
        assert not stop.came
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.came


def test_recipes_are_listed_and_shown_without_data():
    listed = run_bir("train", "--list")
    assert listed.returncode == 0
    assert re.search(r"^smoke_s1 +A tiny stage 1", listed.stdout, re.MULTILINE)
    shown = run_bir("train", "--show", "smoke_s1")
    assert shown.returncode == 0 and 'method = "diffir_s1"' in shown.stdout
    wrong = run_here("train", "--show", "smoke_s11")
    assert wrong.returncode == 2 and "did you mean smoke_s1" in wrong.stderr
