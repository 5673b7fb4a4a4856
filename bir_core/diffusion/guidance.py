"""Restoration guidance: pull the clean estimate of every step towards the stage-1 picture.

Lin et al., "DiffBIR: Toward Blind Image Restoration with Generative Diffusion Prior" (ECCV 2024),
section 3.3, with the constants of the official code (v2.0.0). The official release 2.1 has it
switched off. It acts on `denoised` alone, so it works with every sampler.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..latents import LATENT_FACTOR
from .denoisers import Denoiser, nearest_timestep
from .schedules import SamplingSchedule

# The official code multiplies the scale that the user gives by this.
SCALE_FACTOR = 3000.0
# Of the picture for which the official code recommends a scale, in latents.
RECOMMENDED_AREA = (512 // LATENT_FACTOR) ** 2
Level = TypeVar("Level", float, Tensor)


def region_weight(image: Tensor) -> Tensor:
    """The paper's weight map, W = 1 - tanh(sum of Sobel magnitudes over 2 x 2 blocks): 1 in flat
    regions, which are to stay faithful, towards 0 at edges and textures, which may be invented.

    Args:
        image: (B, 3, H, W) in [0, 1], the stage-1 picture; H and W even.

    Returns:
        (B, 1, H, W) in [0, 1].

    Raises:
        BIRError: other than 3 channels, or an odd side.
    """
    if image.shape[1] != 3 or image.shape[-2] % 2 or image.shape[-1] % 2:
        raise BIRError(
            "The weight map should come from an RGB image of even height and width, but shape "
            f"{tuple(image.shape)} came; pad it to an even size."
        )
    luma = image.new_tensor([0.2989, 0.5870, 0.1140]).reshape(1, 3, 1, 1)
    grey = F.pad((image * luma).sum(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = image.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
    magnitude = (F.conv2d(grey, kernels) ** 2).sum(dim=1, keepdim=True).sqrt()
    blocks = torch.tanh(4 * F.avg_pool2d(magnitude, 2))
    return 1 - F.interpolate(blocks, scale_factor=2, mode="nearest")


def pool_weight(weight: Tensor) -> Tensor:
    """The weight map at the resolution of latents, the mean of each 8 x 8 pixels.
    (B, 1, H, W) -> (B, 1, H / 8, W / 8)."""
    return F.avg_pool2d(weight, LATENT_FACTOR)


def weight_map(image: Tensor, space: str, loss: str) -> Tensor:
    """How strongly each pixel of an image (B, 3, H, W) in [0, 1], sides dividing by 64, is held:
    (B, 1, H, W) for the space rgb, (B, 1, H / 8, W / 8) for the space latent."""
    weight = region_weight(image) if loss == "w_mse" else torch.ones_like(image[:, :1])
    return weight if space == "rgb" else pool_weight(weight)


def descent(pred: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> Tensor:
    """-dL/dpred * 3000 * scale in closed form, for L the sum over the batch of the mean over an
    image of W (pred - target)^2.

    Args:
        pred: (B, C, H, W).
        target: (B, C, H, W) or (1, C, H, W).
        weight: W, (B or 1, 1, H, W); None is 1 everywhere, the loss "mse".
    """
    difference = target - pred
    if weight is not None:
        difference = weight * difference
    return difference * (2 * SCALE_FACTOR * scale / pred[0].numel())


@dataclass(frozen=True, kw_only=True)
class RestorationGuidance:
    """What the guidance pulls towards, and how strongly. Tensors have batch B or 1.

    latent: (B, 4, h, w), the stage-1 picture as a latent, multiplied by the latent scale.
    scale: 0 switches the pull off; the official code recommends 0.5 at 512 x 512 pixels. The
        loss is a mean, so the pull on each pixel falls with the size of the picture.
    at_any_size: `scale` means at any size what it means at 512 x 512 pixels: the loss is the sum
        over the picture, by the 512 x 512 pixels.
    weight: the region weight of the loss "w_mse", None for "mse": (B, 1, h, w) from `pool_weight`
        for the latent form, (B, 1, H, W) from `region_weight` for the rgb form.
    image, decode: both given, the loss is taken on pixels (the rgb form of the paper) and comes
        back through the decoder: image (B, 3, H, W) in [-1, 1], decode a differentiable function
        from a latent like `latent` to such an image. Both None: the loss is taken on latents.
    start, stop: active at timesteps t (0 to 999) with stop < t + 1 < start.
    repeats: how often the pull is applied at each step.
    mask: (B, 1, h, w) in [0, 1]; 0: invent freely, 0.5: restore, that is guidance as without a
        mask, 1: keep the stage-1 picture; between them it is mixed.
    """

    latent: Tensor
    scale: float
    at_any_size: bool = False
    weight: Tensor | None = None
    image: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    start: float = 1001.0
    stop: float = -1.0
    repeats: int = 1
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.image is None) != (self.decode is None):
            raise BIRError(
                "Guidance on pixels should have the stage-1 picture and a decoder, but one of "
                "them is missing; give both, or neither for guidance on latents."
            )
        loss_size = (self.latent if self.image is None else self.image).shape[-2:]
        sizes = {
            "weight map": (self.weight, loss_size),
            "mask": (self.mask, self.latent.shape[-2:]),
        }
        for name, (tensor, expected) in sizes.items():
            if tensor is not None and tensor.shape[-2:] != expected:
                raise BIRError(
                    f"The {name} of the guidance should have the size {tuple(expected)}, but "
                    f"{tuple(tensor.shape[-2:])} came; resize it."
                )

    def pull(self, pred: Tensor) -> Tensor:
        """The step of the clean estimate down the gradient of the loss, (B, 4, h, w)."""
        scale = self.scale
        if self.at_any_size:
            scale *= pred.shape[-2:].numel() / RECOMMENDED_AREA
        if self.image is None or self.decode is None:
            weight = None if self.weight is None else self.weight.to(pred)
            return descent(pred, self.latent.to(pred), weight, scale)
        # ComfyUI runs nodes in inference mode, whose tensors autograd refuses: hence the clone.
        with torch.inference_mode(False), torch.enable_grad():
            latent = pred.detach().clone().requires_grad_(True)
            decoded = self.decode(latent)
            with torch.no_grad():
                weight = None if self.weight is None else self.weight.to(decoded)
                pixels = descent(decoded, self.image.to(decoded), weight, scale)
            return torch.autograd.grad(decoded, latent, pixels)[0]


def guided_share(mask: Tensor) -> Tensor:
    """How much of the pull a mask lets act: 0 where it invents (0), 1 from restoring (0.5) on."""
    return (2 * mask).clamp(max=1)


def kept_share(mask: Tensor) -> Tensor:
    """How much of the stage-1 picture a mask puts in the place of what is made: 0 up to restoring
    (0.5), 1 where it keeps (1)."""
    return (2 * mask - 1).clamp(min=0)


def posterior_weight(sigma: Level, sigma_next: Level) -> Level:
    """Share of the clean estimate in the mean of DDPM's posterior of the next level (posterior mean
    coefficient 1, beta sqrt(abar_next) / (1 - abar)), written in sigma; 1 in a step to 0."""
    ratio = sigma_next / sigma
    weight: Level = (1 - ratio**2) / (1 + sigma_next**2) ** 0.5
    return weight


def next_sigma(sigma: float | Tensor, sigmas: Tensor) -> Tensor:
    """The largest scheduled level clearly below `sigma`, 0 if there is none; a scalar where
    `sigmas` lies, which nothing waits for. Samplers of higher order also evaluate between the
    levels of their schedule."""
    return torch.where(sigmas < sigma * (1 - 1e-4), sigmas, 0).amax()


def guided(
    denoised: Tensor,
    guidance: RestorationGuidance,
    *,
    sigma: Level,
    sigma_next: Level,
    timestep: float,
) -> Tensor:
    """The clean estimate after guidance: denoised += d / c1, where d is the negative gradient and
    c1 is `posterior_weight`, so that the mean of the DDPM posterior moves by d.

    Args:
        denoised: (B, 4, h, w), the clean estimate, after classifier-free guidance.
        sigma, sigma_next: this level and the one that the sampler goes to; scalars on the device
            of `denoised` will do, which nothing waits for.
        timestep: what the network is told at this level.

    Returns:
        A tensor like `denoised`; `denoised` itself where the guidance is not active.

    Raises:
        BIRError: the target has another size than `denoised`.
    """
    idle = guidance.scale == 0 and guidance.mask is None
    if idle or not guidance.stop < timestep + 1 < guidance.start:
        return denoised
    if guidance.latent.shape[-2:] != denoised.shape[-2:]:
        raise BIRError(
            f"The picture of the guidance should have {tuple(denoised.shape[-2:])} latents as the "
            f"one that is sampled, but {tuple(guidance.latent.shape[-2:])} came; "
            "give the stage-1 picture that the conditioning was made from."
        )
    share = posterior_weight(sigma, sigma_next)
    mask = None if guidance.mask is None else guidance.mask.to(denoised)
    pred = denoised
    for _ in range(guidance.repeats if guidance.scale else 0):
        pull = guidance.pull(pred)
        if mask is not None:
            pull = pull * guided_share(mask)
        pred = pred + pull / share
    if mask is not None:
        pred = torch.lerp(pred, guidance.latent.to(pred), kept_share(mask))
    return pred


def with_guidance(
    denoiser: Denoiser, guidance: RestorationGuidance, schedule: SamplingSchedule
) -> Denoiser:
    """A denoiser whose estimates are guided, for a sampler that walks down `schedule`."""
    sigmas, levels = schedule.sigmas, schedule.levels

    def denoise(x: Tensor, sigma: float, /, **cond: Tensor) -> Tensor:
        return guided(
            denoiser(x, sigma, **cond),
            guidance,
            sigma=sigma,
            sigma_next=float(next_sigma(sigma, sigmas)),
            timestep=nearest_timestep(sigma, levels),
        )

    return denoise
