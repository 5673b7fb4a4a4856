"""Random weights for the networks that measure, in the files and formats that these expect.

The elements of a tensor overlap in its storage, so that a file of 100 million values takes a few
megabytes."""

import math
import warnings

import numpy as np
import scipy.io
import torch
from safetensors.torch import save_file
from torch import nn

from bir_core.checkpoints.distances import DISTS_FILE, LPIPS_FILES
from bir_core.networks.distances import DISTS, LPIPS
from bir_core.networks.perceptual import VGG16, AlexNet

STRIDES = (31, 17, 3, 1)


def random_state(shapes, seed=0):
    """Tensors of these shapes by name; weights keep the size of what they multiply."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
        elif len(shape) < 2:
            scales = name.endswith(("weight", "running_var"))
            state[name] = scales + 0.1 * torch.rand(shape, generator=generator)
        else:
            end = sum((n - 1) * stride for n, stride in zip(shape, STRIDES, strict=False))
            values = torch.randn(end + 1, generator=generator) / math.prod(shape[1:]) ** 0.5
            state[name] = values.as_strided(shape, STRIDES[: len(shape)])
    return state


def save_random(build, path, seed=0):
    """A state dict of random values for the network that `build()` makes."""
    with torch.device("meta"):
        network: nn.Module = build()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(shapes, seed), path)


def write_distances(folder):
    """LPIPS and DISTS, in the files that `bir weights measures` writes."""
    files = {
        LPIPS_FILES["alex"]: LPIPS(AlexNet()),
        LPIPS_FILES["vgg"]: LPIPS(VGG16()),
        DISTS_FILE: DISTS(),
    }
    (folder / "bir").mkdir(parents=True, exist_ok=True)
    for file, network in files.items():
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        if file == DISTS_FILE:
            shapes = {name: shapes[name] for name in ("alpha", "beta")}
        state = random_state(shapes)
        save_file({name: value.contiguous() for name, value in state.items()}, folder / file)


def write_niqe(folder):
    random = np.random.default_rng(0)
    root = random.normal(size=(36, 36))
    (folder / "pyiqa").mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(
        folder / "pyiqa" / "niqe_modelparameters.mat",
        {"mu_prisparam": random.normal(size=(1, 36)), "cov_prisparam": root @ root.T},
    )


def write_musiq(folder):
    from pyiqa.archs.musiq_arch import MUSIQ

    save_random(lambda: MUSIQ(pretrained=False), folder / "pyiqa" / "musiq_koniq_ckpt-e95806b9.pth")


def write_maniqa(folder):
    from pyiqa.archs.maniqa_arch import MANIQA

    from bir_core.evaluation.weight_files import local_files_only

    with local_files_only(folder):  # or its ViT would be downloaded
        network = MANIQA(pretrained=False, scale=0.8)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    (folder / "pyiqa").mkdir()
    state = network.state_dict() | random_state(shapes)
    torch.save(state, folder / "pyiqa" / "ckpt_koniq10k.pt")


def write_clip(folder):
    """A CLIP of the smallest sizes with the real vocabulary, as TorchScript like the published."""
    from pyiqa.archs.clip_model import CLIP

    torch.manual_seed(0)
    network = CLIP(
        embed_dim=64,
        image_resolution=64,
        vision_layers=(1, 1, 1, 1),
        vision_width=64,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    ).eval()
    example = (torch.rand(1, 3, 64, 64), torch.zeros(1, 77, dtype=torch.int64))
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated; the published file is older
        traced = torch.jit.trace(network, example, check_trace=False)
        traced.save(folder / "clip" / "RN50.pt")


def write_inception(folder):
    from torchvision import models

    save_random(
        lambda: models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False),
        folder / "pyiqa" / "pt_inception-2015-12-05-6726825d.pth",
    )


def write_arcface(folder):
    from facexlib.recognition.arcface_arch import Backbone

    save_random(
        lambda: Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se"),
        folder / "facexlib" / "recognition_arcface_ir_se50.pth",
    )
