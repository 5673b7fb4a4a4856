"""The networks of both stages of DiffBIR, side by side."""

from dataclasses import dataclass

from torch import nn

from .restoration_modules import RestorationModule


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
