"""One run at the real sizes: random weights made on the spot, 2 steps at 256 pixels. Opt-in."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import latent_of, restoration
from comfyui.diffbir_models import prefixed, save
from comfyui.harness import Server
from torch import nn

from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.unet import SDUNet, UNetConfig


def random_half(network: nn.Module) -> dict[str, torch.Tensor]:
    """Half-precision weights for a network on the meta device, scaled by the fan-in."""
    weights = {}
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        made = torch.empty(value.shape, dtype=torch.float16)
        if value.ndim >= 2:
            made.normal_(0, (value.numel() / value.shape[0]) ** -0.5, generator=generator)
        else:
            made.fill_(float(name.endswith("weight")))
        weights[name] = made
    return weights


def peak_memory(server: Server) -> float:
    """Gigabytes that the server has held at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_full_size(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    models = server.base / "models"
    with torch.device("meta"):
        networks = {
            "diffusion_models/full.safetensors": SDUNet(UNetConfig()),
            "controlnet/full_v2.safetensors": IRControlNet(UNetConfig()),
            "vae/full.safetensors": SDVAE(VAEConfig()),
        }
    try:
        for path, network in networks.items():
            weights = random_half(network)
            if isinstance(network, SDUNet):
                weights = prefixed("model.diffusion_model.", weights)
            save(models / path, weights)
        image = np.random.default_rng(0).random((1, 256, 256, 3), dtype=np.float32)
        prompt = restoration(server, image, control="full_v2.safetensors")
        prompt["model"]["inputs"]["unet_name"] = "full.safetensors"
        prompt["vae"]["inputs"]["vae_name"] = "full.safetensors"
        start = time.monotonic()
        latent = latent_of(server, prompt)
        seconds = time.monotonic() - start
    finally:
        for path in networks:  # 2.6 GB, and pytest keeps its folders
            (models / path).unlink(missing_ok=True)
    assert latent.shape == (1, 4, 32, 32)
    with capsys.disabled():
        sys.stdout.write(
            f"\nfull size, 256 px, 2 steps: {seconds:.0f} s, peak {peak_memory(server):.1f} GiB\n"
        )
