"""The recipes that need nothing but a folder of pictures, and built-in models as starts."""

import pytest
import torch
from command_line import run_bir, run_here
from start_models import write_recipe_without_sizes, write_start

from bir_core import load_model
from bir_core.training import loop
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.state import read_state

STARTS = {
    "finetune_x4": "builtin-x4",
    "finetune_x1": "builtin-x1",
    "finetune_faces": "builtin-x1",
}
SMALL = ("data.patch=32", "data.batch=2", "data.workers=0", "validation.patch=32")
FACES = ("data.source_patch=64",)
# A step of this size changes next to nothing.
STILL = ("iterations=1", "optimizer.rate=1e-12", "ema=0.0")


def small(name):
    return (*SMALL, *(FACES if name == "finetune_faces" else ()))


def options(*changes):
    return [part for change in changes for part in ("--set", change)]


@pytest.mark.parametrize("name", STARTS)
def test_a_folder_of_pictures_is_enough(name, pictures, tmp_path, monkeypatch):
    tested = []
    restore = loop.ValidationSet.restored
    monkeypatch.setattr(
        loop.ValidationSet,
        "restored",
        lambda held_out, index, *rest: tested.append(index) or restore(held_out, index, *rest),
    )
    changes = options(*small(name), "iterations=2", "optimizer.warmup=0")
    done = run_here(
        "train", name, "--data", pictures, "--output", tmp_path, "--device", "cpu", *changes
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "model.safetensors")
    assert tested == [0]  # one of four pictures is held out
    model, start = load_model(tmp_path / "model.safetensors"), load_model(STARTS[name])
    assert model.config == start.config
    before, after = start.state_dict(), model.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before if "weight" in key)
    # Two steps: still close to where they began.
    assert all(float((before[key] - after[key]).abs().max()) < 2e-3 for key in before)
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("name", STARTS)
def test_it_begins_at_the_built_in_model(name, pictures, tmp_path):
    recipe = load_recipe(name, (*small(name), *STILL))
    model = load_model(run_recipe(recipe, data=pictures, output=tmp_path, device="cpu"))
    for key, value in load_model(STARTS[name]).state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=1e-10)


def test_they_are_short_and_listed_with_what_they_do():
    listed = run_bir("train", "--list").stdout
    for name in STARTS:
        recipe = load_recipe(name)
        assert recipe.iterations == 2000 and recipe.optimizer.rate == 2e-4
        assert recipe.optimizer.schedule.periods == (recipe.iterations,)
        assert not recipe.data.cache and recipe.validation.held_out_share == 0.1
        (line,) = (line for line in listed.splitlines() if line.split()[0] == name)
        assert "oes on from" in line


def test_fine_tuning_goes_on_after_a_stop(pictures, tmp_path):
    changes = (*SMALL, "freeze=['body']", "save_every=2", "validation.every=2")
    for output, iterations in (("whole", (4,)), ("cut", (2, 4))):
        for number in iterations:
            run_recipe(
                load_recipe("finetune_x4", (*changes, f"iterations={number}")),
                data=pictures,
                output=tmp_path / output,
                resume="auto",
                device="cpu",
            )
    for file in ("model.safetensors", "state.safetensors"):
        whole, cut = ((tmp_path / output / file).read_bytes() for output in ("whole", "cut"))
        assert whole == cut


def test_another_start_goes_before_that_of_the_recipe(pictures, tmp_path):
    start = write_start(
        "smoke_restoration_module", tmp_path / "start.safetensors", ("network.features=6",)
    )
    line = ["train", "finetune_x4", "--data", pictures, "--device", "cpu"]
    line += options(*SMALL, *STILL)
    done = run_here(*line, "--output", tmp_path / "own", "--start-from", start)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "own" / "model.safetensors").config.features == 6
    done = run_here(*line, "--output", tmp_path / "no", "--start-from", "builtin-diffir-x4")
    assert done.returncode == 2
    assert "builtin-diffir-x4 is a DiffIR stage 2 file" in done.stderr
    done = run_here(*line, "--output", tmp_path / "no", "--start-from", "builtin-x9")
    assert done.returncode == 2 and "builtin-x9" in done.stderr
    done = run_here(*line, "--output", tmp_path / "no", *options("network.features=9"))
    assert done.returncode == 2
    assert "at most 9 features" in done.stderr and "correct `network`" in done.stderr


def test_a_built_in_diffir_goes_on_without_a_stage_1(pictures, tmp_path, caplog):
    path = write_recipe_without_sizes("smoke_s2", tmp_path / "mine.toml")
    line = ["train", path, "--data", pictures, "--output", tmp_path / "out", "--device", "cpu"]
    line += ["--start-from", "builtin-diffir-x4"]
    done = run_here(*line, *options("iterations=1", "data.batch=1", "validation.every=0"))
    assert done.returncode == 0, done.stderr
    assert "without --stage1" in caplog.text
    model = load_model(tmp_path / "out" / "model.safetensors", architecture="diffir_s2")
    assert model.config == load_model("builtin-diffir-x4").config


def test_built_in_recipes_train_on_any_folder(pictures, tmp_path, caplog):
    """Though the pictures that they hold out are not in it."""
    changes = options("iterations=1", "data.patch=32", "data.batch=1", "validation.every=1")
    done = run_here(
        *("train", "builtin_x4", "--data", pictures, "--output", tmp_path / "out"),
        *("--device", "cpu", *changes),
    )
    assert done.returncode == 0, done.stderr
    assert caplog.text.count("no validation: none of the pictures to be held out is in") == 1
    assert not (tmp_path / "out" / "best.safetensors").exists()
    assert read_state(tmp_path / "out" / "state.safetensors").best is None


def test_a_start_of_another_scale_says_how_far_pictures_are_reduced(pictures, tmp_path):
    recipe = load_recipe("finetune_x1", (*SMALL, *STILL), "builtin-x4")
    assert recipe.scale == 4
    model = load_model(run_recipe(recipe, data=pictures, output=tmp_path / "out", device="cpu"))
    assert model.config.scale == 4
