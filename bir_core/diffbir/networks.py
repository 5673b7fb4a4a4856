"""The networks of both stages of DiffBIR, side by side."""

from dataclasses import dataclass

import torch
from torch import nn

from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.ir_controlnet import IRControlNet
from ..networks.swinir import SwinIR, SwinIRConfig
from ..networks.unet import SDUNet, UNetConfig
from .restoration_modules import RestorationModule
from .versions import Task, official_module


@dataclass(frozen=True, kw_only=True)
class DiffBIRNetworks:
    """What a run needs; for a plan they may lie on any device, `meta` included."""

    sd_unet: nn.Module
    ir_controlnet: nn.Module
    sd_vae: nn.Module
    stage1: RestorationModule | None

    @property
    def stage1_network(self) -> nn.Module | None:
        return None if self.stage1 is None else self.stage1.network

    @property
    def modules(self) -> list[nn.Module]:
        """All networks that hold weights."""
        modules = (self.stage1_network, self.sd_unet, self.ir_controlnet, self.sd_vae)
        return [module for module in modules if module is not None]


def official_networks(version: str, task: Task, dtype: torch.dtype) -> DiffBIRNetworks:
    """The networks of the official sizes, without memory for their weights; UNet and IRControlNet
    in `dtype`, the others in float32."""
    module = official_module(task, version)
    with torch.device("meta"):
        sd_unet, ir_controlnet = SDUNet(UNetConfig()), IRControlNet(UNetConfig())
        sd_vae = SDVAE(VAEConfig())
        if module.weights:
            network: nn.Module = nn.ParameterList([torch.empty(module.weights)])
        else:
            network = SwinIR(SwinIRConfig())
    return DiffBIRNetworks(
        sd_unet=sd_unet.to(dtype),
        ir_controlnet=ir_controlnet.to(dtype),
        sd_vae=sd_vae,
        stage1=RestorationModule(network, module.scale, module.name, network),
    )
