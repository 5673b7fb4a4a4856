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
from ..networks.diffir_prior import CPEN, IPR_LENGTH, LEAKY_SLOPE, ResidualBlock
from ..tiling import Progress
from .row_strips import (
    CorrectedOutput,
    Residual,
    RowStage,
    cast_weights,
    conv1x1,
    pixel_shuffle,
    run_stages,
    streamed_conv3x3,
    strips_of,
    write_unshuffled,
)
from .streaming_blocks import stream_blocks
from .sweeps import Blocks, Down, dirformer_steps, head_strip, map_size, strips_in_all

Callback = Callable[[int, int], None]


def _leaky_relu(rows: Tensor) -> Tensor:
    return F.leaky_relu(rows, LEAKY_SLOPE, inplace=True)


def _folded_rows(image: Tensor, unshuffle: int) -> Tensor:
    """(C, n * unshuffle, W * unshuffle) -> (n, W, C * unshuffle^2)."""
    return F.pixel_unshuffle(image, unshuffle).permute(1, 2, 0).contiguous()


def _down(x: Tensor, module: Resample, target: Tensor, strip: int, progress: Progress) -> None:
    """down(x), (H, W, C), into `target` (H/2, W/2, 2C)."""
    conv = streamed_conv3x3(module.body[0], x.shape[0], x)
    top = 0
    for rows in strips_of(x, strip, progress):
        out = conv(rows)
        write_unshuffled(target, top, out)
        top += out.shape[0]


class _Joined:
    """A 1x1 convolution over two rows side by side, without joining them."""

    def __init__(self, reduce: nn.Module, like: Tensor) -> None:
        weight, self.bias = cast_weights(reduce, like)
        self.first, self.second = weight.chunk(2, dim=1)

    def __call__(self, up: Tensor, encoded: Tensor) -> Tensor:
        return conv1x1(up, self.first, self.bias).add_(conv1x1(encoded, self.second))


def _up(
    x: Tensor,
    module: Resample,
    target: Tensor,
    reduce: nn.Module | None,
    strip: int,
    progress: Progress,
) -> None:
    """up(x) into `target` (2H, 2W, C), or reduce(cat(up(x), target)) where there is a `reduce`."""
    conv = streamed_conv3x3(module.body[0], x.shape[0], x, shuffle=2)
    join = None if reduce is None else _Joined(reduce, x)
    top = 0
    for rows in strips_of(x, strip, progress):
        out = conv(rows)
        if not out.shape[0]:
            continue
        up = pixel_shuffle(out)
        part = target[top : top + up.shape[0]]
        part.copy_(up if join is None else join(up, part))
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
    dim, (height, width) = config.dim, lq.shape[1:]
    # The decoder's first level lives on cat(up, encoded): the encoder works in the channels that
    # its result will have there, so that nothing is copied and both never exist at once.
    first = lq.new_empty(map_size(config, height, width, 0))
    maps = {0: first[..., dim:]}
    _embed(network, lq, maps[0], strip, progress)
    for step in dirformer_steps(config):
        module = getattr(network, step.module)
        if isinstance(step, Blocks):
            stream_blocks(maps[step.level], module, z, strip, progress)
        elif isinstance(step, Down):
            below = step.level + 1
            maps[below] = lq.new_empty(map_size(config, height, width, below))
            _down(maps[step.level], module, maps[below], strip, progress)
        elif step.reduce is None:
            _up(maps.pop(step.level), module, first[..., :dim], None, strip, progress)
            maps[0] = first
        else:
            target = maps[step.level - 1]
            _up(
                maps.pop(step.level), module, target, getattr(network, step.reduce), strip, progress
            )

    output = CorrectedOutput(result, lq[:3] if config.corrects else None)
    head = _head_stages(network, first)
    for rows in strips_of(first, head_strip(config, strip), progress):
        output.write(run_stages(head, rows))


def _embed(network: DIRformer, lq: Tensor, target: Tensor, strip: int, progress: Progress) -> None:
    """The pixels lq (C, H, W) into the first map."""
    unshuffle = network.config.unshuffle
    conv = streamed_conv3x3(network.patch_embed.proj, target.shape[0], lq)
    top = 0
    for pixels in strips_of(lq.transpose(0, 1), strip * unshuffle, progress):
        out = conv(_folded_rows(pixels.transpose(0, 1), unshuffle))
        target[top : top + out.shape[0]] = out
        top += out.shape[0]


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
    progress = Progress(batch * strips_in_all(config, height, strip), callback)
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
