"""From files of DiffBIR's networks, alone or together, to networks."""

import json

import pytest
import torch
from parity import DATA
from safetensors.torch import load_file, save_file

from bir_core import BIRError, inspect, load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.networks.unet import SDUNet, UNetConfig

UNET = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1,),
    context_dim=12,
)
BUILDERS = {
    "swinir": (
        SwinIR,
        SwinIRConfig(embed_dim=12, depths=(2, 1), num_heads=(2, 3), mlp_ratio=1.5, window=4),
    ),
    "ir_controlnet": (IRControlNet, UNET),
    "sd_unet": (SDUNet, UNET),
    "sd_vae": (SDVAE, VAEConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=4)),
}
PREFIXES = {
    "swinir": "preprocess_model.",
    "ir_controlnet": "control_model.",
    "sd_unet": "model.diffusion_model.",
    "sd_vae": "first_stage_model.",
}
VARIANTS = {"swinir": "diffbir", "ir_controlnet": "diffbir", "sd_unet": "sd2.1", "sd_vae": "sd"}
KEY_LISTS = {
    "swinir": "swinir",
    "ir_controlnet": "controlnet",
    "sd_unet": "unet",
    "sd_vae": "vae",
}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {name: build(config) for name, (build, config) in BUILDERS.items()}


def below(prefix, network):
    return {prefix + key: value for key, value in network.state_dict().items()}


def full_file(networks, names=tuple(PREFIXES)):
    """A training checkpoint that holds several networks and much else."""
    tensors = {"betas": torch.ones(3), "alphas_cumprod": torch.ones(3), "logvar": torch.ones(3)}
    tensors["cond_stage_model.model.positional_embedding"] = torch.ones(3)
    tensors["cond_encoder.quant_conv.weight"] = torch.ones(3)
    tensors["model_ema.decay"] = torch.ones(())
    for name in names:
        tensors |= below(PREFIXES[name], networks[name])
    return tensors


def assert_same_weights(model, network):
    ours, theirs = model.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("name", KEY_LISTS)
def test_official_key_lists_load_strictly(name):
    listed = json.loads((DATA / "keys" / f"diffbir_{KEY_LISTS[name]}.json").read_text())
    half = torch.zeros(1, dtype=torch.float16)
    source = {key: half.expand(shape) for key, shape in listed["keys"].items()}
    info = inspect(source)
    assert (info.architecture, info.variant) == (name, VARIANTS[name])
    assert (info.parameters, info.scale) == (listed["n_params"], 1)
    assert info.config == type(info.config)()
    model = load_model(source, dtype=torch.float16)
    assert sum(parameter.numel() for parameter in model.parameters()) == listed["n_params"]
    missing = set(listed["keys"]) - set(model.state_dict())
    assert missing == set(listed["buffers"])


@pytest.mark.parametrize("name", BUILDERS)
def test_configuration_comes_from_the_shapes(tmp_path, networks, name):
    path = tmp_path / "model.safetensors"
    save_checkpoint(networks[name], path)
    model = load_model(path)
    assert model.config == networks[name].config
    assert (model.info.architecture, model.info.variant) == (name, "custom")
    assert_same_weights(model, networks[name])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"num_res_blocks": 2, "channel_mult": (1, 1, 2), "attention_resolutions": (2, 4)},
        {"attention_resolutions": (1, 2), "model_channels": 32, "num_head_channels": 32},
        {"channel_mult": (2,), "context_dim": 1024},
    ],
)
def test_other_unet_sizes_come_from_the_shapes(changes):
    sizes = {name: getattr(UNET, name) for name in UNET.__dataclass_fields__}
    config = UNetConfig(**{**sizes, **changes})
    for build in (SDUNet, IRControlNet):
        with torch.device("meta"):
            state = build(config).state_dict()
        assert inspect(state).config == config


@pytest.mark.parametrize("changes", [{"unshuffle": 1, "upsample": 4}, {"unshuffle": 2}])
def test_other_swinir_forms_come_from_the_shapes(changes):
    config = SwinIRConfig(embed_dim=12, depths=(1,), num_heads=(2,), **changes)
    info = inspect(SwinIR(config).state_dict())
    assert info.config == config
    assert info.scale == 4


@pytest.mark.parametrize("wrap", [False, True], ids=["flat", "state_dict of module"])
@pytest.mark.parametrize("name", PREFIXES)
def test_a_part_of_a_full_file_loads(tmp_path, networks, name, wrap):
    tensors = full_file(networks)
    path = tmp_path / "full.ckpt"
    wrapped = {f"module.{key}": value for key, value in tensors.items()}
    torch.save({"state_dict": wrapped, "global_step": 5} if wrap else tensors, path)
    assert_same_weights(load_model(path, architecture=name), networks[name])
    assert inspect(path, architecture=name).architecture == name
    assert inspect(path).architecture == "ir_controlnet"


def test_a_stable_diffusion_file_is_its_unet_unless_asked_for(networks):
    tensors = full_file(networks, ("sd_unet", "sd_vae"))
    assert_same_weights(load_model(tensors), networks["sd_unet"])
    assert_same_weights(load_model(tensors, architecture="sd_vae"), networks["sd_vae"])


def test_a_vae_file_of_its_training_loads(networks):
    extra = {"loss.logvar": torch.ones(()), "model_ema.decay": torch.ones(())}
    state = {"state_dict": {**networks["sd_vae"].state_dict(), **extra}}
    assert_same_weights(load_model(state), networks["sd_vae"])


def test_a_saved_swinir_has_the_tables_of_the_published_files(tmp_path, networks):
    save_checkpoint(networks["swinir"], tmp_path / "model.safetensors", dtype=torch.float16)
    saved = load_file(tmp_path / "model.safetensors")
    index = saved["layers.0.residual_group.blocks.1.attn.relative_position_index"]
    mask = saved["layers.0.residual_group.blocks.1.attn_mask"]
    assert index.dtype == torch.int64
    assert mask.dtype == torch.float16 and set(mask.unique().tolist()) == {-100.0, 0.0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_storage_loads_as_float32(tmp_path, networks, dtype):
    state = {key: value.to(dtype) for key, value in networks["ir_controlnet"].state_dict().items()}
    save_file(state, tmp_path / "narrow.safetensors")
    model = load_model(tmp_path / "narrow.safetensors")
    assert model.info.dtype == dtype
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key].float())


def changed(networks, kind):
    unet = dict(networks["sd_unet"].state_dict())
    control = dict(networks["ir_controlnet"].state_dict())
    swinir = dict(networks["swinir"].state_dict())
    vae = dict(networks["sd_vae"].state_dict())
    middle = "middle_block.1.proj_in.weight"
    return {
        "ordinary ControlNet": {**control, "input_hint_block.0.weight": torch.ones(1)},
        "SD 1": {**unet, middle: unet[middle][..., None, None]},
        "SDXL": {**unet, "label_emb.0.0.weight": torch.ones(1)},
        "inpainting": {**unet, "input_blocks.0.0.weight": torch.ones(64, 9, 3, 3)},
        "control of SDXL": {**control, "label_emb.0.0.weight": torch.ones(1)},
        "uneven": {k: v for k, v in unet.items() if not k.startswith("input_blocks.3.")},
        "nan": {**vae, "quant_conv.bias": torch.full((8,), float("nan"))},
        "infinite": {**vae, "quant_conv.bias": torch.full((8,), -float("inf"))},
        "lacking": {k: v for k, v in swinir.items() if k != "conv_last.bias"},
        "surplus": {**swinir, "ape": torch.ones(1)},
        "other SwinIR": {k: v for k, v in swinir.items() if not k.startswith("conv_first")},
        "text encoder": {"transformer.resblocks.0.ln_1.weight": torch.ones(1)},
    }[kind]


BAD_FILES = {
    "ordinary ControlNet": "Load ControlNet",
    "SD 1": "Stable Diffusion 1;",
    "SDXL": "as Stable Diffusion XL does",
    "inpainting": "9 channels instead of 4",
    "control of SDXL": "Expected an IRControlNet",
    "uneven": "equally many blocks",
    "nan": "quant_conv.bias holds NaN",
    "infinite": "quant_conv.bias holds NaN or infinity",
    "lacking": "lacks conv_last.bias",
    "surplus": "besides ape",
    "other SwinIR": "Load Upscale Model",
    "text encoder": "Load CLIP",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_get_one_sentence(tmp_path, networks, kind):
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in changed(networks, kind).items()}, path)
    with pytest.raises(BIRError, match=BAD_FILES[kind]) as caught:
        load_model(path)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert sentence.startswith("Expected")


@pytest.mark.parametrize(
    ("name", "wanted", "sentence"),
    [
        (
            "ir_controlnet",
            "diffir_s2",
            "IRControlNet file, which belongs in Load DiffBIR ControlNet",
        ),
        ("sd_unet", "ir_controlnet", "UNet file, which belongs in Load Checkpoint"),
        ("swinir", "sd_vae", "SwinIR file, which belongs in Load Upscale Model"),
        ("sd_vae", "swinir", "VAE file, which belongs in Load VAE"),
    ],
)
def test_another_network_is_named_with_its_place(networks, name, wanted, sentence):
    with pytest.raises(BIRError, match=sentence):
        load_model(networks[name].state_dict(), architecture=wanted)


def test_an_unknown_architecture_is_said(networks):
    with pytest.raises(BIRError, match="sd_vae, text_encoder, but 'unet' came"):
        load_model(networks["sd_unet"].state_dict(), architecture="unet")
