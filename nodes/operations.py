"""What several nodes do."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..bir_core.checkpoints.decoder_copy import decoder_config
from ..bir_core.diffbir.settings import COLOR_FIXES
from ..bir_core.diffusion.guidance import weight_map
from ..bir_core.errors import BIRError
from ..bir_core.fallbacks import enough_memory, or_in_float32
from ..bir_core.images import (
    attach_alpha,
    from_channels_last,
    require_finite,
    split_alpha,
    to_channels_last,
)
from ..bir_core.latents import LATENT_FACTOR
from ..bir_core.tiling import TileWeights, tile_starts
from .host import hint
from .host import sampling as host_sampling
from .host.control import IRControlNet
from .host.guidance import GuidancePatch
from .host.protocols import VAE, ControlNet, Model
from .host.tiling import TilingPatch
from .host.vae import Tiling, decode, decode_whole, encode

SAMPLED = "The sampled latent"


def fix_colors(image: Tensor, reference: Tensor, method: str) -> Tensor:
    """Images (B, C, H, W) in [0, 1] of one size to the fixed image, clamped; the alpha channel of
    `image` is kept. A single reference serves the whole batch."""
    colours, alpha = split_alpha(image)
    style, _ = split_alpha(reference)
    if len(style) not in (1, len(colours)):
        raise BIRError(
            f"Expected one reference, or one for each of the {len(colours)} images, but "
            f"{len(style)} came; repeat or select references to match the batch."
        )
    with enough_memory(
        "The colour fix should find memory for several copies of the picture, but it ran out; "
        "close other programs, or take fewer or smaller pictures."
    ):
        fixed = COLOR_FIXES[method](colours, style.to(colours).expand(len(colours), -1, -1, -1))
        return attach_alpha(fixed.clamp(0, 1), alpha)


def guide(
    model: Model,
    padded: Tensor,
    vae: VAE,
    *,
    scale: float,
    space: str = "latent",
    loss: str = "w_mse",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    repeats: int = 1,
    mask: Tensor | None = None,
    latent: Tensor | None = None,
    tile: int = 0,
    wide: bool = False,
) -> tuple[Model, Tensor]:
    """A guided MODEL, the same one where nothing would happen, and the weight map that it uses.

    Args:
        padded: (B, 3, H, W) in [0, 1], sides dividing by 64.
        mask: (B, 1, H / 8, W / 8).
        latent: of `padded` from the VAE, unscaled, where it is known already.
        tile, wide: of the way through the decoder, see `GuidancePatch`.
    """
    weight = weight_map(padded, space, loss)
    if scale == 0 or start_percent > end_percent:
        return model, weight
    on_pixels = space == "rgb"
    if on_pixels:
        decoder_config(vae.first_stage_model.state_dict())  # another VAE is said before sampling
    latent = hint.encode(vae, padded) if latent is None else latent
    patch = GuidancePatch(
        latent=model.get_model_object("latent_format").process_in(latent),
        scale=scale,
        repeats=repeats,
        start_percent=start_percent,
        end_percent=end_percent,
        weight=weight if loss == "w_mse" else None,
        mask=mask,
        image=2 * padded - 1 if on_pixels else None,
        vae=vae if on_pixels else None,
        tile=tile,
        wide=wide,
    )
    return patch.attach(model), weight


def tile_model(
    model: Model, tile_size: int, overlap: int, weights: TileWeights, tile_batch: int
) -> Model:
    """A MODEL that works on tiles of `tile_size` pixels."""
    tile, shared = tile_size // LATENT_FACTOR, overlap // LATENT_FACTOR
    tile_starts(tile, tile, shared)  # a wrong overlap is said before the sampling
    return TilingPatch(tile, shared, weights, tile_batch).attach(model)


def require_control(control_net: ControlNet, vae: VAE) -> IRControlNet:
    """The control net itself. Raise BIRError unless it is an IRControlNet with a VAE for it."""
    if not isinstance(control_net, IRControlNet):
        raise BIRError(
            "DiffBIR should be conditioned by an IRControlNet from Load DiffBIR ControlNet, but a "
            f"{type(control_net).__name__} came; use Apply ControlNet for that one."
        )
    hint.require_vae(vae)
    return control_net


def encoded(vae: VAE, padded: Tensor, tile_size: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] to its latent, unscaled, on the CPU: in exact tiles or as a whole."""
    if not tile_size:
        return hint.encode(vae, padded)
    return encode(vae, to_channels_last(padded), Tiling(tile_size)).cpu()


def decoded(vae: VAE, latent: Tensor, tile_size: int) -> Tensor:
    """A latent, unscaled, to (B, 3, H, W) in [0, 1]: in exact tiles or as a whole."""
    if not tile_size:
        return from_channels_last(decode_whole(vae, latent))
    return from_channels_last(decode(vae, latent, Tiling(tile_size)))


def in_float32_if_need_be(
    sampled: Callable[[Model, IRControlNet, bool], Tensor],
    model: Model,
    control_net: IRControlNet,
    vae: VAE,
) -> Tensor:
    """What `sampled` gives for a MODEL and an IRControlNet, repeated in float32 if half precision
    overflows in one of them, or in the VAE where the guidance goes through it.

    Args:
        sampled: also told whether the guidance computes in float32.

    Raises:
        BIRError: NaN or infinity even so.
    """

    def run(model: Model, control_net: IRControlNet, wide: bool) -> Tensor:
        latent = sampled(model, control_net, wide)
        require_finite(latent, SAMPLED)
        return latent

    types = {host_sampling.computing_type(model), control_net.computing_type, vae.vae_dtype}
    return or_in_float32(
        lambda: run(model, control_net, False),
        None
        if types == {torch.float32}
        else lambda: run(host_sampling.in_float32(model), control_net.in_float32(), True),
        "half precision",
    )
