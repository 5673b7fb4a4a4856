"""DiffBIR's steps: official against ours, guided against unguided ones, tiled against untiled
ones; and the whole VAE against the exact tiles and against overlapping ones.

The sides of a comparison have the same random weights and inputs. A step is one evaluation of UNet
and IRControlNet with and without the prompt, as a batch of two.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..diffbir.compiling import compiled
from ..diffusion.guidance import RestorationGuidance, guided, pool_weight, region_weight
from ..exact_vae.tiled import decode_tiled, decode_with_gradient, encode_tiled
from ..latents import LATENT_FACTOR, LATENT_SCALE
from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.ir_controlnet import IRControlNet
from ..networks.text_encoder import CONTEXT_LENGTH
from ..networks.unet import SDUNet, UNetConfig
from ..tiling import Tile, tiled_apply
from .comparing import Side
from .measuring import SEED
from .official import official_autoencoder, official_step_networks
from .overlapping_tiles import decode_overlapping

Network = TypeVar("Network", bound=nn.Module)
OVERLAP = 64  # pixels, of other programs' tiles
# Noise level and timestep of a step in the middle; speed does not depend on them.
SIGMA, SIGMA_NEXT, TIMESTEP = 2.0, 1.5, 500.0


class Stage2:
    """UNet, IRControlNet and autoencoder with random weights, each built when it is first asked
    for, and inputs of a size in pixels."""

    def __init__(
        self,
        height: int,
        width: int,
        device: torch.device,
        unet: UNetConfig | None = None,
        vae: VAEConfig | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.vae_config = unet or UNetConfig(), vae or VAEConfig()
        self.device, self.dtype = device, dtype
        generator = torch.Generator().manual_seed(SEED)
        latent = (1, self.config.in_channels, height // LATENT_FACTOR, width // LATENT_FACTOR)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        self.x, self.hint = normal(*latent), normal(*latent)
        self.context = normal(2, CONTEXT_LENGTH, self.config.context_dim)
        self.image = torch.rand(1, 3, height, width, generator=generator).to(device, dtype)

    @cached_property
    def unet(self) -> SDUNet:
        return self._settled(lambda: SDUNet(self.config))

    @cached_property
    def control(self) -> IRControlNet:
        def build() -> IRControlNet:
            network = IRControlNet(self.config)
            for zero_conv in (*network.zero_convs, network.middle_block_out):
                nn.init.normal_(zero_conv[0].weight, std=0.01)  # as if trained: it has a say
            return network

        return self._settled(build)

    @cached_property
    def vae(self) -> SDVAE:
        return self._settled(lambda: SDVAE(self.vae_config))

    def build(self) -> None:
        """Build the networks of a step now, so that it does not count as part of one."""
        _ = self.unet, self.control

    def _settled(self, build: Callable[[], Network]) -> Network:
        torch.manual_seed(SEED)
        return build().eval().requires_grad_(False).to(self.device, self.dtype)

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

    def compiled_step(self, backend: str) -> Callable[[], Tensor]:
        """`step` through torch.compile, as `bir restore --compile` has it."""
        evaluate = compiled(self.evaluate, backend, self.x.device)
        return torch.no_grad()(partial(evaluate, self.x, self.hint))

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


def step_sides(
    stage2: Stage2,
    tile: int | None = None,
    official: Path | None = None,
    compile: str | None = None,
) -> list[Side]:
    """Ways to make a step.

    Args:
        tile: in pixels; None leaves the tiled and the guided ones out.
        official: a checkout of the official code; its networks come first then.
        compile: backend of torch.compile for one more; None for none.

    Raises:
        BIRError: a checkout that cannot be used, see `official_step_networks`.
    """
    stage2.build()
    sides = [Side("cfg", stage2.step)]
    if official is not None:
        networks = official_step_networks(official, stage2.unet, stage2.control)
        sides.insert(0, Side("official", partial(_official_step, stage2, *networks)))
    if compile is not None:
        sides.append(Side(f"compiled by {compile}", stage2.compiled_step(compile), counted=False))
    if tile is None:
        return sides
    rgb_whole = stage2.rgb_guidance(stage2.vae.decode)
    rgb_tiles = stage2.rgb_guidance(partial(decode_with_gradient, stage2.vae, tile=tile))
    return [
        *sides,
        Side("guided in latents", partial(stage2.step, stage2.latent_guidance())),
        Side("guided in rgb", partial(stage2.step, rgb_whole)),
        Side(f"guided in rgb, VAE in tiles of {tile}", partial(stage2.step, rgb_tiles)),
        Side(f"in tiles of {tile}", partial(stage2.tiled_step, tile)),
    ]


@torch.no_grad()
def _official_step(stage2: Stage2, unet: nn.Module, control: nn.Module) -> Tensor:
    """`Stage2.step` by the official networks."""
    both, hints = (latent.expand(2, -1, -1, -1) for latent in (stage2.x, stage2.hint))
    timesteps = both.new_full((2,), TIMESTEP)
    residuals = control(both, hint=hints, timesteps=timesteps, context=stage2.context)
    output: Tensor = unet(both, timesteps, stage2.context, control=residuals)
    return output.mean(dim=0, keepdim=True)


def decode_sides(stage2: Stage2, tile: int, official: Path | None = None) -> list[Side]:
    """Ways to decode a latent; arguments and errors as of `step_sides`."""
    vae, latent = stage2.vae, stage2.hint
    overlap = min(OVERLAP, tile // 4)
    sides: dict[str, Callable[[], Tensor]] = {}
    if official is not None:
        sides["official"] = partial(official_autoencoder(official, vae).decode, latent)
    sides["whole"] = partial(vae.decode, latent)
    sides[f"exact tiles of {tile}"] = partial(decode_tiled, vae, latent, tile=tile)
    sides[f"overlapping tiles of {tile}"] = partial(
        decode_overlapping, vae.decode, latent, tile=tile, overlap=overlap
    )
    return [Side(name, torch.no_grad()(call)) for name, call in sides.items()]


def encode_sides(stage2: Stage2, tile: int) -> list[Side]:
    """Ways to encode a picture; `tile` in pixels."""
    vae, pixels = stage2.vae, 2 * stage2.image - 1
    sides = {
        "whole": partial(vae.encode, pixels),
        f"exact tiles of {tile}": partial(encode_tiled, vae, pixels, tile=tile),
    }
    return [Side(name, torch.no_grad()(call)) for name, call in sides.items()]
