"""Trainings that go on from a model, whose sizes they take."""

import re

import pytest
import torch
from start_models import NETWORKS, write_recipe_without_sizes, write_start
from training_steps import first_step

from bir_core import load_model
from bir_core.errors import BIRError
from bir_core.training.losses import pixel_l1
from bir_core.training.methods.table import load_recipe, make_training
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

SHORT = ("iterations=4", "save_every=2", "validation.every=0", "data.batch=2")
# A step of this size changes next to nothing.
STILL = ("iterations=1", "optimizer.rate=1e-12", "ema=0.0", "validation.every=0", "data.batch=2")
# Sizes that are not those of the recipe.
OTHER_SIZES = {
    "smoke_s1": "network.dim=16",
    "smoke_s2": "network.n_encoder_res=2",
    "smoke_inpainting_s1": "network.num_blocks=[1, 1, 1, 2]",
    "smoke_inpainting_s2": "network.n_encoder_res=0",
    "smoke_swinir": "network.embed_dim=12",
    "smoke_restoration_module": "network.layers=3",
    "smoke_estimate": "network.hidden=5",
}


def train(recipe, data, output, **more):
    return run_recipe(recipe, data=data, output=output, device="cpu", **more)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_start_gives_sizes_and_weights(name, pictures, tmp_path):
    start = write_start(name, tmp_path / "start.safetensors", (OTHER_SIZES[name],))
    path = write_recipe_without_sizes(name, tmp_path / "mine.toml")
    recipe = load_recipe(path, STILL, start)
    assert recipe.network == load_recipe(name, (OTHER_SIZES[name],)).network
    trained = load_model(train(recipe, pictures, tmp_path / "out")).state_dict()
    for key, value in load_model(start).state_dict().items():
        torch.testing.assert_close(trained[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_start_of_other_sizes_is_refused(name, pictures, tmp_path):
    start = write_start(name, tmp_path / "start.safetensors", (OTHER_SIZES[name],))
    with pytest.raises(BIRError, match=rf"Expected a .* in {re.escape(str(start))}, but it h"):
        make_training(load_recipe(name, STILL, start), StartFiles())
    # The same where only the files of the training name it.
    with pytest.raises(BIRError, match="correct `network`"):
        make_training(load_recipe(name, STILL), StartFiles(start_from=start))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_start_of_another_kind_is_refused(name, tmp_path):
    other = "smoke_swinir" if name != "smoke_swinir" else "smoke_s1"
    start = write_start(other, tmp_path / "start.safetensors")
    with pytest.raises(BIRError, match="but .*start.safetensors is a .* file"):
        load_recipe(name, (), start)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_goes_on_to_the_same_bytes(name, pictures, tmp_path):
    start = write_start(name, tmp_path / "start.safetensors")
    recipe = load_recipe(name, SHORT, start)
    whole = train(recipe, pictures, tmp_path / "whole")
    train(load_recipe(name, (*SHORT, "iterations=2"), start), pictures, tmp_path / "cut")
    cut = train(recipe, pictures, tmp_path / "cut", resume=True)
    for file in ("model.safetensors", "state.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    before, after = (load_model(path).state_dict() for path in (start, cut))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert whole.read_bytes() == cut.read_bytes()


def test_the_place_of_the_start_may_change_and_is_not_told(pictures, tmp_path):
    start = write_start("smoke_restoration_module", tmp_path / "start.safetensors")
    short = (*SHORT, "iterations=2")
    model = train(load_recipe("smoke_restoration_module", short, start), pictures, tmp_path / "out")
    assert str(tmp_path).encode() not in model.read_bytes()
    assert b'\\"start_from\\": \\"start.safetensors\\"' in model.read_bytes()
    moved = start.rename(tmp_path / "moved.safetensors")
    recipe = load_recipe("smoke_restoration_module", SHORT, moved)
    train(recipe, pictures, tmp_path / "out", resume=True)
    assert read_state(tmp_path / "out" / "state.safetensors").iteration == 4


def test_the_file_of_the_command_line_goes_before_that_of_the_recipe(tmp_path):
    first = write_start("smoke_s1", tmp_path / "first.safetensors")
    second = write_start("smoke_s1", tmp_path / "second.safetensors", ("network.dim=16",))
    changes = (f"start_from='{first}'",)
    assert load_recipe("smoke_s1", changes).start_from == str(first)
    path = write_recipe_without_sizes("smoke_s1", tmp_path / "mine.toml")
    assert load_recipe(path, changes).network.dim == 8
    recipe = load_recipe(path, changes, second)
    assert (recipe.start_from, recipe.network.dim) == (str(second), 16)
    # And the files of the training before both.
    with pytest.raises(BIRError, match=r"in .*first.safetensors, but it holds"):
        make_training(recipe, StartFiles(start_from=first))


def test_a_recipe_changes_single_sizes_of_its_start(tmp_path):
    """What the recipe leaves out is the start's, also what a file does not say."""
    deeper = ("network.n_denoise_res=2",)
    start = write_start("smoke_s2", tmp_path / "s2.safetensors", deeper)
    assert load_recipe("smoke_s2", (), start).network.n_denoise_res == 2
    start = write_start("smoke_swinir", tmp_path / "swinir.safetensors")
    path = write_recipe_without_sizes("smoke_swinir", tmp_path / "swinir.toml")
    network = load_recipe(path, ("network.drop_path=0.3",), start).network
    assert (network.drop_path, network.embed_dim, network.depths) == (0.3, 16, (2, 2))
    path = write_recipe_without_sizes("smoke_restoration_module", tmp_path / "compact.toml")
    changes = ("start_from=builtin-x1", "network.scale=4")
    recipe = load_recipe(path, changes)
    assert (recipe.scale, recipe.network.features, recipe.network.layers) == (4, 32, 10)
    model = make_training(recipe, StartFiles()).model
    assert torch.equal(model.body[2].weight, load_model("builtin-x1").body[2].weight)


def test_sizes_have_to_come_from_somewhere(tmp_path):
    path = write_recipe_without_sizes("smoke_s1", tmp_path / "mine.toml")
    with pytest.raises(BIRError, match="key network"):
        load_recipe(path)
    with pytest.raises(BIRError, match="type str"):
        load_recipe("smoke_s1", ("start_from=3",))
    with pytest.raises(BIRError, match="absent.safetensors"):
        load_recipe("smoke_s1", ("start_from=absent.safetensors",))


@pytest.mark.parametrize("name", ["smoke_s2", "smoke_inpainting_s2"])
def test_stage_2_needs_a_stage_1_or_a_start(name):
    with pytest.raises(BIRError, match="give it with --stage1 or --start-from"):
        make_training(load_recipe(name), StartFiles())


def test_stage_2_alone_learns_from_the_picture_that_noise_gives(pictures, tmp_path, caplog):
    start = write_start("smoke_s2", tmp_path / "start.safetensors")
    recipe = load_recipe("smoke_s2", ("data.batch=2",), start)
    before, batch, shown, gradients = first_step(recipe, StartFiles(), pictures, tmp_path / "out")
    assert len(before.phases) == 1
    assert "the first 19 iterations learn the prior of a stage 1" in caplog.text
    noise = torch.randn(2, 256, generator=batch.generator)
    model = before.model.requires_grad_(True)
    loss = pixel_l1(model(batch.lq, noise), batch.hq)
    loss.backward()
    assert shown == {"network/total": pytest.approx(float(loss.detach()), rel=1e-5)}
    for parameter, gradient in zip(model.parameters(), gradients["network"], strict=True):
        largest = float(parameter.grad.abs().max())
        assert largest > 0  # also condition and denoiser learn
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-3 * largest)


def test_stage_2_from_a_start_still_learns_the_prior_of_a_stage_1(pictures, tmp_path):
    start = write_start("smoke_s2", tmp_path / "start.safetensors")
    stage1 = write_start("smoke_s1", tmp_path / "s1.safetensors")
    recipe = load_recipe("smoke_s2", ("data.batch=2",), start)
    training = make_training(recipe, StartFiles(stage1=stage1))
    assert [phase.first for phase in training.phases] == [1, recipe.encoder_iterations]
    own = load_model(start).state_dict()
    for key, value in training.model.state_dict().items():
        assert torch.equal(value, own[key])
    changes = ("data.batch=2", "encoder_iterations=1")
    recipe = load_recipe("smoke_s2", changes, start)
    _, _, shown, _ = first_step(recipe, StartFiles(stage1=stage1), pictures, tmp_path / "out")
    assert shown["network/prior"] > 0


def test_inpainting_alone_has_no_loss_of_the_prior(pictures, tmp_path):
    start = write_start("smoke_inpainting_s2", tmp_path / "start.safetensors")
    stage1 = write_start("smoke_inpainting_s1", tmp_path / "s1.safetensors")
    recipe = load_recipe("smoke_inpainting_s2", ("data.batch=2",), start)
    shown = [
        first_step(recipe, files, pictures, tmp_path / "out")[2]
        for files in (StartFiles(), StartFiles(stage1=stage1))
    ]
    assert "network/prior" not in shown[0] and shown[1]["network/prior"] > 0
    assert shown[0]["network/known"] > 0
