"""Stable Diffusion in the layout of the diffusers library.

The numbers are those of the library itself, on small networks. A real downloaded folder was not at
hand.
"""

import json

import pytest
import torch
from diffbir_models import Weights
from parity import fill_by_rule_w, load_vectors
from safetensors.torch import save_file

from bir_core.checkpoints import load_model
from bir_core.checkpoints.diffusers import network_file
from bir_core.errors import BIRError

VECTORS, METADATA = load_vectors("diffusers_small")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def weights(part):
    state = Weights(json.loads(METADATA["shapes"])[part])
    fill_by_rule_w(state, json.loads(METADATA["rule_bases"])[part])
    return state.weights


@torch.no_grad()
def test_unet_equals_the_library():
    unet = load_model(weights("unet"), architecture="sd_unet")
    output = unet(VECTORS["x"], torch.tensor([500]), VECTORS["context"])
    torch.testing.assert_close(output, VECTORS["unet"], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("old_names", [False, True])
def test_vae_equals_the_library(old_names):
    tensors = weights("vae")
    if old_names:
        table = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for new, old in table.items():
            tensors = {name.replace(f".{new}.", f".{old}."): v for name, v in tensors.items()}
        assert any(".proj_attn." in name for name in tensors)
    vae = load_model(tensors, architecture="sd_vae")
    torch.testing.assert_close(vae.encode(VECTORS["image"]), VECTORS["latent"], **TOLERANCE)
    torch.testing.assert_close(vae.decode(VECTORS["x"]), VECTORS["decoded"], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoder_equals_the_library(prefix):
    """Version 5 of transformers writes no prefix, the published files have one."""
    tensors = {prefix + name: value for name, value in weights("text").items()}
    tensors[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
    encoder = load_model(tensors, architecture="text_encoder")
    assert encoder.config.layers == 2
    embedding = encoder(VECTORS["tokens"])[:, ::7]
    torch.testing.assert_close(embedding, VECTORS["text"], **TOLERANCE)


@pytest.mark.parametrize("part", ["unet", "vae", "text"])
def test_no_name_is_left_behind(part):
    """A weight too many or too few is named."""
    tensors = weights(part)
    architecture = {"unet": "sd_unet", "vae": "sd_vae", "text": "text_encoder"}[part]
    last = [name for name in tensors if name.endswith("bias")][-1]
    with pytest.raises(BIRError, match="lacks|absent"):
        lacking = {name: value for name, value in tensors.items() if name != last}
        load_model(lacking, architecture=architecture)
    with pytest.raises(BIRError, match="has besides"):
        load_model(tensors | {"adapter.weight": torch.zeros(1)}, architecture=architecture)


def test_files_of_a_folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "text_encoder").mkdir()
    half = tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    save_file({"a": torch.zeros(1)}, half)
    assert network_file(tmp_path / "unet") == half
    whole = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"a": torch.zeros(1)}, whole)
    assert network_file(tmp_path / "unet") == whole
    text = tmp_path / "text_encoder" / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1)}, text)
    assert network_file(tmp_path / "text_encoder") == text
    with pytest.raises(BIRError, match="unet, vae and text_encoder"):
        network_file(tmp_path / "vae")
