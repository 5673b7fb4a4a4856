"""Tables of losses in the trainings of DiffIR and SwinIR."""

import copy

import pytest
import torch
from start_models import write_start
from training_steps import first_step

from bir_core import load_model
from bir_core.errors import BIRError
from bir_core.training import loop
from bir_core.training.losses import charbonnier, log_squared_error, pixel_l2, prior_l1
from bir_core.training.methods.table import load_recipe, make_training
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

TWO = "losses={ charbonnier = { weight = 2.0 }, log_squared_error = { weight = 0.1 } }"
GAN = (
    "losses={ l1 = { weight = 1.0 }, "
    "gan = { weight = 0.1, start = 3, features = 4, feature_matching = 1.0 } }"
)
SMALL = ("data.batch=2", "validation.every=0")
JOINT = ("encoder_iterations=1",)  # a first phase without iterations


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """What each recipe starts from, by its name."""
    folder = tmp_path_factory.mktemp("starts")
    s1 = write_start("smoke_s1", folder / "s1.safetensors")
    s2 = write_start("smoke_s2", folder / "s2.safetensors")
    return {
        "smoke_s1": StartFiles(start_from=s1),
        "smoke_s2": StartFiles(stage1=s1, start_from=s2),
        "smoke_s2 alone": StartFiles(start_from=s2),
        "smoke_swinir": StartFiles(),
    }


def restored(name, model, batch, stage1):
    """As the loss has it, and the prior's error."""
    generator = copy.deepcopy(batch.generator)
    if name == "smoke_s1":
        return model(batch.lq, batch.hq), 0.0
    if name == "smoke_swinir":
        return model(batch.lq, generator), 0.0
    noise = torch.randn(2, 256, generator=generator)
    if stage1 is None:
        return model(batch.lq, noise), 0.0
    wanted = load_model(stage1).encode(batch.lq, batch.hq)
    z = model.prior(batch.lq, model.diffusion.q_sample(wanted, noise))
    return model.G(batch.lq, z), prior_l1(z, wanted)


@pytest.mark.parametrize("case", ["smoke_s1", "smoke_s2", "smoke_s2 alone", "smoke_swinir"])
def test_the_total_is_the_weighted_sum(case, starts, pictures, tmp_path):
    name, files = case.split()[0], starts[case]
    changes = (*SMALL, TWO, *(("prior_weight=0.25", *JOINT) if "s2" in name else ()))
    recipe = load_recipe(name, changes)
    before, batch, shown, _ = first_step(recipe, files, pictures, tmp_path)
    with torch.no_grad():
        picture, prior = restored(name, before.model.train(), batch, files.stage1)
    smooth, logarithm = charbonnier(picture, batch.hq), log_squared_error(picture, batch.hq)
    assert shown["network/charbonnier"] == pytest.approx(float(smooth), rel=1e-4)
    assert shown["network/log_squared_error"] == pytest.approx(float(logarithm), rel=1e-4)
    total = 2 * smooth + 0.1 * logarithm + 0.25 * prior
    assert shown["network/total"] == pytest.approx(float(total), rel=1e-4)
    assert "network/pixel" not in shown and "network/mse" not in shown


@pytest.mark.parametrize("case", ["smoke_s1", "smoke_s2 alone"])
def test_without_a_table_it_is_l1(case, starts, pictures, tmp_path):
    """The same numbers and gradients, to the bit, as a table with L1 alone."""
    numbers, gradients = [], []
    for change in ((), ("losses={ l1 = { weight = 1.0 } }",)):
        recipe = load_recipe(case.split()[0], (*SMALL, *change))
        assert (recipe.losses is None) == (not change)
        _, _, shown, gradient = first_step(recipe, starts[case], pictures, tmp_path / case)
        numbers.append(shown["network/total"])
        gradients.append(gradient["network"])
    assert numbers[0] == numbers[1]
    assert all(map(torch.equal, *gradients))


def test_without_a_table_swinir_sums_squares(starts, pictures, tmp_path):
    recipe = load_recipe("smoke_swinir", (*SMALL, "network.drop_path=0"))
    before, batch, shown, _ = first_step(recipe, StartFiles(), pictures, tmp_path)
    squares = pixel_l2(before.model(batch.lq), batch.hq).detach()
    assert shown["network/total"] == pytest.approx(float(squares) * batch.hq.numel(), rel=1e-4)


@pytest.mark.parametrize("case", ["smoke_s1", "smoke_s2", "smoke_s2 alone", "smoke_swinir"])
def test_a_discriminator_learns_beside_and_goes_on(case, starts, pictures, tmp_path, monkeypatch):
    name, files = case.split()[0], starts[case]
    shown = {}
    step = loop.Run.step

    def record(run, iteration, batches):
        shown[iteration] = step(run, iteration, batches)
        return shown[iteration]

    monkeypatch.setattr(loop.Run, "step", record)
    first = ("encoder_iterations=2",) if name == "smoke_s2" else ()
    changes = (*SMALL, *first, GAN, "save_every=3")

    def train(iterations, output, **more):
        recipe = load_recipe(name, (*changes, f"iterations={iterations}"))
        options = {"data": pictures, "files": files, "device": "cpu", **more}
        return run_recipe(recipe, output=tmp_path / output, **options)

    train(5, "whole")
    assert ("discriminator/total" in shown[1]) == (case != "smoke_s2")  # the prior learns first
    assert "discriminator/total" in shown[2] and "network/gan" not in shown[2]
    assert {"network/gan", "network/feature_matching"} <= set(shown[3])
    train(3, "cut")
    at_three = read_state(tmp_path / "cut" / "state.safetensors").part("other.discriminator")
    train(5, "cut", resume=True)
    for file in ("model.safetensors", "state.safetensors"):
        whole = (tmp_path / "whole" / file).read_bytes()
        assert (tmp_path / "cut" / file).read_bytes() == whole
    at_five = read_state(tmp_path / "cut" / "state.safetensors").part("other.discriminator")
    assert any(not torch.equal(at_three[key], at_five[key]) for key in at_three)
    model = load_model(tmp_path / "cut" / "model.safetensors")
    assert not any("discriminator" in key for key in model.state_dict())


@pytest.mark.parametrize("name", ["smoke_s1", "smoke_s2 alone", "smoke_swinir"])
def test_files_of_losses(name, starts, tmp_path, monkeypatch):
    """VGG19 comes by --perceptual, and only where the table has it."""
    files = starts[name]
    recipe = name.split()[0]
    needless = StartFiles(start_from=files.start_from, perceptual=tmp_path / "vgg19.pth")
    for change in ((), (TWO,)):
        with pytest.raises(BIRError, match="weight is 0 takes no --perceptual"):
            make_training(load_recipe(recipe, change), needless)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nothing"))
    vgg19 = "losses={ l1 = { weight = 1.0 }, vgg19 = { weight = 1.0 } }"
    with pytest.raises(BIRError, match="VGG19 at"):
        make_training(load_recipe(recipe, (vgg19,)), files)
    with pytest.raises(BIRError, match=r"vgg19\.pth"):
        make_training(load_recipe(recipe, (vgg19,)), needless)


def test_a_frozen_body_with_a_table(starts, pictures, tmp_path):
    """The discriminator is no part of the network, and learns."""
    changes = (*SMALL, GAN, "freeze=['body']")
    recipe = load_recipe("smoke_s1", changes)
    training = make_training(recipe, starts["smoke_s1"])
    network, discriminator = training.phases[0].updates
    assert len(network.parameters) == sum(len(training.parts[part]) for part in ("encoder", "tail"))
    assert len(discriminator.parameters) == len(list(training.others["discriminator"].parameters()))


def test_weights_of_the_prior_out_of_range_are_refused():
    with pytest.raises(BIRError, match="prior_weight"):
        load_recipe("smoke_s2", ("prior_weight=-1.0",))
    with pytest.raises(BIRError, match="loss"):
        load_recipe("smoke_s2", ("losses={}",))
