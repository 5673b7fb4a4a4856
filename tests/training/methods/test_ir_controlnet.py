"""Training of DiffBIR's stage 2, on a Stable Diffusion of milliseconds."""

import logging
from dataclasses import replace

import pytest
import torch
from command_line import run_here
from diffbir_models import TINY_SWINIR, TINY_UNET, filled, save_base, text_tower_weights
from safetensors.torch import save_file
from tolerances import CANCELLED_GRADIENT
from torch import nn
from training_pictures import write_pictures

from bir_core import load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.prompts import encode_prompts, tokenize
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.errors import BIRError
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import read_picture
from bir_core.training import loop
from bir_core.training.data import Batch, generator_for
from bir_core.training.data.draws import NOISE
from bir_core.training.methods.ir_controlnet import (
    IRControlNetLoss,
    Prompts,
    check_parameterization,
    ir_controlnet_training,
    store_in_bfloat16,
)
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles

TRAINED = [("eps", 0), ("eps", 300), ("v", 0), ("v", 200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, a restoration module, pictures to degrade, and a pair of exactly one patch."""
    folder = tmp_path_factory.mktemp("diffbir")
    save_base(folder / "base.ckpt")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "swinir.safetensors")
    for index, path in enumerate(write_pictures(folder / "pictures")):
        path.with_suffix(".txt").write_text(f"waves of kind {index}", encoding="utf-8")
    for seed, name in enumerate(("lq", "hq")):
        write_pictures(folder / "pair" / name, count=1, size=(64, 64), seed=seed)
    return folder


@pytest.fixture(scope="module")
def files(folder):
    return StartFiles(base=folder / "base.ckpt", restoration_module=folder / "swinir.safetensors")


def recipe_of(*changes):
    return load_recipe("smoke_ir_controlnet", changes)


def train(folder, files, changes, output, data="pictures", **more):
    recipe = recipe_of(*changes)
    return run_recipe(recipe, data=folder / data, output=output, files=files, device="cpu", **more)


def picture(path):
    return read_picture(path).image


def shown(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def networks_in(files):
    networks = {
        name: load_model(files.base, architecture=name)
        for name in ("sd_unet", "sd_vae", "text_encoder")
    }
    return networks | {"restoration_module": load_model(files.restoration_module)}


def schedule(parameterization):
    """abar of the fact sheet: the betas of Stable Diffusion, for v with zero terminal SNR."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if parameterization == "v":
        root = (root - root[999]) * root[0] / (root[0] - root[999])
    return root**2


def loss_of_the_formula(networks, control, batch, parameterization, noise_aug, context):
    """Draws from the batch's generator in the documented order."""
    abar, generator, count = schedule(parameterization), batch.generator, len(batch.hq)
    with torch.no_grad():
        mean, log_variance = networks["sd_vae"].posterior(2 * batch.hq - 1)
        draw = torch.randn(mean.shape, generator=generator)
        z0 = 0.18215 * (mean + (0.5 * log_variance).exp() * draw)
        clean = networks["restoration_module"](batch.lq)
        hint = 0.18215 * networks["sd_vae"].posterior(2 * clean - 1)[0]
        if noise_aug:
            a = abar[torch.randint(noise_aug, (count,), generator=generator)].float()
            a = a[:, None, None, None]
            draw = torch.randn(hint.shape, generator=generator)
            hint = a.sqrt() * hint + (1 - a).sqrt() * draw
    t = torch.randint(1000, (count,), generator=generator)
    eps = torch.randn(z0.shape, generator=generator)
    a = abar[t].float()[:, None, None, None]
    x = a.sqrt() * z0 + (1 - a).sqrt() * eps
    target = eps if parameterization == "eps" else a.sqrt() * eps - (1 - a).sqrt() * z0
    output = networks["sd_unet"](x, t, context, control(x, hint, t, context))
    return ((output - target) ** 2).mean()


def batch_of_two(captions=(), seed=3):
    draws = torch.Generator().manual_seed(1)
    lq, hq = torch.rand(2, 2, 3, 64, 64, generator=draws)
    return Batch(lq, hq, torch.Generator().manual_seed(seed), captions=captions)


@pytest.mark.parametrize(("parameterization", "noise_aug"), TRAINED)
@pytest.mark.parametrize("captions", [(), ("", ""), ("a red house", "")])
def test_loss_and_gradients_are_those_of_the_formula(files, parameterization, noise_aug, captions):
    networks = networks_in(files)
    if any(captions):
        pytest.importorskip("open_clip")
    encoder = networks.pop("text_encoder")
    context = encoder(tokenize(captions or ("", "")))
    assert torch.equal(context[0], context[1]) != any(captions)
    control = filled(IRControlNet(TINY_UNET), 2000).requires_grad_(True)
    recipe = recipe_of(f"parameterization={parameterization}", f"noise_aug={noise_aug}")
    prompts = Prompts(encoder, captions=any(captions))
    loss = IRControlNetLoss(control, prompts=prompts, recipe=recipe, **networks)
    ours = loss(batch_of_two(captions))["total"]
    ours.backward()
    got = {name: value.grad.clone() for name, value in control.named_parameters()}
    control.zero_grad()
    expected = loss_of_the_formula(
        networks, control, batch_of_two(), parameterization, noise_aug, context
    )
    expected.backward()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    largest = max(float(each.grad.abs().max()) for each in control.parameters())
    for name, value in control.named_parameters():
        atol = 1e-4 * float(value.grad.abs().max()) + CANCELLED_GRADIENT * largest
        torch.testing.assert_close(got[name], value.grad, rtol=0, atol=atol)
    frozen = [each for name, each in loss.named_parameters() if not name.startswith("model.")]
    assert frozen and all(each.grad is None for each in frozen)


def test_one_step_of_the_loop_is_adamw_on_the_formula(folder, files, tmp_path):
    """From a trained network: at the first step of a new one nearly all gradients are 0."""
    control = filled(IRControlNet(TINY_UNET), 2000)
    save_checkpoint(control, tmp_path / "start.safetensors")
    start = replace(files, start_from=tmp_path / "start.safetensors")
    changes = ("data.degradation=pairs", "data.batch=1", "iterations=1", "validation.every=0")
    trained = load_model(train(folder, start, changes, tmp_path / "out", data="pair"))
    networks = networks_in(files)
    context = networks["text_encoder"](tokenize(("",)))
    lq, hq = (picture(folder / "pair" / part / "picture_0.png") for part in ("lq", "hq"))
    batch = Batch(lq, hq, generator_for(0, NOISE, 0))
    control.requires_grad_(True)
    loss_of_the_formula(networks, control, batch, "eps", 50, context).backward()
    after = dict(trained.named_parameters())
    for name, before in control.named_parameters():
        gradient = before.grad
        expected = before.detach() * (1 - 2e-3 * 0.01) - 2e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4
        torch.testing.assert_close(after[name][clear], expected[clear], rtol=0, atol=1e-5)
    assert clear.any()


def test_starts_as_the_base_without_control(files):
    training = ir_controlnet_training(recipe_of(), files)
    loss = training.phases[0].updates[0].loss
    with torch.no_grad():
        controlled = loss(batch_of_two())["total"]
        loss.model.forward = lambda *inputs: None
        assert torch.equal(loss(batch_of_two())["total"], controlled)
    first = training.model.input_blocks[0][0].weight
    unet = load_model(files.base, architecture="sd_unet").input_blocks[0][0].weight
    assert torch.equal(first[:, :4], unet) and not first[:, 4:].any()


def test_learns_and_its_model_restores(folder, files, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    model = train(folder, files, (), tmp_path, validation=folder / "pictures")
    values = shown(tmp_path, "network/total")
    assert len(values) == 40
    assert values[-1] < 0.85 * values[0]
    quality = shown(tmp_path, "validation/psnr")
    assert len(quality) == 2 and all(0 < value < 60 for value in quality)
    assert load_model(model).info.architecture == "ir_controlnet"
    assert load_model(model).info.config == TINY_UNET
    before, after = (load_model(files.base, architecture="sd_unet") for _ in range(2))
    assert all(map(torch.equal, before.parameters(), after.parameters()))
    named = ("--base", files.base, "--controlnet", model, "--stage1", files.restoration_module)
    quick = ("--steps", 2, "--short-side", 0, "--upscale", 1, "--version", "v1", "--prompt", "")
    lq = folder / "pictures" / "picture_0.png"
    ran = run_here("restore", lq, tmp_path / "out.png", "--method", "diffbir", *named, *quick)
    assert ran.returncode == 0, ran.stderr
    assert picture(tmp_path / "out.png").std() > 0.01


def test_validation_is_the_pipeline_of_the_package(files):
    """`restore` gives what `DiffBIR` gives with the recipe's settings, the same each time."""
    recipe = recipe_of("parameterization=v", "sampling_steps=3", "seed=7")
    training = ir_controlnet_training(recipe, files)
    control = filled(IRControlNet(TINY_UNET), 2000)
    lq = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    networks = networks_in(files)
    encoder = networks.pop("text_encoder")
    pipeline = DiffBIR(
        sd_unet=networks["sd_unet"],
        sd_vae=networks["sd_vae"],
        ir_controlnet=control,
        stage1=networks["restoration_module"],
        version="v2.1",
    )
    settings = DiffBIRSettings(
        sampler="spaced", steps=3, cfg=1.0, tile=0, color_fix="none", short_side=0
    )
    expected = pipeline(
        lq, encode_prompts(encoder, [""]), upscale_by=1.0, settings=settings, seed=7
    )
    for _ in range(2):
        got = training.restore(control, lq, torch.zeros_like(lq))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        ("parameterization=v", "checkpointing=true", "data.pool=4"),
        ("data.batch=1", "data.accumulate=2", "precision=bf16", "ema=0.9"),
        ("data.captions.drop_probability=0.3", "data.pool=4"),
    ],
)
def test_a_cut_training_goes_on_to_the_same_bytes(folder, files, tmp_path, changes):
    if any("captions" in change for change in changes):
        pytest.importorskip("open_clip")
    changes = ("validation.every=2", "data.batch=2", *changes, "save_every=2")
    before = torch.get_rng_state()
    more = {"validation": folder / "pictures"} if "precision=bf16" in changes else {}
    train(folder, files, (*changes, "iterations=4"), tmp_path / "whole", **more)
    train(folder, files, (*changes, "iterations=2"), tmp_path / "cut", **more)
    train(folder, files, (*changes, "iterations=4"), tmp_path / "cut", resume=True, **more)
    for name in ("model.safetensors", "state.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert torch.equal(before, torch.get_rng_state())


def test_checkpointing_changes_memory_only(folder, files, tmp_path):
    states = []
    for value in ("true", "false"):
        changes = ("iterations=2", f"checkpointing={value}", "validation.every=0")
        states.append(load_model(train(folder, files, changes, tmp_path / value)).state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])


def test_the_memory_of_a_frozen_network_is_halved_at_the_same_numbers(files):
    wide, narrow = (load_model(files.base, architecture="sd_unet") for _ in range(2))
    store_in_bfloat16(narrow)
    sizes = [
        sum(each.numel() * each.element_size() for each in network.parameters())
        for network in (wide, narrow)
    ]
    assert sizes[1] < 0.52 * sizes[0]
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=draws)
    context = torch.randn(2, 77, 32, generator=draws)
    residual = torch.randn(2, 32, 8, 8, generator=draws)
    results = []
    for network in (wide, narrow):
        control = [residual.clone().requires_grad_() for _ in range(3)]
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x, torch.tensor([3, 700]), context, control)
        out.float().square().sum().backward()
        results.append([out, *(each.grad for each in control)])
    assert all(map(torch.equal, *results))


def test_captions_of_the_data_reach_the_networks(folder, files, tmp_path):
    pytest.importorskip("open_clip")
    save_checkpoint(filled(IRControlNet(TINY_UNET), 2000), tmp_path / "start.safetensors")
    start = replace(files, start_from=tmp_path / "start.safetensors")
    totals = []
    for drop in (None, 1, 0):
        changes = () if drop is None else (f"data.captions.drop_probability={drop}",)
        changes = (*changes, "iterations=1", "validation.every=0")
        output = tmp_path / str(drop)
        train(folder, start, changes, output)
        totals += shown(output, "network/total")
    assert totals[0] == totals[1] != totals[2]


def test_captions_need_words_to_be_encoded_once(files):
    encoder = load_model(files.base, architecture="text_encoder")
    calls = []
    encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    prompts = Prompts(encoder, captions=False)
    for captions in ((), ("", "", "")):
        context = prompts(captions, 3)
        assert torch.equal(context, encode_prompts(encoder, [""]).expand(3, -1, -1))
    assert len(calls) == 3  # one for the prompts, two in this test
    assert prompts.encoder is None


class Predicts(nn.Module):
    config = TINY_UNET

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, timesteps, context):
        assert timesteps.tolist() == [999]
        return self.function(x)


def test_a_base_of_the_other_parameterization_is_noticed(caplog):
    noise_like = Predicts(lambda x: 0.98 * x + 0.1)
    picture_like = Predicts(lambda x: torch.ones_like(x))
    with pytest.raises(BIRError, match="zero-SNR base"):
        check_parameterization(noise_like, None, "v", "sd21.ckpt")
    with caplog.at_level(logging.WARNING):
        check_parameterization(noise_like, None, "eps", "sd21.ckpt")
        check_parameterization(picture_like, None, "v", "zsnr.ckpt")
        assert not caplog.records
        check_parameterization(picture_like, None, "eps", "zsnr.ckpt")
    assert "zsnr.ckpt does not predict the noise" in caplog.text


def test_a_base_in_a_folder_of_diffusers(files, tmp_path):
    places = {
        "sd_unet": "unet/diffusion_pytorch_model",
        "sd_vae": "vae/diffusion_pytorch_model",
        "text_encoder": "text_encoder/model",
    }
    for name, place in places.items():
        (tmp_path / place).parent.mkdir()
        network = load_model(files.base, architecture=name)
        tensors = network.state_dict()
        if name == "text_encoder":  # the published layout has a last block that does not run
            tensors = text_tower_weights(4000)[0]
        save_file(tensors, tmp_path / f"{place}.safetensors")
    one, other = (
        ir_controlnet_training(recipe_of(), replace(files, base=base))
        for base in (files.base, tmp_path)
    )
    losses = [each.phases[0].updates[0].loss(batch_of_two())["total"] for each in (one, other)]
    assert torch.equal(*losses)


def changed_base(folder, name, change):
    content = torch.load(folder / "base.ckpt")["state_dict"]
    change(content)
    torch.save({"state_dict": content}, folder / name)
    return folder / name


def test_files_of_other_models_are_said(folder, files, tmp_path):
    def refused(match, **changed):
        with pytest.raises(BIRError, match=match):
            ir_controlnet_training(recipe_of(), replace(files, **changed))

    unet = "model.diffusion_model."
    xl = changed_base(
        folder, "xl.ckpt", lambda base: base.update({unet + "label_emb.0.0.weight": torch.ones(1)})
    )
    refused("Stable Diffusion XL", base=xl)

    def as_first_version(base):
        for name in [name for name in base if ".proj_in.weight" in name]:
            base[name] = base[name][:, :, None, None]

    refused("Stable Diffusion 1", base=changed_base(folder, "sd15.ckpt", as_first_version))

    def other_tower(base):
        for name in [name for name in base if name.startswith("cond_stage_model.")]:
            del base[name]
        tower, _ = text_tower_weights(4000, width=64)
        base.update({f"cond_stage_model.{name}": value for name, value in tower.items()})

    refused("text encoder of the width 32", base=changed_base(folder, "clip.ckpt", other_tower))
    refused("UNet file", base=files.restoration_module)
    refused("SwinIR file", restoration_module=files.base)
    larger = SwinIR(replace(TINY_SWINIR, unshuffle=1, upsample=2))
    save_checkpoint(larger, tmp_path / "x2.safetensors")
    refused("enlarges 2 times", restoration_module=tmp_path / "x2.safetensors")
    other = IRControlNet(replace(TINY_UNET, channel_mult=(1, 1)))
    save_checkpoint(other, tmp_path / "other.safetensors")
    refused("of the sizes of the base", start_from=tmp_path / "other.safetensors")
    with pytest.raises(BIRError, match="--base"):
        train(folder, StartFiles(), (), tmp_path / "out")


@pytest.mark.parametrize("change", ["noise_aug=1001", "sampling_steps=0", "parameterization=x0"])
def test_values_out_of_range_are_refused(change):
    with pytest.raises(BIRError):
        recipe_of(change)


@pytest.mark.parametrize(
    ("name", "pictures", "parameterization", "noise_aug", "rates"),
    [
        ("v1_general", 192, "eps", 0, {0: 1e-4, 24_999: 1e-4}),
        ("v1_face", 192, "eps", 0, {0: 1e-4}),
        ("v2", 256, "eps", 0, {0: 1e-4, 29_999: 1e-4, 30_000: 1e-5, 79_999: 1e-5}),
        ("v21", 512, "v", 200, {0: 1e-5, 999_999: 1e-5}),
    ],
)
def test_official_recipes(name, pictures, parameterization, noise_aug, rates):
    recipe = load_recipe(f"diffbir_{name}")
    processes = 6 if name.startswith("v1") else 8
    assert recipe.data.batch * recipe.data.accumulate * processes == pictures
    assert (recipe.parameterization, recipe.noise_aug) == (parameterization, noise_aug)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.betas) == (0.01, (0.9, 0.999))
    for position, rate in rates.items():
        assert recipe.optimizer.rate_at(position) == pytest.approx(rate)
    assert recipe.iterations == max(rates) + 1 or name == "v1_face"
