"""What several nodes do."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..bir_core.checkpoints import inspect
from ..bir_core.checkpoints.decoder_copy import decoder_config
from ..bir_core.diffbir import color_fix
from ..bir_core.diffbir.color_fix import COLOR_FIXES
from ..bir_core.diffbir.masks import Painted, mask_values, picture_mask
from ..bir_core.diffbir.piece import resized_tile
from ..bir_core.diffusion.guidance import weight_map
from ..bir_core.errors import BIRError
from ..bir_core.fallbacks import enough_memory, or_in_float32
from ..bir_core.images import (
    attach_alpha,
    from_channels_last,
    masks_of_batch,
    require_finite,
    resize,
    split_alpha,
    to_channels_last,
)
from ..bir_core.memory import picture_bytes, require_room
from ..bir_core.tiling import Tile, TileWeights, tile_starts
from .host import hint, services
from .host import sampling as host_sampling
from .host.control import IRControlNet, require_ours
from .host.guidance import GuidancePatch
from .host.messages import TileProgress
from .host.protocols import VAE, ControlNet, Model
from .host.tiling import TilingPatch
from .host.vae import Tiling, decode, decode_whole, encode, unclamped
from .inputs import AskedFor

SAMPLED = "The sampled latent"
RESULT_COPIES = 3
UNPAINTED = (64, 64)  # height and width of Load Image's mask for a picture without transparency


def require_room_for(
    images: Tensor, scale: float, size_of: Callable[[float], tuple[int, int]]
) -> None:
    """Say before the work that the results of images (B, 3, H, W) do not fit into the computer's
    memory: each of them, all in one, and those in ComfyUI's layout.

    Args:
        scale: their sides by those of the images.
        size_of: from a scale to height and width of the results.
    """
    batch, _, height, width = images.shape
    require_room(
        height, width, scale, lambda scale: picture_bytes(*size_of(scale), RESULT_COPIES * batch)
    )


def of_batch(pictures: Tensor, batch: int, what: str) -> Tensor:
    """For each image of a batch what belongs to it, (batch, C, H, W); a single one serves them all.
    `what` names it in the sentence."""
    if len(pictures) not in (1, batch):
        raise BIRError(
            f"Expected one {what}, or one for each of the {batch} images, but {len(pictures)} "
            "came; repeat or select them to match the batch."
        )
    return pictures.expand(batch, -1, -1, -1)


def fix_colors(
    image: Tensor,
    reference: Tensor,
    method: str,
    blending: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Images (B, C, H, W) of one size to the fixed image, not clamped, in which the reference has a
    share of `blending`, or what a mask of the same size makes of it; the alpha channel of `image`
    is kept. A single reference serves the whole batch. A method of "none" only keeps grey grey."""
    colours, alpha = split_alpha(image)
    style = of_batch(split_alpha(reference)[0].to(colours), len(colours), "reference")
    with enough_memory(
        "The colour fix should find memory for several copies of the picture, but it ran out; "
        "close other programs, or take fewer or smaller pictures."
    ):
        fixed = color_fix.fix_colors(colours, style, COLOR_FIXES.get(method), blending, mask)
        return attach_alpha(fixed, alpha)


def finished(picture: Tensor, asked: AskedFor) -> Tensor:
    """A restored picture (B, C, H, W) in the size that was asked for, in [0, 1]. The alpha channel
    of the picture that came is resized, once, and takes the place of any other."""
    size = (asked.height, asked.width)
    if asked.alpha is not None:
        picture, _ = split_alpha(picture)
        if len(asked.alpha) not in (1, len(picture)):
            raise BIRError(
                f"The size should come from the pictures that were restored, but {len(picture)} "
                f"pictures came, and an alpha channel for {len(asked.alpha)}; select the same "
                "pictures before the Restoration Module."
            )
    if tuple(picture.shape[-2:]) != size:
        picture = resize(picture, *size)
    picture = picture.clamp(0, 1)
    alpha = asked.alpha
    return attach_alpha(picture, None if alpha is None else alpha.expand(len(picture), -1, -1, -1))


def asked_for_piece(asked: AskedFor, shown: Tile, size: tuple[int, int]) -> AskedFor:
    """What is asked for of a piece: of what is shown of a picture of `size`, before `finished`."""
    whole = (asked.height, asked.width)
    part = resized_tile(shown, size, whole)
    alpha = None if asked.alpha is None else part.crop(resize(asked.alpha, *whole))
    return AskedFor(part.height, part.width, alpha)


def masks_for(mask: Tensor | None, batch: int, height: int, width: int) -> Tensor | None:
    """A MASK as (batch, 1, h, w). None if none is connected, or the one that Load Image gives for a
    picture without transparency, in which nothing was painted: zeros of 64 x 64 pixels, whatever
    the size of the picture (height, width)."""
    if mask is None:
        return None
    sides = tuple(mask.shape[-2:])
    if sides == UNPAINTED and sides != (height, width) and not mask.any():
        return None
    return masks_of_batch(mask, batch)


def mask_of_places(
    mask: Tensor | None, painted: Painted, batch: int, height: int, width: int
) -> Tensor | None:
    """A MASK that keeps, restores or invents, (batch, 1, height, width) in [0, 1]; None where
    `masks_for` has none."""
    masks = masks_for(mask, batch, height, width)
    return None if masks is None else picture_mask(mask_values(masks, painted), height, width)


def guide(
    model: Model,
    padded: Tensor,
    vae: VAE,
    *,
    scale: float,
    space: str = "latent",
    loss: str = "w_mse",
    per: str = "picture",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    repeats: int = 1,
    mask: Tensor | None = None,
    latent: Tensor | None = None,
    tile: int = 0,
    wide: bool = False,
    place: Tile | None = None,
) -> tuple[Model, Tensor]:
    """A guided MODEL, the same one where nothing would happen, and the weight map that it uses.

    Args:
        padded: (B, 3, H, W) in [0, 1], sides dividing by 64.
        mask: (B, 1, H / 8, W / 8).
        latent: of `padded` from the VAE, unscaled, where it is known already.
        place: where `padded` lies in the latent that is sampled; None if it is all of it.
        tile, wide: of the way through the decoder, see `GuidancePatch`.
    """
    weight = weight_map(padded, space, loss)
    if (scale == 0 and mask is None) or start_percent > end_percent:
        return model, weight
    on_pixels = space == "rgb" and scale != 0
    if on_pixels:
        decoder_config(vae.first_stage_model.state_dict())  # another VAE is said before sampling
    latent = hint.encode(vae, padded) if latent is None else latent
    patch = GuidancePatch(
        latent=model.get_model_object("latent_format").process_in(latent),
        scale=scale,
        at_any_size=per == "512x512",
        repeats=repeats,
        start_percent=start_percent,
        end_percent=end_percent,
        weight=weight if loss == "w_mse" and scale else None,
        mask=mask,
        image=2 * padded - 1 if on_pixels else None,
        vae=vae if on_pixels else None,
        tile=tile,
        wide=wide,
        place=place,
    )
    return patch.attach(model), weight


def tile_model(
    model: Model,
    tile_size: int,
    overlap: int,
    weights: TileWeights,
    tile_batch: int,
    beginning: str = "",
    place: Tile | None = None,
) -> Model:
    """A MODEL that works on tiles of `tile_size` pixels, of no more than a place in latent pixels
    if there is one, and tells of them in words with this `beginning`."""
    factor = model.get_model_object("latent_format").spacial_downscale_ratio
    tile, shared = tile_size // factor, overlap // factor
    tile_starts(tile, tile, shared)  # a wrong overlap is said before the sampling
    progress = TileProgress(beginning)
    return TilingPatch(tile, shared, weights, tile_batch, place, progress, factor).attach(model)


def require_control(control_net: ControlNet, vae: VAE) -> IRControlNet:
    """The control net itself. Raise BIRError unless it is an IRControlNet with a VAE for it."""
    hint.require_vae(vae)
    return require_ours(control_net)


def fault_of_file(
    name: str | None, path_of: Callable[[str], str | Path], architecture: str
) -> bool | str:
    """What a loader's `validate_inputs` gives: True, or the sentence on a file that holds another
    network or none, of which nothing but the header is read. A name that another node gives is
    not known yet."""
    if name is None:
        return True
    try:
        inspect(path_of(name), architecture=architecture)
    except BIRError as error:
        return str(error)
    return True


def fingerprint_of_file(
    name: str | None, path_of: Callable[[str], str | Path]
) -> tuple[int, int] | float:
    """What a loader's `fingerprint_inputs` gives, so that a checkpoint which a training has written
    anew is loaded anew: for a name that another node gives, and which is not known yet, NaN, which
    ComfyUI takes for changed."""
    return math.nan if name is None else services.fingerprint(path_of(name))


def encoded(vae: VAE, padded: Tensor, tile_size: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] to its latent, unscaled, on the CPU: in exact tiles or as a whole."""
    if not tile_size:
        return hint.encode(vae, padded)
    return encode(vae, to_channels_last(padded), Tiling(tile_size)).cpu()


def decoded(vae: VAE, latent: Tensor, tile_size: int) -> Tensor:
    """A latent, unscaled, to (B, 3, H, W), not clamped: in exact tiles or as a whole."""
    if not tile_size:
        return from_channels_last(decode_whole(unclamped(vae), latent))
    return from_channels_last(decode(unclamped(vae), latent, Tiling(tile_size)))


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
