"""Networks for stage 1 from files of every kind."""

import json
import sys

import pytest
import rrdbnet
import scunet
import torch
from command_line import save_small_model
from diffbir_models import TINY_SWINIR, Weights, filled, tiny_networks
from parity import fill_by_rule_w, load_vectors
from tolerances import SPLIT_NETWORK
from torch.nn import functional as F

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.diffbir.restoration_modules import load_restoration_module
from bir_core.diffir.restore import restore
from bir_core.errors import BIRError
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.swinir import SwinIR

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_swinir(tmp_path):
    network = filled(SwinIR(TINY_SWINIR), 5000)
    save_checkpoint(network, tmp_path / "swinir.safetensors")
    module = load_restoration_module(tmp_path / "swinir.safetensors")
    assert (module.scale, module.name) == (1, "swinir")
    assert torch.equal(module.restore(IMAGE), network(IMAGE))


def test_swinir_within_a_full_file(tmp_path):
    """A full file of DiffBIR v1 holds the networks of both stages."""
    network = filled(SwinIR(TINY_SWINIR), 5000)
    parts = {"preprocess_model.": network, "control_model.": tiny_networks()["ir_controlnet"]}
    tensors = {
        prefix + name: value
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }
    torch.save({"state_dict": tensors}, tmp_path / "full.ckpt")
    assert load_restoration_module(tmp_path / "full.ckpt").name == "swinir"


def test_diffir(tmp_path):
    path = save_small_model(tmp_path / "x2.safetensors", scale=2)
    module = load_restoration_module(path)
    assert (module.scale, module.name) == (2, "diffir_s2")
    assert torch.equal(module.restore(IMAGE), restore(IMAGE, load_model(path)))


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_compact_file_is_read_by_us_and_by_others(scale, tmp_path):
    network = CompactRestorer(CompactConfig(scale=scale, features=16, layers=3)).eval()
    draw_near_identity(network, torch.Generator().manual_seed(0))
    path = tmp_path / "compact.safetensors"
    save_checkpoint(network, path)
    module = load_restoration_module(path)
    assert (module.scale, module.name) == (scale, "compact")
    # By strips the same sums come in another order.
    assert torch.allclose(module.restore(IMAGE), network(IMAGE).clamp(0, 1), atol=1e-5)
    spandrel = pytest.importorskip("spandrel")
    others = spandrel.ModelLoader().load_from_file(path)
    assert (others.architecture.name, others.scale) == ("RealESRGAN Compact", scale)
    # The same operations in float32; a library of convolutions may choose another order.
    assert torch.allclose(others(IMAGE), network(IMAGE).clamp(0, 1), atol=1e-5)


@torch.no_grad()
def test_rrdbnet_through_spandrel(tmp_path):
    pytest.importorskip("spandrel")
    _, metadata = load_vectors("diffbir_e2e")
    torch.save(rrdbnet.of_vectors(metadata), tmp_path / "BSRNet.pth")
    module = load_restoration_module(tmp_path / "BSRNet.pth")
    assert (module.scale, module.name) == (4, "ESRGAN")
    restored = module.restore(IMAGE)
    assert restored.shape == (1, 3, 256, 256)
    # As in the official code, and not clamped as spandrel does.
    assert restored.min() < 0 or restored.max() > 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["bsrnet", "scunet"])
def test_networks_of_spandrel_equal_the_official_ones(name, tmp_path):
    """Far outside of [0, 1] too, and SCUNet at a size that it pads inside."""
    pytest.importorskip("spandrel")
    vectors, metadata = load_vectors("diffbir_modules")
    if name == "bsrnet":
        weights = rrdbnet.of_vectors(metadata, calm=False)
    else:
        state = Weights(scunet.shapes(blocks=2))
        fill_by_rule_w(state, json.loads(metadata["rule_bases"])["scunet"])
        weights = state.weights
    torch.save(weights, tmp_path / "module.pth")
    restored = load_restoration_module(tmp_path / "module.pth").restore(vectors[f"{name}.in"])
    official = vectors[f"{name}.out"]
    assert official.min() < -0.5
    torch.testing.assert_close(
        restored, official, rtol=0, atol=SPLIT_NETWORK * float(official.abs().max())
    )


@torch.no_grad()
def test_scunet_is_padded_as_published(tmp_path):
    """Not as spandrel would: its own padding mirrors the picture."""
    spandrel = pytest.importorskip("spandrel")
    state = Weights(scunet.shapes(blocks=2))
    fill_by_rule_w(state, 0)
    state.weights["m_tail.0.weight"] *= 0.001
    torch.save(state.weights, tmp_path / "scunet.pth")
    module = load_restoration_module(tmp_path / "scunet.pth")
    assert (module.scale, module.name) == (1, "SCUNet")
    image = IMAGE[:, :, :50, :40]
    plain = spandrel.ModelLoader().load_from_file(tmp_path / "scunet.pth")
    repeated = F.pad(image, (0, 24, 0, 14), mode="replicate")
    ours = module.restore(image)
    torch.testing.assert_close(ours, plain.model(repeated)[..., :50, :40])
    assert (ours.clamp(0, 1) - plain(image)).abs().max() > 0.01


def test_without_spandrel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    state = Weights(rrdbnet.shapes(16, 2, 32))
    fill_by_rule_w(state, 0)
    torch.save(state.weights, tmp_path / "BSRNet.pth")
    with pytest.raises(BIRError, match="spandrel that may know it is not installed"):
        load_restoration_module(tmp_path / "BSRNet.pth")


def test_a_spandrel_that_cannot_be_imported(tmp_path, monkeypatch):
    """As beside a torchvision that was built for another torch."""
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"conv_first.weight": torch.ones(1)}, tmp_path / "BSRNet.pth")
    with pytest.raises(BIRError, match=r"spandrel .* cannot be imported \(operator does not exist"):
        load_restoration_module(tmp_path / "BSRNet.pth")


def test_files_of_another_kind(tmp_path):
    pytest.importorskip("spandrel")
    control = tmp_path / "control.safetensors"
    save_checkpoint(tiny_networks()["ir_controlnet"], control)
    with pytest.raises(BIRError, match="is a DiffBIR IRControlNet file"):
        load_restoration_module(control)
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BIRError, match="spandrel does not know"):
        load_restoration_module(tmp_path / "other.pth")
    inpainting = save_small_model(tmp_path / "inpainting.safetensors", task="inpainting")
    with pytest.raises(BIRError, match="without a mask"):
        load_restoration_module(inpainting)
