"""From files in every wrapper to networks, and the sentences for files that are none."""

import datetime
import json
import subprocess
import sys
import types
from itertools import product
from pathlib import Path

import pytest
import torch
from parity import DATA
from safetensors.torch import save_file

from bir_core import BIRError, inspect, load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

KEY_LISTS = sorted((DATA / "keys").glob("diffir_*.json"))
ALIASES = {"denoise.": "diffusion.model.", "condition.": "diffusion.condition."}


def small_config(**changes):
    sizes = {"dim": 8, "num_blocks": (1, 2, 1, 1), "num_refinement_blocks": 2, "n_encoder_res": 1}
    return DiffIRConfig(**{"task": "deblur", **sizes, **changes})


def random_network(stage=2, **changes):
    torch.manual_seed(0)
    return (DiffIRStage2 if stage == 2 else DiffIRStage1)(small_config(**changes))


def official_state(network):
    """The state dict as the official code saves it, its duplicates and tables included."""
    state = dict(network.state_dict())
    for original, alias in ALIASES.items():
        for key in list(state):
            if key.startswith(original):
                state[alias + key.removeprefix(original)] = state[key]
    state["diffusion.sqrt_recip_alphas_cumprod"] = torch.ones(4)
    return state


def assert_same_weights(model, network):
    ours, theirs = model.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("path", KEY_LISTS, ids=lambda path: path.stem)
def test_official_key_lists_load_strictly(path):
    listed = json.loads(path.read_text())
    config = listed["config"]
    with torch.device("meta"):
        shapes = {
            key: tuple(v["shape"]) if isinstance(v, dict) else tuple(v)
            for key, v in listed["keys"].items()
        }
    source = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    source |= (
        {"diffusion.betas": torch.tensor([0.1, 0.29428562, 0.59095229, 0.99])}
        if ("diffusion.betas" in shapes)
        else {}
    )
    info = inspect({"params_ema": source})
    assert info.architecture == f"diffir_s{path.stem[-1]}"
    assert info.parameters == listed["params"]
    assert info.scale == config.get("scale", 1)
    assert info.variant == path.stem[7:-3].replace("srgan", "realsr").replace(
        "_celeba", ""
    ).replace("_places", "")
    ours = info.config
    assert (ours.dim, ours.num_blocks, ours.heads) == (
        config["dim"],
        tuple(config["num_blocks"]),
        tuple(config["heads"]),
    )
    assert ours.n_encoder_res == config["n_encoder_res"]
    assert ours.ffn_expansion_factor == config["ffn_expansion_factor"]
    assert (ours.bias, ours.layer_norm) == (config["bias"], config["LayerNorm_type"])
    model = load_model(source, dtype=torch.float16)
    assert sum(p.numel() for p in model.parameters()) == listed["params"]


@pytest.mark.parametrize(
    ("task", "stage", "bias", "layer_norm", "ffn"),
    [
        *product(["sr4", "sr2", "sr1", "deblur", "inpainting"], [1, 2], [False], ["WithBias"], [2]),
        ("sr4", 2, True, "BiasFree", 2.66),
        ("deblur", 2, True, "WithBias", 1.8),
        ("sr1", 2, False, "BiasFree", 2.2),
    ],
)
def test_configuration_comes_from_the_shapes(tmp_path, task, stage, bias, layer_norm, ffn):
    kind = {"task": "sr", "scale": int(task[2])} if task[:2] == "sr" else {"task": task}
    refinement = 0 if task == "inpainting" else 2
    network = random_network(
        stage,
        **kind,
        bias=bias,
        layer_norm=layer_norm,
        ffn_expansion_factor=ffn,
        num_refinement_blocks=refinement,
    )
    save_checkpoint(network, tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    assert model.config == network.config
    assert model.info.variant == "custom"
    assert_same_weights(model, network)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


WRAPPERS = {
    "flat": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {
        "params": {key: value + 1 for key, value in state.items()},
        "params_ema": state,
    },
    "module": lambda state: {"params": {f"module.{key}": v for key, v in state.items()}},
    "lightning": lambda state: {
        "epoch": 3,
        "state_dict": {
            **{f"generator.{key}": value for key, value in state.items()},
            **{f"generatorS1.{key}": value + 1 for key, value in state.items()},
            "discriminator.model0.0.weight": torch.zeros(2),
            "loss_resnet_pl.impl.conv1.weight": torch.zeros(2),
            "val_evaluator.losses.weight": torch.zeros(2),
        },
    },
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_loads(tmp_path, wrapper, suffix):
    network = random_network()
    content = WRAPPERS[wrapper](official_state(network))
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    elif wrapper == "flat":
        save_file({key: value.clone() for key, value in content.items()}, path)
    else:
        prefix = {"module": "module.", "lightning": "generator."}.get(wrapper, "")
        state = official_state(network)
        save_file({prefix + key: value.clone() for key, value in state.items()}, path)
    assert_same_weights(load_model(path), network)


def test_a_lost_copy_of_a_duplicate_is_taken_from_the_other(tmp_path):
    network = random_network()
    state = {
        key: value
        for key, value in official_state(network).items()
        if not key.startswith(("condition.", "denoise."))
    }
    assert_same_weights(load_model(state), network)


def test_schedule_comes_from_the_file_or_is_the_published_one():
    network = random_network(timesteps=5, linear_start=0.2, linear_end=0.9)
    assert load_model(dict(network.state_dict())).config == network.config
    state = dict(random_network().state_dict())
    del state["diffusion.betas"]
    assert load_model(state).config == small_config()


def test_lightning_objects_are_ignored_not_executed(tmp_path):
    network = random_network()
    fake = types.ModuleType("pytorch_lightning")
    fake.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning"})
    checkpoint = {
        "callbacks": {fake.ModelCheckpoint: {"best": fake.ModelCheckpoint()}},
        "state_dict": {f"generator.{k}": v for k, v in official_state(network).items()},
    }
    sys.modules["pytorch_lightning"] = fake
    try:
        torch.save(checkpoint, tmp_path / "last.ckpt")
    finally:
        del sys.modules["pytorch_lightning"]
    assert_same_weights(load_model(tmp_path / "last.ckpt"), network)


def test_half_precision_files_load_as_float32(tmp_path):
    network = random_network()
    save_checkpoint(network, tmp_path / "half.safetensors", dtype=torch.float16)
    assert inspect(tmp_path / "half.safetensors").dtype == torch.float16
    model = load_model(tmp_path / "half.safetensors")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert load_model(network.state_dict(), dtype=torch.bfloat16).G.output.weight.dtype == (
        torch.bfloat16
    )


class Payload:
    """Runs a command when it is unpickled without care."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return subprocess.call, (["touch", str(self.marker)],)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_code_is_refused_and_not_run(tmp_path, legacy):
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save(
        {"params": official_state(random_network()), "x": Payload(marker)},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(BIRError, match="pickled code"):
        load_model(path)
    assert not marker.exists()


def write_bad_file(kind, path):
    state = dict(random_network().state_dict())
    if kind == "missing":
        return
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "page":
        path.write_text("<!DOCTYPE html><title>404</title>")
    elif kind == "cut safetensors":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "cut header":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:20])
    elif kind == "cut zip":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other object":
        torch.save({"params": state, "date": datetime.date(2020, 1, 1)}, path)
    elif kind == "no tensors":
        torch.save({"params": {}}, path)
    elif kind == "upscaler":
        save_file({"model.1.sub.0.rdb1.conv1.0.weight": torch.zeros(1)}, path)
    elif kind == "stable diffusion":
        save_file({"model.diffusion_model.out.2.weight": torch.zeros(1)}, path)
    elif kind == "nan":
        state["G.output.weight"][0] = float("nan")
        save_file(state, path)
    elif kind == "lacking":
        del state["G.output.weight"]
        save_file(state, path)
    elif kind == "surplus":
        save_file({**state, "G.more.weight": torch.zeros(1)}, path)
    elif kind == "shape":
        save_file({**state, "G.output.weight": torch.zeros(1)}, path)
    elif kind == "channels":
        save_file({**state, "G.patch_embed.proj.weight": torch.zeros(8, 5, 3, 3)}, path)
    elif kind == "stage 1":
        save_checkpoint(random_network(1), path)


BAD_FILES = {
    "missing": "found nothing",
    "folder": "found a folder",
    "empty": "is empty",
    "page": "neither",
    "cut safetensors": "cut off",
    "cut header": "cut off",
    "cut zip": "download it again",
    "list": "found list",
    "other object": "pickled code",
    "no tensors": "no tensors",
    "upscaler": "Load Upscale Model",
    "stable diffusion": "Load Checkpoint",
    "nan": "G.output.weight holds NaN",
    "lacking": "lacks G.output.weight",
    "surplus": "G.more.weight",
    "shape": "G.output.weight",
    "channels": "5",
    "stage 1": "stage 1",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_get_one_sentence(tmp_path, kind):
    path = tmp_path / "model"
    write_bad_file(kind, path)
    with pytest.raises(BIRError, match=BAD_FILES[kind]) as caught:
        load_model(path, architecture="diffir_s2")
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert "expected" in sentence.lower()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(random_network(), path)
    before = path.read_bytes()

    def full_disk(tensors, filename, metadata=None):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bir_core.checkpoints.files.save_file", full_disk)
    with pytest.raises(BIRError, match="No space left"):
        save_checkpoint(random_network(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_leaner_encoder_is_read_from_its_file(tmp_path, stage):
    network = random_network(stage, encoder_features=5)
    save_checkpoint(network, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.info.config == small_config(encoder_features=5)
    assert_same_weights(loaded, network)
    official = sum(value.numel() for value in random_network(stage).parameters())
    assert sum(value.numel() for value in network.parameters()) < official
