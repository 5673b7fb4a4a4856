"""Guided against unguided steps, tiled against untiled ones, the exact tiled VAE against the whole.

The sides of a comparison have the same random weights and inputs and alternate in one process; the
shortest time of each counts. A step is one evaluation of UNet and IRControlNet with and without the
prompt, as a batch of two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..diffusion.guidance import RestorationGuidance, guided, pool_weight, region_weight
from ..exact_vae.tiled import decode_tiled, decode_with_gradient, encode_tiled
from ..latents import LATENT_FACTOR, LATENT_SCALE
from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.ir_controlnet import IRControlNet
from ..networks.text_encoder import CONTEXT_LENGTH
from ..networks.unet import SDUNet, UNetConfig
from ..tiling import Tile, tiled_apply
from .measuring import seconds_of
from .tensor_memory import peak_tensors_of

TILE = 512  # pixels
# Noise level and timestep of a step in the middle; speed does not depend on them.
SIGMA, SIGMA_NEXT, TIMESTEP = 2.0, 1.5, 500.0


@dataclass(frozen=True)
class Measured:
    """One side of a comparison.

    Attributes:
        seconds: the shortest run.
        extra: peak bytes of the tensors that the run made.
        difference: largest one to the first side's result, relative to that one's largest number.
    """

    side: str
    seconds: float
    extra: int
    difference: float


def compare(
    sides: Mapping[str, Callable[[], Tensor]], device: torch.device, repeats: int
) -> list[Measured]:
    """Measure the sides, the first of which is what the others are compared with."""
    results, extra = {}, {}
    for side, call in sides.items():
        results[side], extra[side] = peak_tensors_of(call)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, call in sides.items():
            seconds[side].append(seconds_of(call, device))
    first = next(iter(results.values()))
    return [
        Measured(
            side,
            min(seconds[side]),
            extra[side],
            float((result - first).abs().max() / first.abs().max()),
        )
        for side, result in results.items()
    ]


class Stage2:
    """UNet, IRControlNet and autoencoder with random weights, and inputs of a size in pixels."""

    def __init__(
        self,
        height: int,
        width: int,
        device: torch.device,
        unet: UNetConfig | None = None,
        vae: VAEConfig | None = None,
    ) -> None:
        config = unet or UNetConfig()
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        networks = SDUNet(config), IRControlNet(config), SDVAE(vae or VAEConfig())
        for network in networks:
            network.eval().requires_grad_(False).to(device)
        self.unet, self.control, self.vae = networks
        latent = (1, config.in_channels, height // LATENT_FACTOR, width // LATENT_FACTOR)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        self.x, self.hint = normal(*latent), normal(*latent)
        self.context = normal(2, CONTEXT_LENGTH, config.context_dim)
        self.image = torch.rand(1, 3, height, width, generator=generator).to(device)

    def evaluate(self, x: Tensor, hint: Tensor) -> Tensor:
        """The networks on a latent (1, 4, h, w): the mean of the outputs with and without prompt,
        as a stand-in for the clean estimate."""
        both, hints = x.expand(2, -1, -1, -1), hint.expand(2, -1, -1, -1)
        timesteps = x.new_full((2,), TIMESTEP)
        control = self.control(both, hints, timesteps, self.context)
        output: Tensor = self.unet(both, timesteps, self.context, control)
        return output.mean(dim=0, keepdim=True)

    @torch.no_grad()
    def step(self, guidance: RestorationGuidance | None = None) -> Tensor:
        denoised = self.evaluate(self.x, self.hint)
        if guidance is None:
            return denoised
        return guided(denoised, guidance, sigma=SIGMA, sigma_next=SIGMA_NEXT, timestep=TIMESTEP)

    @torch.no_grad()
    def tiled_step(self, tile: int) -> Tensor:
        def of_tiles(pieces: Tensor, chosen: Sequence[Tile]) -> Tensor:
            return self.evaluate(pieces, chosen[0].crop(self.hint))

        return tiled_apply(of_tiles, self.x, tile // LATENT_FACTOR, tile // LATENT_FACTOR // 2)

    def latent_guidance(self) -> RestorationGuidance:
        weight = pool_weight(region_weight(self.image))
        return RestorationGuidance(latent=self.hint, scale=0.5, weight=weight)

    def rgb_guidance(self, decode: Callable[[Tensor], Tensor]) -> RestorationGuidance:
        """`decode`: from unscaled latents to pictures in [-1, 1], differentiable."""
        return RestorationGuidance(
            latent=self.hint,
            scale=0.5,
            weight=region_weight(self.image),
            image=2 * self.image - 1,
            decode=lambda latent: decode(latent / LATENT_SCALE),
        )


def comparisons(stage2: Stage2, tile: int = TILE) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """The sides of each comparison by its name; `tile` in pixels."""
    pixels, vae = 2 * stage2.image - 1, stage2.vae
    rgb_whole = stage2.rgb_guidance(vae.decode)
    rgb_tiles = stage2.rgb_guidance(partial(decode_with_gradient, vae, tile=tile))
    whole_decode = torch.no_grad()(partial(vae.decode, stage2.hint))
    whole_encode = torch.no_grad()(partial(vae.encode, pixels))
    return {
        "step": {
            "unguided": stage2.step,
            "guided in latents": partial(stage2.step, stage2.latent_guidance()),
            "guided in rgb": partial(stage2.step, rgb_whole),
            f"guided in rgb, VAE in tiles of {tile}": partial(stage2.step, rgb_tiles),
            f"in tiles of {tile}": partial(stage2.tiled_step, tile),
        },
        "decode": {
            "whole": whole_decode,
            f"in tiles of {tile}": partial(decode_tiled, vae, stage2.hint, tile=tile),
        },
        "encode": {
            "whole": whole_encode,
            f"in tiles of {tile}": partial(encode_tiled, vae, pixels, tile=tile),
        },
    }
