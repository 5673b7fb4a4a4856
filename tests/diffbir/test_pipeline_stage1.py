"""The restoration modules of every version in the pipeline, from files as they are published."""

import pytest
import rrdbnet
import scunet
import torch
from diffbir_models import TINY_SWINIR, Weights, filled, tiny_networks
from parity import fill_by_rule_w

from bir_core.checkpoints import save_checkpoint
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.restoration_modules import load_restoration_module
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.networks.swinir import SwinIR, SwinIRConfig


def bsrnet(path, blocks=1):
    state = Weights(rrdbnet.shapes(nf=64, nb=blocks, gc=32))
    fill_by_rule_w(state, 0)
    state.weights["conv_last.weight"] *= 0.1
    state.weights["conv_last.bias"] += 0.5
    torch.save(state.weights, path)


def scunet_psnr(path, blocks=2):
    state = Weights(scunet.shapes(blocks))
    fill_by_rule_w(state, 0)
    state.weights["m_tail.0.weight"] *= 0.001
    torch.save(state.weights, path)


def swinir(path, config=TINY_SWINIR):
    network = filled(SwinIR(config), 0)
    network.conv_last.weight.mul_(0.1)
    network.conv_last.bias.add_(0.5)
    save_checkpoint(network, path)


def restored(stage1, image, version, task, **chosen):
    pipeline = DiffBIR(**tiny_networks(), stage1=stage1, version=version)
    options = DiffBIRSettings(**{"steps": 2, "short_side": 0, "sampler": "spaced", **chosen})
    embedding = torch.zeros(1, 4, 32)
    return pipeline(image, embedding, embedding, task=task, upscale_by=2.0, settings=options)


def check(stage1, image, version, task, **chosen):
    """The result has the right size, stage 1 counts, and its tiles count a little."""
    height, width = image.shape[-2:]
    ours = restored(stage1, image, version, task, **chosen)
    assert ours.shape == (1, 3, 2 * height, 2 * width)
    assert ours.std() > 0.01
    assert (ours - restored(None, image, version, task, **chosen)).abs().mean() > 0.01
    return ours


CASES = [
    (bsrnet, "v2", "sr", "ESRGAN", 4),
    (scunet_psnr, "v2", "denoise", "SCUNet", 1),
    (swinir, "v1", "sr", "swinir", 1),
    (swinir, "v2.1", "denoise", "swinir", 1),
    (swinir, "v2", "face", "swinir", 1),
]


@pytest.mark.parametrize(("write", "version", "task", "name", "scale"), CASES)
def test_small(tmp_path, write, version, task, name, scale):
    if write is not swinir:
        pytest.importorskip("spandrel")
    path = tmp_path / ("stage1.safetensors" if write is swinir else "stage1.pth")
    write(path)
    module = load_restoration_module(path)
    assert (module.name, module.scale) == (name, scale)
    assert module.network is not None
    image = torch.rand(1, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    whole = check(module, image, version, task)
    tiled = restored(module, image, version, task, stage1_tile=64)
    in_one_piece = write is bsrnet  # which sees the small picture
    assert torch.equal(whole, tiled) == in_one_piece


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "size", "version", "task"),
    [
        (bsrnet, 23, "v2", "sr"),
        (scunet_psnr, 4, "v2", "denoise"),
        (swinir, SwinIRConfig(), "v2.1", "sr"),
    ],
)
def test_real_size(tmp_path, write, size, version, task):
    """Networks of the published sizes."""
    if write is not swinir:
        pytest.importorskip("spandrel")
    path = tmp_path / ("stage1.safetensors" if write is swinir else "stage1.pth")
    write(path, size)
    module = load_restoration_module(path)
    image = torch.rand(1, 3, 72, 100, generator=torch.Generator().manual_seed(0))
    whole = check(module, image, version, task)
    in_tiles = restored(module, image, version, task, stage1_tile=64)
    assert (whole - in_tiles).abs().max() > 0
