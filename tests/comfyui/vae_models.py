"""A VAE of Stable Diffusion's layout with a narrow decoder, which ComfyUI loads as the real one."""

from pathlib import Path

import torch
from comfyui.diffbir_models import Weights, random_weights, save

from bir_core.networks.autoencoder import SDVAE, VAEConfig

DECODER_WIDTH = 32


def vae_weights() -> Weights:
    with torch.device("meta"):
        encoder = SDVAE(VAEConfig()).state_dict()
        decoder = SDVAE(VAEConfig(ch=DECODER_WIDTH)).state_dict()
    shapes = {
        name: tuple(part[name].shape)
        for part, prefixes in ((encoder, ("encoder.", "quant")), (decoder, ("decoder.", "post")))
        for name in part
        if name.startswith(prefixes)
    }
    return random_weights(shapes, 70_000)


def write_vae(models: Path) -> None:
    weights = {name: value.half() for name, value in vae_weights().items()}
    save(models / "vae" / "sd.safetensors", weights)
