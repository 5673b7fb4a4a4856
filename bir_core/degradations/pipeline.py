"""`degrade`: from high-quality images and a degradation to pairs.

All randomness comes from the generator that is passed in, drawn on the CPU in a fixed order: the
same generator state and the same input give the same result. A training on a GPU passes a second
one for the noise.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import resize
from .draws import chance, choose, choose_evenly, uniform, uniform_per_sample
from .jpeg import codec_jpeg, diff_jpeg
from .kernels import (
    MixedKernels,
    draw_final_sinc,
    draw_kernel,
    filter2d,
    sharpen,
    stack_kernels,
)
from .masks import MaskDegradation, cut_hole
from .noise import gaussian_noise, poisson_noise
from .parameters import (
    CodeFormerDegradation,
    Degradation,
    FixedDegradation,
    RealESRGANDegradation,
    RealESRGANOrder,
    ResizeMode,
)

Draws = dict[str, object]


@dataclass(frozen=True)
class Degraded:
    """What `degrade` returns.

    Attributes:
        lq: (B, 3, H', W') float32 in [0, 1]; with a hole (B, 4, H, W), the fourth channel its mask.
        hq: (B, 3, H, W) float32 in [0, 1], the target that belongs to lq.
        draws: every value that was drawn, by the name of its step: a number, text or bool for the
            whole batch, a (B,) tensor, or a list with one entry for each image.
        sharpened_from: hq before the preset sharpened it; None where it did not.
    """

    lq: Tensor
    hq: Tensor
    draws: Draws
    sharpened_from: Tensor | None = None


def _round_8bit(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def _blur(
    image: Tensor, kernels: MixedKernels, generator: torch.Generator, draws: Draws, name: str
) -> Tensor:
    drawn = [draw_kernel(kernels, generator) for _ in image]
    draws[name] = [values for _, values in drawn]
    return filter2d(image, stack_kernels([kernel for kernel, _ in drawn]))


def _resize_fixed(
    image: Tensor, preset: FixedDegradation, generator: torch.Generator, draws: Draws
) -> Tensor:
    if preset.scale == 1:
        return image
    height, width = (side // preset.scale for side in image.shape[-2:])
    modes = [choose_evenly(preset.resize_modes, generator) for _ in image]
    draws["resize_mode"] = modes
    return torch.cat(
        [resize(one[None], height, width, mode) for one, mode in zip(image, modes, strict=True)]
    )


def _noise_fixed(
    image: Tensor,
    preset: FixedDegradation,
    generator: torch.Generator,
    noise: torch.Generator,
    draws: Draws,
) -> Tensor:
    draws["noise_sigma"] = sigma = uniform_per_sample(preset.noise_sigma, len(image), generator)
    grey = torch.zeros(len(image), dtype=torch.bool)
    if preset.grey_probability:
        grey = uniform_per_sample((0.0, 1.0), len(image), generator) < preset.grey_probability
        draws["noise_grey"] = grey
    return image + gaussian_noise(image, sigma, grey, noise)


def _jpeg_fixed(
    image: Tensor, preset: FixedDegradation, generator: torch.Generator, draws: Draws
) -> Tensor:
    draws["jpeg_quality"] = quality = uniform_per_sample(preset.jpeg_quality, len(image), generator)
    return codec_jpeg(image, quality)


def _sometimes(
    changed: Tensor,
    image: Tensor,
    probability: float,
    generator: torch.Generator,
    draws: Draws,
    name: str,
) -> Tensor:
    """`changed` for a share of the images. A step that always happens draws nothing."""
    if probability == 1:
        return changed
    happens = uniform_per_sample((0.0, 1.0), len(image), generator) < probability
    draws[name] = happens
    return torch.where(happens.to(image.device).view(-1, 1, 1, 1), changed, image)


def _degrade_fixed(
    hq: Tensor,
    preset: FixedDegradation,
    generator: torch.Generator,
    noise: torch.Generator,
    draws: Draws,
) -> Tensor:
    image = hq
    for step in preset.order:
        if step == "resize":
            image = _resize_fixed(image, preset, generator, draws)
            continue
        probability = getattr(preset, f"{step}_probability")
        if probability == 0:
            continue
        if step == "blur":
            changed = _blur(image, preset.blur, generator, draws, "kernels")
        elif step == "noise":
            changed = _noise_fixed(image, preset, generator, noise, draws)
        else:
            changed = _jpeg_fixed(image, preset, generator, draws)
        image = _sometimes(changed, image, probability, generator, draws, step)
    # Where JPEG did not, the file of a picture rounds to 8 bits.
    return _round_8bit(image)


def _degrade_codeformer(
    hq: Tensor,
    preset: CodeFormerDegradation,
    generator: torch.Generator,
    noise: torch.Generator,
    draws: Draws,
) -> Tensor:
    height, width = hq.shape[-2:]
    blurred = _blur(hq, preset.blur, generator, draws, "kernels")
    draws["downscale"] = downscale = uniform_per_sample(preset.downscale, len(hq), generator)
    sigma = uniform_per_sample(preset.noise_sigma, len(hq), generator)
    quality = uniform_per_sample(preset.jpeg_quality, len(hq), generator)
    draws["noise_sigma"], draws["jpeg_quality"] = sigma, quality
    colour = torch.zeros(1, dtype=torch.bool)
    restored = []
    # One by one, because every image has another size in between.
    for index, factor in enumerate(downscale.tolist()):
        size = max(1, int(height // factor)), max(1, int(width // factor))
        image = F.interpolate(blurred[index : index + 1], size, mode="bilinear")
        image = image + gaussian_noise(image, sigma[index : index + 1], colour, noise)
        image = codec_jpeg(image, quality[index : index + 1])
        restored.append(F.interpolate(image, (height, width), mode="bilinear"))
    return torch.cat(restored)


def _resize_by(image: Tensor, factor: float, mode: ResizeMode) -> Tensor:
    """Resize by a factor without antialias; no side becomes smaller than one pixel."""
    height, width = (int(side * factor) for side in image.shape[-2:])
    if min(height, width) < 1:
        return F.interpolate(image, (max(1, height), max(1, width)), mode=mode)
    return F.interpolate(image, scale_factor=factor, mode=mode)


def _resize_factor(
    order: RealESRGANOrder, generator: torch.Generator, draws: Draws, name: str
) -> float:
    direction = choose(("enlarge", "reduce", "keep"), order.resize_weights, generator)
    factor = 1.0
    if direction != "keep":
        factor = uniform(order.enlarge if direction == "enlarge" else order.reduce, generator)
    draws[f"{name}_resize_direction"] = direction
    draws[f"{name}_resize_factor"] = factor
    return factor


def _resize_mode(
    preset: RealESRGANDegradation, generator: torch.Generator, draws: Draws, name: str
) -> ResizeMode:
    mode = choose_evenly(preset.resize_modes, generator)
    draws[f"{name}_resize_mode"] = mode
    return mode


def _noise(
    image: Tensor,
    order: RealESRGANOrder,
    generator: torch.Generator,
    noise: torch.Generator,
    draws: Draws,
    name: str,
) -> Tensor:
    gaussian = chance(order.gaussian_probability, generator)
    bounds = order.gaussian_sigma if gaussian else order.poisson_scale
    strength = uniform_per_sample(bounds, len(image), generator)
    grey = uniform_per_sample((0.0, 1.0), len(image), generator) < order.grey_probability
    draws[f"{name}_noise_kind"] = "gaussian" if gaussian else "poisson"
    draws[f"{name}_noise_strength"] = strength
    draws[f"{name}_noise_grey"] = grey
    make_noise = gaussian_noise if gaussian else poisson_noise
    return (image + make_noise(image, strength, grey, noise)).clamp(0, 1)


def _jpeg(
    image: Tensor, order: RealESRGANOrder, generator: torch.Generator, draws: Draws, name: str
) -> Tensor:
    quality = uniform_per_sample(order.jpeg_quality, len(image), generator)
    draws[f"{name}_jpeg_quality"] = quality
    return diff_jpeg(image.clamp(0, 1), quality)


def _resize_and_sinc(
    image: Tensor,
    size: tuple[int, int],
    preset: RealESRGANDegradation,
    generator: torch.Generator,
    draws: Draws,
) -> Tensor:
    image = F.interpolate(image, size, mode=_resize_mode(preset, generator, draws, "final"))
    drawn = [
        draw_final_sinc(
            preset.final_sinc_probability,
            preset.final_sinc_sizes,
            preset.final_sinc_cutoff,
            generator,
        )
        for _ in image
    ]
    draws["final_kernels"] = [values for _, values in drawn]
    return filter2d(image, stack_kernels([kernel for kernel, _ in drawn]))


def _degrade_real_esrgan(
    hq: Tensor,
    preset: RealESRGANDegradation,
    generator: torch.Generator,
    noise: torch.Generator,
    draws: Draws,
) -> Tensor:
    height, width = hq.shape[-2:]
    scale = uniform(preset.scale, generator) if isinstance(preset.scale, tuple) else preset.scale
    draws["scale"] = scale
    image = hq

    order = preset.first
    draws["first_blur"] = chance(order.blur_probability, generator)
    if draws["first_blur"]:
        image = _blur(image, order.kernels, generator, draws, "first_kernels")
    factor = _resize_factor(order, generator, draws, "first")
    image = _resize_by(image, factor, _resize_mode(preset, generator, draws, "first"))
    image = _noise(image, order, generator, noise, draws, "first")
    image = _jpeg(image, order, generator, draws, "first")

    order = preset.second
    draws["second_blur"] = chance(order.blur_probability, generator)
    if draws["second_blur"]:
        image = _blur(image, order.kernels, generator, draws, "second_kernels")
    factor = _resize_factor(order, generator, draws, "second")
    size = max(1, int(height / scale * factor)), max(1, int(width / scale * factor))
    image = F.interpolate(image, size, mode=_resize_mode(preset, generator, draws, "second"))
    image = _noise(image, order, generator, noise, draws, "second")

    size = max(1, int(height // scale)), max(1, int(width // scale))
    draws["final_resize_before_jpeg"] = chance(0.5, generator)
    if draws["final_resize_before_jpeg"]:
        image = _resize_and_sinc(image, size, preset, generator, draws)
        image = _jpeg(image, order, generator, draws, "second")
    else:
        image = _jpeg(image, order, generator, draws, "second")
        image = _resize_and_sinc(image, size, preset, generator, draws)
    if preset.restore_size:
        image = F.interpolate(image, (height, width), mode="bicubic")
    return _round_8bit(image)


def _cut_holes(
    hq: Tensor, preset: MaskDegradation, generator: torch.Generator, draws: Draws
) -> tuple[Tensor, Tensor]:
    cut = [cut_hole(image[None], preset, generator) for image in hq]
    draws["holes"] = [drawn for _, _, drawn in cut]
    return torch.cat([lq for lq, _, _ in cut]), torch.cat([target for _, target, _ in cut])


def _with_scale(preset: Degradation, scale: int) -> Degradation:
    if isinstance(preset, MaskDegradation):
        if scale != 1:
            raise BIRError(
                f"A preset that cuts holes keeps the size of a picture, but a scale of {scale} "
                "came; leave it out."
            )
        return preset
    if isinstance(preset, CodeFormerDegradation):
        return dataclasses.replace(preset, downscale=(float(scale), float(scale)))
    return dataclasses.replace(preset, scale=scale)


def _cut_to_scale(hq: Tensor, scale: int) -> Tensor:
    height, width = hq.shape[-2:]
    if min(height, width) < scale:
        raise BIRError(
            f"An image to be made {scale} times smaller should have sides of at least {scale} "
            f"pixels, but {width} x {height} came; use a larger picture."
        )
    return hq[..., : height - height % scale, : width - width % scale]


def degrade(
    hq: Tensor,
    preset: Degradation,
    *,
    generator: torch.Generator,
    noise: torch.Generator | None = None,
    scale: int | None = None,
) -> Degraded:
    """Make low-quality images from high-quality ones.

    Args:
        hq: (B, 3, H, W) float in [0, 1], any device, any size from 1 pixel on.
        preset: what to do; see `get_preset`.
        generator: on the CPU; it is the only source of randomness.
        noise: another generator, for the noise alone, on the CPU or the device of hq (see
            `noise_generator_for`); None: `generator` draws the noise too.
        scale: replaces the preset's scale. Where the preset returns to the size of hq, it is the
            factor of the size in between.

    Returns:
        lq, hq and the drawn values. A test of inpainting resizes and cuts hq first. Where lq is
        smaller than hq, hq is cut at the right and the
        bottom to a multiple of the scale, so that the two cover the same part of the picture.

    Raises:
        BIRError: hq of another shape or type, smaller than the scale, a scale below 1, or any other
            than 1 for a preset that cuts holes.
    """
    if hq.ndim != 4 or hq.shape[1] != 3 or not hq.is_floating_point() or hq.numel() == 0:
        raise BIRError(
            "degrade expects float images of shape (B, 3, H, W), but "
            f"{tuple(hq.shape)} of {hq.dtype} came; convert the picture to RGB first."
        )
    if scale is not None:
        preset = _with_scale(preset, scale)
    hq = hq.float()
    noise = generator if noise is None else noise
    draws: Draws = {}
    if isinstance(preset, MaskDegradation):
        lq, hq = _cut_holes(hq, preset, generator, draws)
        return Degraded(lq=lq, hq=hq, draws=draws)
    if isinstance(preset, CodeFormerDegradation):
        return Degraded(
            lq=_degrade_codeformer(hq, preset, generator, noise, draws), hq=hq, draws=draws
        )
    if isinstance(preset, FixedDegradation):
        hq = _cut_to_scale(hq, preset.scale)
        return Degraded(lq=_degrade_fixed(hq, preset, generator, noise, draws), hq=hq, draws=draws)
    if not isinstance(preset.scale, tuple) and not preset.restore_size:
        hq = _cut_to_scale(hq, int(preset.scale))
    before = hq if preset.sharpen_hq else None
    if preset.sharpen_hq:
        hq = sharpen(hq)
    lq = _degrade_real_esrgan(hq, preset, generator, noise, draws)
    return Degraded(lq=lq, hq=hq, draws=draws, sharpened_from=before)
