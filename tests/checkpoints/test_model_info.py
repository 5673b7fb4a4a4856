"""What a model's description promises, held against the network."""

import pytest
import torch
from command_line import save_small_model
from diffbir_models import TINY_SWINIR, tiny_networks

from bir_core import BIRError, inspect, load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.checkpoints.files import model_file
from bir_core.networks.swinir import SwinIR
from bir_core.weights import BUILTIN_NAMES


@torch.no_grad()
@pytest.mark.parametrize(("task", "scale"), [("deblur", 1), ("sr", 1), ("sr", 2), ("sr", 4)])
def test_sides_of_a_diffir(tmp_path, task, scale):
    model = load_model(save_small_model(tmp_path / "model.safetensors", task, scale))
    side = model.info.size_multiple
    assert model(torch.rand(1, 3, side, 2 * side)).shape == (1, 3, scale * side, 2 * scale * side)
    with pytest.raises(BIRError, match=f"divide by {side}"):
        model(torch.rand(1, 3, side, side + side // 2))


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd_vae", "sd_unet", "swinir"])
def test_sides_of_diffbirs_networks(tmp_path, name):
    network = SwinIR(TINY_SWINIR) if name == "swinir" else tiny_networks()[name]
    save_checkpoint(network, tmp_path / "model.safetensors")
    info = inspect(tmp_path / "model.safetensors", architecture=name)
    assert info.size_multiple == network.config.size_multiple
    assert info.may_be_tiled
    assert info.half_precision == (name != "swinir")


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_builtin_names_are_files(name):
    assert inspect(name) == load_model(name).info == inspect(model_file(name))


def test_a_folder_without_the_network(tmp_path):
    with pytest.raises(BIRError, match=r"unet.*found none"):
        load_model(tmp_path, architecture="sd_unet")
    with pytest.raises(BIRError, match="network swinir, but found a folder"):
        load_model(tmp_path, architecture="swinir")
    with pytest.raises(BIRError, match="found a folder"):
        load_model(tmp_path)
