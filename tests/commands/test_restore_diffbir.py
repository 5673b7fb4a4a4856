"""`bir restore --method diffbir` and `bir embed` on small networks."""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import run_here, save_small_model
from diffbir_models import TINY_SWINIR, Weights, filled, save_base, taught, text_tower_weights
from estimates import CLEAN
from parity import fill_by_rule_w, load_vectors
from safetensors.torch import save_file

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.diffbir.arguments import add_arguments
from bir_core.diffbir.arguments import read as read_arguments
from bir_core.diffbir.fidelity import of_fidelity
from bir_core.diffbir.method import DiffBIROptions
from bir_core.diffbir.official_files import find_files
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.prompts import encode_prompts, load_embedding
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.estimate import Measured
from bir_core.networks.autoencoder import SDVAE
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import Picture, read_picture, write_picture

QUICK = ("--steps", 2, "--short-side", 0, "--upscale", 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffbir")
    networks = save_base(folder / "base.ckpt")
    tower, _ = text_tower_weights(4000)
    save_checkpoint(networks["ir_controlnet"], folder / "control.safetensors")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "swinir.safetensors")
    save_checkpoint(networks["sd_unet"], folder / "unet.safetensors")
    save_checkpoint(networks["sd_vae"], folder / "vae.safetensors")
    save_file(
        {key: value.contiguous() for key, value in tower.items()}, folder / "text.safetensors"
    )
    pixels = torch.randint(0, 256, (1, 3, 24, 32), generator=torch.Generator().manual_seed(0))
    write_picture(folder / "lq.png", Picture(image=pixels / 255, bits=16))
    return folder


def command(files, output, *more, base="base.ckpt", stage1="swinir.safetensors", version=("v2.1",)):
    stage1 = stage1 if stage1 == "none" else files / stage1
    named = ("--base", files / base, "--controlnet", files / "control.safetensors")
    named += tuple(part for each in version for part in ("--version", each))
    return run_here(
        *("restore", files / "lq.png", output, "--method", "diffbir", *named),
        *("--stage1", stage1, *QUICK, *more),
    )


def test_equals_the_class(files, tmp_path):
    ran = command(files, tmp_path / "out.png", "--seed", 3, "--prompt", "", "--negative", "")
    assert ran.returncode == 0, ran.stderr
    assert "32x24 -> 64x48" in ran.stdout
    content = torch.load(files / "base.ckpt")
    pipeline = DiffBIR(
        sd_unet=load_model(content, architecture="sd_unet"),
        ir_controlnet=load_model(files / "control.safetensors"),
        sd_vae=load_model(content, architecture="sd_vae"),
        stage1=load_model(files / "swinir.safetensors"),
        version="v2.1",
    )
    empty = encode_prompts(load_model(content, architecture="text_encoder"), [""])
    expected = pipeline(
        read_picture(files / "lq.png").image,
        empty,
        empty,
        upscale_by=2.0,
        settings=DiffBIRSettings(steps=2, short_side=0),
        seed=3,
    )
    got = read_picture(tmp_path / "out.png").image
    assert (got - expected).abs().max() <= 1e-4
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("more", "acts"),
    [
        (("--guidance-start", 0), False),
        (("--guidance-stop", 1000), False),
        (("--guidance-start", 950), True),
        (("--guidance-stop", 500), True),
        (("--guidance-repeats", 3), True),
    ],
)
def test_when_and_how_often_guidance_pulls(files, tmp_path, more, acts):
    """Of the two steps one is at timestep 999 and one at 499; what pulls never is as without."""
    guided = ("--prompt", "", "--negative", "", "--guidance", 0.5, "--guidance-loss", "mse")
    lines = {"plain": guided[:4], "always": guided, "changed": (*guided, *more)}
    found = {}
    for name, words in lines.items():
        ran = command(files, tmp_path / f"{name}.png", *words)
        assert ran.returncode == 0, ran.stderr
        found[name] = read_picture(tmp_path / f"{name}.png").image
    assert not torch.equal(found["plain"], found["always"])
    assert not torch.equal(found["changed"], found["always"])
    assert torch.equal(found["changed"], found["plain"]) != acts


@pytest.mark.parametrize(
    "more",
    [
        ("--version", "v1"),
        ("--version", "v2", "--task", "denoise"),
        ("--sampler", "euler_ancestral", "--sampler-option", "eta=0.5"),
        ("--sampler", "ddim", "--start", "condition", "--cfg", 2, "--rescale-cfg"),
        ("--guidance", 0.01, "--guidance-space", "rgb", "--guidance-loss", "mse"),
        ("--tile", 64, "--overlap", 32, "--tile-batch", 2, "--vae-tile", 64),
        ("--strength", 0.5, "--noise-aug", 50, "--color-fix", "none", "--padding", "black"),
        ("--stage1-tile", 64, "--dtype", "bfloat16"),
        ("--fidelity", 0.9, "--blending", 0.1),
    ],
)
def test_options(files, tmp_path, more):
    """Each group of options gives a picture; another one where it is larger than a tile."""
    empty = ("--prompt", "", "--negative", "")
    assert command(files, tmp_path / "usual.png", *empty).returncode == 0
    ran = command(files, tmp_path / "out.png", *empty, *more)
    assert ran.returncode == 0, ran.stderr
    usual, got = (read_picture(tmp_path / name).image for name in ("usual.png", "out.png"))
    assert got.shape == (1, 3, 48, 64)
    assert (got - usual).abs().max() > 0 or "--tile" in more


def test_maps_in_a_folder_give_the_same_picture(files, tmp_path):
    """Nothing stays there; a folder that is none is said before the work."""
    empty, folder = ("--prompt", "", "--negative", ""), tmp_path / "maps"
    folder.mkdir()
    for name, more in (("usual.png", ()), ("filed.png", ("--maps-folder", folder))):
        ran = command(files, tmp_path / name, *empty, *more)
        assert ran.returncode == 0, ran.stderr
    usual, got = (read_picture(tmp_path / name).image for name in ("usual.png", "filed.png"))
    assert torch.equal(usual, got) and list(folder.iterdir()) == []
    ran = command(files, tmp_path / "out.png", *empty, "--maps-folder", tmp_path / "absent")
    assert ran.returncode == 2
    assert "Expected a folder for the maps" in ran.stderr


def test_compiled_steps_give_the_same_picture(files, tmp_path):
    empty = ("--prompt", "", "--negative", "")
    for name, more in (("usual.png", ()), ("compiled.png", ("--compile", "eager"))):
        ran = command(files, tmp_path / name, *empty, *more)
        assert ran.returncode == 0, ran.stderr
    usual, got = (read_picture(tmp_path / name).image for name in ("usual.png", "compiled.png"))
    assert (got - usual).abs().max() <= 1.01 / 255


def test_fidelity_stands_for_what_is_not_given():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    line = ["--base", "b", "--controlnet", "c", "--fidelity", "1", "--guidance", "0.2"]
    settings = read_arguments(DiffBIROptions, vars(parser.parse_args(line))).settings
    assert settings["blending"] == of_fidelity(1).blending
    assert (settings["guidance"], settings["guidance_per"]) == (0.2, "512x512")


def test_a_mask_keeps_or_invents(files, tmp_path):
    """White on the left."""
    white = torch.zeros(1, 3, 24, 32)
    white[..., :16] = 1
    write_picture(tmp_path / "mask.png", Picture(image=white))
    empty = ("--prompt", "", "--negative", "", "--color-fix", "none")

    def run(name, *more):
        ran = command(files, tmp_path / f"{name}.png", *empty, *more, stage1="none")
        assert ran.returncode == 0, ran.stderr
        return read_picture(tmp_path / f"{name}.png").image

    mask = ("--mask", tmp_path / "mask.png")
    usual, stage1 = run("usual"), run("stage1", "--blending", 1)
    kept, named = run("kept", *mask), run("named", *mask, "--painted", "keep")
    assert torch.equal(kept, named)
    assert torch.equal(kept[..., :30], stage1[..., :30])
    assert (usual - stage1)[..., :30].abs().max() > 0.01
    invented = run("invented", *mask, "--painted", "invent")
    assert (invented - usual)[..., :30].abs().max() > 1e-4
    assert not torch.equal(run("grey", *mask, "--painted", "grey"), kept)


def test_a_piece_to_try(files, tmp_path):
    picture = read_picture(files / "lq.png").image
    alpha = torch.linspace(0.1, 1, 32).expand(1, 1, 24, 32)
    write_picture(tmp_path / "lq.png", Picture(image=picture, alpha=alpha))
    empty = ("--prompt", "", "--negative", "", "--upscale", 4, "--tile", 64, "--overlap", 0)

    def run(name, *more):
        ran = run_here(
            *("restore", tmp_path / "lq.png", tmp_path / name, "--method", "diffbir"),
            *("--base", files / "base.ckpt", "--controlnet", files / "control.safetensors"),
            *("--stage1", "none", "--version", "v2.1", *QUICK, *empty, *more),
        )
        assert ran.returncode == 0, ran.stderr
        return read_picture(tmp_path / name).image

    whole = run("whole.png")
    piece = run("piece.png", "--try-crop", "70,10,64")
    assert whole.shape == (1, 3, 96, 128) and piece.shape == (1, 3, 64, 64)
    there = whole[..., :64, 64:]
    other = run("other.png", "--try-crop", "70,10,64", "--seed", 9)
    assert (piece - there).abs().mean() < 0.5 * (other - there).abs().mean()
    assert read_picture(tmp_path / "piece.png").alpha is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--try-crop", "64,0"), "within the result, 64 x 48 pixels, but 64,0 came"),
        (("--painted", "keep"), "Expected --mask with --painted"),
        (("--try-crop", "0,0", "--task", "unaligned_face"), "another task with --try-crop"),
    ],
)
def test_pieces_and_masks_that_have_no_use(files, tmp_path, more, sentence):
    ran = command(files, tmp_path / "out.png", "--prompt", "", "--negative", "", *more)
    assert ran.returncode == 2 and sentence in ran.stderr


@pytest.mark.parametrize("corner", ["70", "1,2,0", "1,2,3,4", "-1,0", "a,b"])
def test_corners_that_are_none(corner, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--try-crop={corner}"])
    assert "expected X,Y or X,Y,SIDE" in capsys.readouterr().err


def test_the_plan_of_the_memory_is_said(files, tmp_path, caplog):
    ran = command(files, tmp_path / "out.png", "--prompt", "", "--negative", "", "--tile", 128)
    assert ran.returncode == 0, ran.stderr
    assert "Memory plan: stage 1 whole, encoding tiles of 512, sampling tiles of 128" in caplog.text


def test_prompts_and_their_embeddings(files, tmp_path):
    pytest.importorskip("open_clip")
    saved = tmp_path / "house.safetensors"
    assert run_here("embed", "a house", saved, "--base", files / "text.safetensors").returncode == 0
    assert load_embedding(saved).shape == (1, 77, 32)
    again = run_here("embed", "a house", saved, "--base", files / "text.safetensors")
    assert again.returncode == 2 and "--overwrite" in again.stderr
    pictures = []
    for options in (("--prompt", "a house"), ("--prompt-embedding", saved), ("--prompt", "")):
        ran = command(files, tmp_path / "out.png", *options, "--overwrite")
        assert ran.returncode == 0, ran.stderr
        pictures.append(read_picture(tmp_path / "out.png").image)
    assert torch.equal(pictures[0], pictures[1])
    assert (pictures[0] - pictures[2]).abs().max() > 1e-4


def test_split_files_without_stage1(files, tmp_path):
    """UNet, VAE and text encoder each in its own file give what the whole checkpoint gives."""
    empty = ("--prompt", "", "--negative", "")
    split = ("--vae", files / "vae.safetensors", "--text-encoder", files / "text.safetensors")
    whole = command(files, tmp_path / "whole.png", *empty, stage1="none")
    assert whole.returncode == 0, whole.stderr
    ran = command(
        files, tmp_path / "split.png", *empty, *split, base="unet.safetensors", stage1="none"
    )
    assert ran.returncode == 0, ran.stderr
    one, other = (read_picture(tmp_path / f"{name}.png").image for name in ("whole", "split"))
    assert torch.equal(one, other)


def test_diffusers_folder(files, tmp_path):
    """The UNet of a folder, with the other networks from files."""
    _, metadata = load_vectors("diffusers_small")
    state = Weights(json.loads(metadata["shapes"])["unet"])
    fill_by_rule_w(state, 0)
    (tmp_path / "sd" / "unet").mkdir(parents=True)
    save_file(state.weights, tmp_path / "sd/unet/diffusion_pytorch_model.safetensors")
    control = IRControlNet.from_unet(load_model(state.weights, architecture="sd_unet"))
    save_checkpoint(control, tmp_path / "control.safetensors")
    more = ("--vae", files / "vae.safetensors", "--prompt", "", "--negative", "")
    more += ("--text-encoder", files / "text.safetensors")
    more += ("--controlnet", tmp_path / "control.safetensors")
    ran = command(files, tmp_path / "out.png", *more, base=tmp_path / "sd", stage1="none")
    assert ran.returncode == 0, ran.stderr
    lacking = command(files, tmp_path / "2.png", *more[2:], base=tmp_path / "sd", stage1="none")
    assert lacking.returncode == 2
    assert "diffusers folder with diffusion_pytorch_model.safetensors" in lacking.stderr


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--model", "builtin-x4"), "--model came, which belongs to --method compact or diffir"),
        (("--strip", 4), "--strip came"),
        (("--sampler", "ddim", "--sampler-option", "eta=1"), "has the options none"),
        (("--noise-aug", 1000), "0 to 999"),
        (("--steps", 0), "between 1 and 1000"),
        (("--tile", 100), "multiple of 64"),
        (("--vae-tile", 32), "at least 64 pixels"),
        (("--guidance-start", 500), "--guidance-start should come with restoration guidance"),
        (("--guidance-repeats", 3, "--guidance", 0), "but there is none"),
        (("--guidance-space", "rgb", "--fidelity", 0.5), "leave --guidance-space out"),
        (("--offload", "--device", "cpu"), "Expected a GPU for --offload"),
        (("--compile", "none"), "compiled by one of"),
        (("--upscale", 0), "at least 1 x 1"),
        (("--prompt", "", "--prompt-embedding", "x"), "both came"),
        (("--prompt-embedding", "absent.safetensors"), "found nothing"),
        (("--stage1", "absent.pth"), "found nothing"),
        (("--controlnet", "absent.pth"), "found nothing"),
    ],
)
def test_bad_input(files, tmp_path, more, sentence):
    empty = () if more[0].startswith("--prompt") else ("--prompt", "")
    ran = command(files, tmp_path / "out.png", *empty, "--negative", "", *more)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_files_say_the_version(files, tmp_path, caplog):
    """By IRControlNet's name and by what the base predicts; what contradicts is refused."""
    out, flat = tmp_path / "out.png", tmp_path / "flat.safetensors"
    learned = taught(load_model(files / "unet.safetensors"), lambda x: torch.full_like(x, 0.3))
    save_checkpoint(learned, flat)
    for name in ("DiffBIR_v2.1", "v2"):
        shutil.copy(files / "control.safetensors", tmp_path / f"{name}.safetensors")
    more = ("--prompt", "", "--negative", "", "--vae", files / "vae.safetensors")
    more += ("--text-encoder", files / "text.safetensors", "--controlnet")
    named = (*more, tmp_path / "DiffBIR_v2.1.safetensors")
    options = {"base": flat, "stage1": "none"}
    found = command(files, out, *named, **options, version=())
    assert found.returncode == 0, found.stderr
    assert "DiffBIR v2.1, by DiffBIR_v2.1.safetensors and its base" in caplog.text
    told = command(files, tmp_path / "told.png", *named, **options)
    assert told.returncode == 0 and (tmp_path / "told.png").read_bytes() == out.read_bytes()
    by_base = (*more, files / "control.safetensors")
    assert command(files, tmp_path / "2.png", *by_base, **options, version=()).returncode == 0
    assert (tmp_path / "2.png").read_bytes() == out.read_bytes()
    wrong = command(
        files, tmp_path / "3.png", *more, tmp_path / "v2.safetensors", **options, version=()
    )
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert "Expected a base that predicts eps for v2.safetensors" in wrong.stderr
    silent = command(files, tmp_path / "3.png", "--prompt", "", "--negative", "", version=())
    assert silent.returncode == 2 and silent.stderr.count("\n") == 1
    assert "neither control.safetensors nor the base tells" in silent.stderr
    assert not (tmp_path / "3.png").exists()


@pytest.fixture
def models(files, tmp_path):
    """A folder as ComfyUI's with all files of DiffBIR v2.1 under their known names."""
    folder = tmp_path / "models"
    for source, target in (
        ("base.ckpt", "checkpoints/sd2.1-base-zsnr-laionaes5.ckpt"),
        ("control.safetensors", "controlnet/DiffBIR_v2.1.safetensors"),
        ("swinir.safetensors", "upscale_models/sets/realesrgan_s4_swinir_100k.safetensors"),
    ):
        (folder / target).parent.mkdir(parents=True)
        shutil.copy(files / source, folder / target)
    return folder


def by_names(files, output, *more):
    empty = ("--prompt", "", "--negative", "")
    line = ("restore", files / "lq.png", output, "--method", "diffbir", *QUICK, *empty, *more)
    return run_here(*line)


def test_files_are_found_by_their_names(files, models, tmp_path, monkeypatch):
    monkeypatch.delenv("BIR_MODELS", raising=False)
    named = command(files, tmp_path / "named.png", "--prompt", "", "--negative", "")
    assert named.returncode == 0, named.stderr
    version = ("--version", "v2.1")
    found = by_names(files, tmp_path / "found.png", "--models", models, *version)
    assert found.returncode == 0, found.stderr
    monkeypatch.setenv("BIR_MODELS", str(models))
    again = by_names(files, tmp_path / "again.png", *version)
    assert again.returncode == 0, again.stderr
    expected = (tmp_path / "named.png").read_bytes()
    assert (tmp_path / "found.png").read_bytes() == expected
    assert (tmp_path / "again.png").read_bytes() == expected
    clean = by_names(files, tmp_path / "clean.png", *version, "--stage1", "none")
    assert clean.returncode == 0 and (tmp_path / "clean.png").read_bytes() != expected


def test_files_that_are_not_at_hand_are_named(files, models, tmp_path, monkeypatch):
    monkeypatch.delenv("BIR_MODELS", raising=False)
    out = tmp_path / "out.png"
    nowhere = by_names(files, out)
    assert nowhere.returncode == 2 and "by --models or the variable BIR_MODELS" in nowhere.stderr
    (models / "controlnet" / "DiffBIR_v2.1.safetensors").unlink()
    ran = by_names(files, out, "--models", models)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert (
        f"Expected --controlnet for --method diffbir, or DiffBIR_v2.1.pt in {models}" in ran.stderr
    )
    assert f"huggingface.co/lxq007/DiffBIR-v2 and put it into {models / 'controlnet'}" in ran.stderr
    other = by_names(files, out, "--models", models, "--version", "v2", "--task", "denoise")
    assert other.returncode == 2 and "v2-1_512-ema-pruned.ckpt" in other.stderr
    absent = by_names(files, out, "--models", models / "absent")
    assert absent.returncode == 2 and "--models names, but found nothing" in absent.stderr
    assert not out.exists()


def test_the_latest_version_that_is_at_hand(models):
    wanted, task = ("base", "controlnet", "stage1"), "sr"

    def found(options=wanted, version=None, controlnet=None):
        files = find_files(options, task, version=version, controlnet=controlnet, folder=models)
        return {option: path.stem for option, path in files.items()}

    latest = found()
    assert latest["controlnet"] == "DiffBIR_v2.1"
    v1 = ("checkpoints/v2-1_512-ema-pruned", "controlnet/v1_general")
    for name in (*v1, "upscale_models/general_swinir_v1"):
        (models / f"{name}.ckpt").touch()
    (models / "controlnet" / "v1_general.ckpt").rename(models / "controlnet" / "v1_general.pth")
    assert found() == latest
    assert found(version="v1")["stage1"] == "general_swinir_v1"
    own = Path("my_v1_network.safetensors")
    assert found(("base", "stage1"), controlnet=own)["base"] == "v2-1_512-ema-pruned"
    next(models.rglob("realesrgan*")).unlink()
    assert found()["controlnet"] == "v1_general"
    assert found(("base", "controlnet"))["controlnet"] == "DiffBIR_v2.1"


def test_missing_and_wrong_files(files, tmp_path):
    out = tmp_path / "out.png"
    lacking = run_here("restore", files / "lq.png", out, "--method", "diffbir")
    assert lacking.returncode == 2 and "--base for --method diffbir" in lacking.stderr
    other_method = run_here("restore", files / "lq.png", out, "--cfg", 3)
    assert other_method.returncode == 2
    assert "--cfg came, which belongs to --method diffbir" in other_method.stderr
    empty = ("--prompt", "", "--negative", "", "--text-encoder", files / "text.safetensors")
    diffir = save_small_model(tmp_path / "diffir.safetensors")
    for base in (diffir, files / "vae.safetensors"):
        ran = command(files, out, *empty, base=base)
        assert ran.returncode == 2
        assert "Expected a Stable Diffusion 2.1 UNet file" in ran.stderr
    unet_only = command(files, out, *empty, base="unet.safetensors")
    assert unet_only.returncode == 2 and "Expected a Stable Diffusion VAE file" in unet_only.stderr
    wide = SDVAE(load_model(files / "vae.safetensors").config)
    save_checkpoint(wide, tmp_path / "control.safetensors")
    swapped = command(files, out, *empty, "--controlnet", tmp_path / "control.safetensors")
    assert swapped.returncode == 2 and "DiffBIR IRControlNet" in swapped.stderr
    assert not out.exists()


@pytest.fixture
def estimated(monkeypatch):
    """Strong noise for `bir restore --auto`, whatever the picture."""

    def noisy(image, network=None, *, file_quality=None):
        return replace(CLEAN, noise_sigma=Measured(40.0, 1.0))

    monkeypatch.setattr("bir_core.commands.restore_auto.estimate", noisy)


def test_auto_sets_what_was_not_given(files, tmp_path, estimated):
    asked = ("--auto", "--prompt", "", "--negative", "")
    ran = command(files, tmp_path / "auto.png", *asked)
    assert ran.returncode == 0, ran.stderr
    parts = of_fidelity(0.45)
    assert "  damaged by noise of 40 steps\n  enlarged 2 times, as asked\n" in ran.stdout
    last = ran.stdout.splitlines()[-1]
    assert last == (
        f"  DiffBIR v2.1, task sr: strength {parts.strength:g}, guidance 0, blending 0, "
        "noise_aug 60"
    )
    by_hand = ("--fidelity", 0.45, "--noise-aug", 60, "--prompt", "", "--negative", "")
    assert command(files, tmp_path / "by_hand.png", *by_hand).returncode == 0
    pictures = [(tmp_path / name).read_bytes() for name in ("auto.png", "by_hand.png")]
    assert pictures[0] == pictures[1]


def test_auto_overrules_no_option(files, tmp_path, estimated):
    given = ("--strength", 0.9, "--noise-aug", 7, "--guidance", 0.25, "--task", "denoise")
    ran = command(files, tmp_path / "out.png", "--auto", *given)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert last.endswith("task denoise: strength 0.9, guidance 0.25, blending 0, noise_aug 7")


def test_auto_leaves_noise_on_the_condition_to_version_2_1(files, tmp_path, estimated):
    ran = command(files, tmp_path / "out.png", "--auto", version=("v2",))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].endswith("noise_aug 0")


def test_auto_takes_the_task_whose_files_are_at_hand(files, tmp_path, estimated):
    """At the same size noise is a task of its own, in v2 with another stage 1."""
    models = tmp_path / "models" / "upscale_models"
    models.mkdir(parents=True)
    shutil.copy(files / "swinir.safetensors", models / "BSRNet.pth")
    named = ("--base", files / "base.ckpt", "--controlnet", files / "control.safetensors")
    ran = run_here(
        *("restore", files / "lq.png", tmp_path / "out.png", "--method", "diffbir", *named),
        *("--version", "v2", "--models", tmp_path / "models", "--steps", 2, "--short-side", 0),
        *("--auto", "--scale", 1),
    )
    assert ran.returncode == 0, ran.stderr
    assert "  the task sr instead, as the files of denoise are not at hand\n" in ran.stdout


def test_auto_leaves_a_clean_picture_alone(files, tmp_path, monkeypatch):
    monkeypatch.setattr("bir_core.commands.restore_auto.estimate", lambda *_, **__: CLEAN)
    monkeypatch.setattr("bir_core.diffbir.method.load", lambda *_: pytest.fail("loaded"))
    named = ("--base", files / "base.ckpt", "--controlnet", files / "control.safetensors")
    ran = run_here(
        *("restore", files / "lq.png", tmp_path / "out.png", "--method", "diffbir", *named),
        *("--stage1", "none", "--auto", "--scale", 1),
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out.png").read_bytes() == (files / "lq.png").read_bytes()
