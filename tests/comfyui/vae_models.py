"""A VAE of Stable Diffusion's layout with a narrow decoder, which ComfyUI loads as the real one."""

import functools
from pathlib import Path

import torch
from comfyui.diffbir_models import Weights, random_weights, save

from bir_core.networks.autoencoder import SDVAE, VAEConfig

DECODER_WIDTH = 32


@functools.cache
def vae_weights(channels: int = 4) -> Weights:
    """Made once, for all tests: not to be changed in place."""
    with torch.device("meta"):
        encoder = SDVAE(VAEConfig(z_channels=channels)).state_dict()
        decoder = SDVAE(VAEConfig(ch=DECODER_WIDTH, z_channels=channels)).state_dict()
    shapes = {
        name: tuple(part[name].shape)
        for part, prefixes in ((encoder, ("encoder.", "quant")), (decoder, ("decoder.", "post")))
        for name in part
        if name.startswith(prefixes)
    }
    return random_weights(shapes, 70_000)


def write_vae(models: Path) -> None:
    """Once in a folder: its name stands for the same weights in all tests."""
    path = models / "vae" / "sd.safetensors"
    if not path.exists():
        save(path, {name: value.half() for name, value in vae_weights().items()})


def write_wide_vae(models: Path) -> None:
    """The layout of those of SD 3 and Flux: 16 channels, and no convolutions around them."""
    path = models / "vae" / "wide.safetensors"
    if not path.exists():
        own = {name: w for name, w in vae_weights(16).items() if "quant_conv" not in name}
        save(path, {name: value.half() for name, value in own.items()})
