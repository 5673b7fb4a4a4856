"""Training of DiffBIR's stage 1."""

import pytest
import torch
from tolerances import SPLIT_GRADIENT
from training_pictures import write_pictures

from bir_core import load_model
from bir_core.degradations import get_preset
from bir_core.errors import BIRError
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.pictures.files import read_picture
from bir_core.training import loop
from bir_core.training.data import Batch
from bir_core.training.methods.swinir import SwinIRLoss, swinir_training
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

PAIRS = ("data.degradation=pairs", "network.drop_path=0", "iterations=1", "validation.every=0")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two pairs of exactly one patch, so that a batch of two has both of them whole."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed, name in enumerate(("lq", "hq")):
        write_pictures(folder / name, count=2, size=(64, 64), seed=seed)
    return folder


def train(recipe, changes, data, output, **more):
    return run_recipe(load_recipe(recipe, changes), data=data, output=output, device="cpu", **more)


def shown(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.mark.parametrize(("batch", "accumulate"), [(2, 1), (1, 2)])
def test_one_step_is_adam_on_the_sum_of_squares_of_the_whole_batch(
    pairs, tmp_path, batch, accumulate
):
    changes = (*PAIRS, f"data.batch={batch}", f"data.accumulate={accumulate}")
    trained = load_model(train("smoke_swinir", changes, pairs, tmp_path))
    recipe = load_recipe("smoke_swinir", changes)
    model = swinir_training(recipe, StartFiles()).model
    lq, hq = (
        torch.cat([read_picture(pairs / part / f"picture_{i}.png").image for i in range(2)])
        for part in ("lq", "hq")
    )
    residual = model(lq) - hq
    (residual**2).sum().backward()
    # The last bias is added to every pixel, so its gradient needs no network.
    bias = 2 * residual.detach().sum(dim=(0, 2, 3))
    torch.testing.assert_close(model.conv_last.bias.grad, bias, rtol=1e-4, atol=1e-2)
    moments = read_state(tmp_path / "state.safetensors").part("optimizer.network")
    after = dict(trained.named_parameters())
    for index, (name, before) in enumerate(model.named_parameters()):
        gradient = before.grad
        tolerance = SPLIT_GRADIENT * float(gradient.abs().max())
        moment = moments[f"{index}.exp_avg"] / 0.1
        torch.testing.assert_close(moment, gradient, rtol=0, atol=tolerance)
        # Adam's first step, m / (1 - beta1) = g and v / (1 - beta2) = g^2; where g is as small as
        # the difference of the two ways to sum, its sign is left to chance.
        expected = before.detach() - 2e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > tolerance
        torch.testing.assert_close(after[name][clear], expected[clear], rtol=0, atol=2e-5)
    assert clear.all()  # of the last bias


def test_any_split_over_micro_batches_or_processes_is_one_batch():
    torch.manual_seed(0)
    model = SwinIR(SwinIRConfig(embed_dim=12, depths=(2,), num_heads=(2,), drop_path=0))
    lq, hq = torch.rand(2, 4, 3, 64, 64)
    loss = SwinIRLoss(model)
    gradients = []
    for parts in (1, 2, 4):
        model.zero_grad()
        for index in range(parts):
            mine = slice(index * 4 // parts, (index + 1) * 4 // parts)
            batch = Batch(lq[mine], hq[mine], torch.Generator(), micro_batches=parts)
            (loss(batch)["total"] / parts).backward()  # as loop and processes average
        gradients.append(model.conv_hr.weight.grad.clone())
    for split in gradients[1:]:
        atol = SPLIT_GRADIENT * float(gradients[0].abs().max())
        torch.testing.assert_close(split, gradients[0], rtol=0, atol=atol)
    mse = loss(Batch(lq, hq, torch.Generator()))["mse"]
    torch.testing.assert_close(mse, (model(lq) - hq).detach().square().mean())


def test_learns_and_its_model_opens(pictures, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    changes = ("iterations=30", "validation.every=15", "data.batch=2")
    model = train("smoke_swinir", changes, pictures, tmp_path, validation=pictures)
    values = shown(tmp_path, "network/total")
    assert len(values) == 30
    assert values[-1] < 0.85 * values[0]
    quality = shown(tmp_path, "validation/psnr")
    assert len(quality) == 2 and all(5 < value < 60 for value in quality)
    network = load_model(model)
    assert network.info.architecture == "swinir"
    lq = read_picture(pictures / "picture_0.png").image
    spandrel = pytest.importorskip("spandrel")
    theirs = spandrel.ModelLoader().load_from_file(model).eval()
    padded = lq[..., :64, :64]
    torch.testing.assert_close(theirs.model(padded), network(padded), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [("data.pool=4",), ("data.batch=1", "data.accumulate=2", "precision=bf16")]
)
def test_a_cut_training_goes_on_to_the_same_bytes(pictures, tmp_path, changes):
    changes = ("data.batch=2", *changes, "save_every=2", "network.drop_path=0.5")
    before = torch.get_rng_state()
    train("smoke_swinir", (*changes, "iterations=4"), pictures, tmp_path / "whole")
    train("smoke_swinir", (*changes, "iterations=2"), pictures, tmp_path / "cut")
    train("smoke_swinir", (*changes, "iterations=4"), pictures, tmp_path / "cut", resume=True)
    for name in ("model.safetensors", "state.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert torch.equal(before, torch.get_rng_state())


def test_checkpointing_changes_memory_only(pictures, tmp_path):
    states = []
    for value in ("true", "false"):
        changes = ("iterations=2", "network.drop_path=0.5", f"checkpointing={value}")
        model = train("smoke_swinir", changes, pictures, tmp_path / value)
        states.append(load_model(model).state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])


def test_fine_tuning_starts_from_a_file(pictures, tmp_path):
    first = train("smoke_swinir", ("iterations=2",), pictures, tmp_path / "first")
    changes = ("iterations=1", "optimizer.rate=1e-9")
    second = train(
        "smoke_swinir", changes, pictures, tmp_path / "second", files=StartFiles(start_from=first)
    )
    one, two = (load_model(path).state_dict() for path in (first, second))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-7)


def test_what_does_not_fit_is_said(pictures, tmp_path):
    start = train("smoke_swinir", ("iterations=1",), pictures, tmp_path / "first")
    with pytest.raises(BIRError, match="of the recipe's sizes"):
        recipe = load_recipe("smoke_swinir", ("network.embed_dim=12",))
        swinir_training(recipe, StartFiles(start_from=start))
    with pytest.raises(BIRError, match="4 times smaller"):
        changes = ("network.unshuffle=1", "network.upsample=4")
        train("smoke_swinir", changes, pictures, tmp_path / "second")
    with pytest.raises(BIRError, match="divide by 64"):
        load_recipe("smoke_swinir", ("data.patch=72",))
    with pytest.raises(BIRError, match="takes no --stage1"):
        train("smoke_swinir", (), pictures, tmp_path, files=StartFiles(stage1=start))


@pytest.mark.parametrize(
    ("name", "iterations"),
    [("v1", 150_000), ("codeformer", 150_000), ("face", 150_000), ("realsrgan_x4", 100_000)],
)
def test_official_recipes(name, iterations):
    recipe = load_recipe(f"diffbir_stage1_{name}".replace("realsrgan", "realesrgan"))
    assert recipe.network == SwinIRConfig()
    assert recipe.iterations == iterations
    assert (recipe.optimizer.rate, recipe.optimizer.weight_decay, recipe.ema) == (1e-4, 0, 0)
    assert recipe.data.patch == 512 and recipe.data.batch * 6 == 96
    assert get_preset(recipe.data.degradation).keeps_size
