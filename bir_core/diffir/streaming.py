"""Exact inference of DiffIR by strips of rows.

DiffIR's attention is between channels: it needs the picture only through the Gram matrix of q and
k, and everything else in the network is local. So each block sweeps twice over its map: the first
sweep adds up Gram matrix and norms, the second one recomputes v, applies the attention merged with
the output projection, and runs the feed-forward network behind it. Only the maps of the U lie
in memory as a whole; the wide inner ones exist for a strip at a time. The result is that of
`diffir` up to rounding, for any size and any height of the strips, without tiles or seams.

Each image of a batch is computed alone. Weights may lie on another device or have another dtype
than the image: each is cast when its turn comes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..errors import NotFinite
from ..images import is_finite
from ..networks.diffir import DiffIRStage2, DIRformer, Resample, require_multiple
from ..networks.diffir_config import DiffIRConfig
from ..networks.diffir_prior import CPEN, IPR_LENGTH, LEAKY_SLOPE, ResidualBlock
from ..row_strips import (
    CorrectedOutput,
    Residual,
    RowStage,
    cast_weights,
    conv1x1,
    pixel_shuffle,
    run_stages,
    streamed_conv3x3,
    strip_count,
    strips_of,
    write_unshuffled,
)
from ..tiling import Progress
from .streaming_blocks import stream_blocks

Callback = Callable[[int, int], None]


def _leaky_relu(rows: Tensor) -> Tensor:
    return F.leaky_relu(rows, LEAKY_SLOPE, inplace=True)


def _folded_rows(image: Tensor, unshuffle: int) -> Tensor:
    """(C, n * unshuffle, W * unshuffle) -> (n, W, C * unshuffle^2)."""
    return F.pixel_unshuffle(image, unshuffle).permute(1, 2, 0).contiguous()


def _down(x: Tensor, module: Resample, strip: int, progress: Progress) -> Tensor:
    """(H, W, C) -> (H/2, W/2, 2C)."""
    height, width, channels = x.shape
    conv = streamed_conv3x3(module.body[0], height, x)
    target = x.new_empty(height // 2, width // 2, 2 * channels)
    top = 0
    for rows in strips_of(x, strip, progress):
        out = conv(rows)
        write_unshuffled(target, top, out)
        top += out.shape[0]
    return target


def _up(
    x: Tensor,
    module: Resample,
    encoded: Tensor,
    reduce: nn.Module,
    strip: int,
    progress: Progress,
) -> None:
    """reduce(cat(up(x), encoded)), in place on `encoded` (2H, 2W, C)."""
    conv = streamed_conv3x3(module.body[0], x.shape[0], x, shuffle=2)
    weight, bias = cast_weights(reduce, x)
    weight_up, weight_encoded = weight.chunk(2, dim=1)
    top = 0
    for rows in strips_of(x, strip, progress):
        out = conv(rows)
        if not out.shape[0]:
            continue
        up = pixel_shuffle(out)
        target = encoded[top : top + up.shape[0]]
        reduced = conv1x1(up, weight_up, bias)
        target.copy_(reduced.add_(conv1x1(target, weight_encoded)))
        top += up.shape[0]


def _cpen_image(cpen: CPEN, lq: Tensor, unshuffle: int, strip: int, progress: Progress) -> Tensor:
    """The IPR (1, 256) of an image lq (C, H, W) folded by `unshuffle`."""
    height, width = (side // unshuffle for side in lq.shape[1:])
    total = lq.new_zeros(1, IPR_LENGTH, dtype=torch.float32)
    stages = _cpen_stages(cpen, height, lq)
    for pixels in strips_of(lq.transpose(0, 1), strip * unshuffle, progress):
        out = run_stages(stages, _folded_rows(pixels.transpose(0, 1), unshuffle))
        if out.shape[0]:
            total += out.sum(dim=(0, 1), dtype=torch.float32)
    weights = {name: value.to(lq) for name, value in cpen.mlp.named_parameters()}
    z: Tensor = functional_call(cpen.mlp, weights, ((total / (height * width)).to(lq),))
    return z


def _cpen_stages(cpen: CPEN, height: int, like: Tensor) -> list[RowStage]:
    stages: list[RowStage] = []
    for layer in cpen.E:
        if isinstance(layer, ResidualBlock):
            first, second = (streamed_conv3x3(layer.body[i], height, like) for i in (0, 2))
            stages.append(Residual([first, _leaky_relu, second]))
        elif isinstance(layer, nn.LeakyReLU):
            stages.append(_leaky_relu)
        elif not isinstance(layer, nn.AdaptiveAvgPool2d):
            stages.append(streamed_conv3x3(layer, height, like))
    return stages


def _prior_image(
    model: DiffIRStage2, lq: Tensor, noise: Tensor, strip: int, progress: Progress
) -> Tensor:
    """The estimated IPR (1, 256) of an image lq (C, H, W) from noise (1, 256)."""
    cond = _cpen_image(model.condition, lq, model.config.prior_unshuffle, strip, progress)
    weights = {name: value.to(lq) for name, value in model.denoise.named_parameters()}
    z = noise.to(lq)
    for t in reversed(range(model.diffusion.timesteps)):
        z_0 = functional_call(model.denoise, weights, (z, t, cond))
        z = model.diffusion.posterior_mean(z_0, z, t)
    return z


def _dirformer_image(
    network: DIRformer, lq: Tensor, z: Tensor, result: Tensor, strip: int, progress: Progress
) -> None:
    config = network.config
    height, width = (side // config.unshuffle for side in lq.shape[1:])
    dim = config.dim
    # The decoder's first level lives on cat(up, encoded): the encoder works in the channels that
    # its result will have there, so that nothing is copied and both never exist at once.
    x1 = lq.new_empty(height, width, 2 * dim)
    up1, enc1 = x1[..., :dim], x1[..., dim:]

    embed = streamed_conv3x3(network.patch_embed.proj, height, lq)
    rows_of_pixels = lq.transpose(0, 1)
    top = 0
    for pixels in strips_of(rows_of_pixels, strip * config.unshuffle, progress):
        out = embed(_folded_rows(pixels.transpose(0, 1), config.unshuffle))
        enc1[top : top + out.shape[0]] = out
        top += out.shape[0]

    stream_blocks(enc1, network.encoder_level1, z, strip, progress)
    x2 = _down(enc1, network.down1_2, strip, progress)
    stream_blocks(x2, network.encoder_level2, z, strip, progress)
    x3 = _down(x2, network.down2_3, strip, progress)
    stream_blocks(x3, network.encoder_level3, z, strip, progress)
    x4 = _down(x3, network.down3_4, strip, progress)
    stream_blocks(x4, network.latent, z, strip, progress)
    _up(x4, network.up4_3, x3, network.reduce_chan_level3, strip, progress)
    del x4
    stream_blocks(x3, network.decoder_level3, z, strip, progress)
    _up(x3, network.up3_2, x2, network.reduce_chan_level2, strip, progress)
    del x3
    stream_blocks(x2, network.decoder_level2, z, strip, progress)
    up = streamed_conv3x3(network.up2_1.body[0], x2.shape[0], x2, shuffle=2)
    top = 0
    for rows in strips_of(x2, strip, progress):
        out = pixel_shuffle(up(rows))
        up1[top : top + out.shape[0]] = out
        top += out.shape[0]
    del x2
    stream_blocks(x1, network.decoder_level1, z, strip, progress)
    if config.task != "inpainting":
        stream_blocks(x1, network.refinement, z, strip, progress)

    output = CorrectedOutput(result, None if config.task == "inpainting" else lq)
    head = _head_stages(network, x1)
    for rows in strips_of(x1, _head_strip(config, strip), progress):
        output.write(run_stages(head, rows))


def _head_stages(network: DIRformer, x: Tensor) -> list[RowStage]:
    height = x.shape[0]
    if network.config.task != "sr":
        return [streamed_conv3x3(network.output, height, x)]
    upsample, last = network.tail.children()
    first, _, second, _ = upsample.children()
    return [
        streamed_conv3x3(first, height, x, shuffle=2),
        pixel_shuffle,
        streamed_conv3x3(second, 2 * height, x, shuffle=2),
        pixel_shuffle,
        streamed_conv3x3(last, 4 * height, x),
    ]


def _strips_in_all(config: DiffIRConfig, height: int, strip: int) -> int:
    """Strips of all sweeps over the maps of one image of `height` rows."""
    rows = [height // config.unshuffle >> level for level in range(4)]
    counts = [strip_count(r, strip) for r in rows]
    first, second, third, fourth = config.num_blocks
    refinement = 0 if config.task == "inpainting" else config.num_refinement_blocks
    blocks = (2 * first + refinement, 2 * second, 2 * third, fourth)
    sweeps = sum(2 * n * count for n, count in zip(blocks, counts, strict=True))
    prior = strip_count(height // config.prior_unshuffle, strip)
    embedding, down, up = counts[0], sum(counts[:3]), sum(counts[1:])
    return prior + embedding + sweeps + down + up + strip_count(rows[0], _head_strip(config, strip))


def _head_strip(config: DiffIRConfig, strip: int) -> int:
    # The head of super-resolution works on a 16 times larger grid.
    return max(1, strip // 8) if config.task == "sr" else strip


@torch.no_grad()
def stream(
    model: DiffIRStage2,
    lq: Tensor,
    noise: Tensor,
    *,
    strip: int,
    callback: Callback | None = None,
) -> Tensor:
    """Restore images by strips; equals `model(lq, noise)` up to rounding.

    Args:
        lq: (B, in_channels, H, W) in [0, 1], sides dividing by `config.size_multiple`.
        noise: Z_T, (B, 256) standard normal.
        strip: rows at a time, of the map of each level.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H * scale, W * scale) like lq in dtype and device, not clamped; for inpainting the
        prediction everywhere.

    Raises:
        NotFinite: NaN or infinity; the sentence names the part of the network.
    """
    config = model.config
    require_multiple(lq, config)
    batch, _, height, width = lq.shape
    progress = Progress(batch * _strips_in_all(config, height, strip), callback)
    result = lq.new_empty(batch, 3, height * config.scale, width * config.scale)
    for index, image in enumerate(lq):
        z = _prior_image(model, image, noise[index : index + 1], strip, progress)
        _require_finite(z, "prior (CPEN and denoiser)")
        _dirformer_image(model.G, image, z, result[index], strip, progress)
    _require_finite(result, "DIRformer")
    return result


def _require_finite(x: Tensor, part: str) -> None:
    if not is_finite(x):
        raise NotFinite(
            f"Restoring should give finite numbers, but NaN or infinity came out of the {part} "
            "even in float32; the weights are damaged or the image is far outside of [0, 1].",
            f"What came out of the {part}",
        )
