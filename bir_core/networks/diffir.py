"""DiffIR (Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration", ICCV 2023).

A transformer restores the image (DIRformer); a vector of 256 numbers, the IR prior representation
(IPR, z), modulates each of its blocks. Stage 1 takes z from the low- and the high-quality image
(CPEN); stage 2 estimates it from the low-quality image alone by a four-step diffusion on z.

Attribute names follow the published checkpoints. This file is the plain network, written operation
by operation: training uses it, and it is the reference for `diffir_streaming`.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError

N_FEATS = 64
IPR_LENGTH = 4 * N_FEATS
LEAKY_SLOPE = 0.1

Task = Literal["sr", "deblur", "inpainting"]
LayerNormKind = Literal["BiasFree", "WithBias"]


@dataclass(frozen=True, kw_only=True)
class DiffIRConfig:
    """Sizes of a DiffIR network; a checkpoint's tensor shapes determine all of them."""

    task: Task
    scale: int = 1
    dim: int = 48
    num_blocks: tuple[int, int, int, int] = (3, 5, 6, 6)
    num_refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion_factor: float = 2.0
    bias: bool = False
    layer_norm: LayerNormKind = "WithBias"
    n_encoder_res: int = 5
    n_denoise_res: int = 1
    timesteps: int = 4
    linear_start: float = 0.1
    linear_end: float = 0.99

    def __post_init__(self) -> None:
        scales = (1, 2, 4) if self.task == "sr" else (1,)
        if self.scale not in scales:
            raise BIRError(
                f"A DiffIR for {self.task} should have a scale of {scales}, but {self.scale} came; "
                "choose one of these."
            )
        for level, heads in enumerate(self.heads):
            if (self.dim << level) % heads:
                raise BIRError(
                    f"The width {self.dim << level} of level {level + 1} should divide by its "
                    f"number of heads, but {heads} came; choose another dim or heads."
                )

    @property
    def in_channels(self) -> int:
        """Channels of the image that goes in: RGB, and the mask for inpainting."""
        return 4 if self.task == "inpainting" else 3

    @property
    def unshuffle(self) -> int:
        """Side of the pixel blocks that the DIRformer's input folds into channels, so that super-
        resolution always enlarges the working grid by 4."""
        return 4 // self.scale if self.task == "sr" else 1

    @property
    def prior_unshuffle(self) -> int:
        """The same for the CPEN's view of the low-quality image."""
        return self.unshuffle if self.task == "sr" else 4

    @property
    def size_multiple(self) -> int:
        """Pixels by which the sides of the network's input must divide."""
        return 8 * self.unshuffle


def _realsr(scale: int) -> DiffIRConfig:
    return DiffIRConfig(
        task="sr",
        scale=scale,
        dim=64,
        num_blocks=(13, 1, 1, 1),
        num_refinement_blocks=13,
        ffn_expansion_factor=2.2,
        layer_norm="BiasFree",
        n_encoder_res=9,
    )


def _inpainting(latent_blocks: int, n_encoder_res: int) -> DiffIRConfig:
    return DiffIRConfig(
        task="inpainting",
        dim=52,
        num_blocks=(1, 1, 1, latent_blocks),
        num_refinement_blocks=0,
        ffn_expansion_factor=1.8,
        n_encoder_res=n_encoder_res,
    )


# The shipped options of the official code. RealSR and SRGAN files hold the same network.
OFFICIAL_CONFIGS: dict[str, DiffIRConfig] = {
    "realsr_x4": _realsr(4),
    "realsr_x2": _realsr(2),
    "realsr_x1": _realsr(1),
    "deblur": DiffIRConfig(task="deblur"),
    "inpainting": _inpainting(9, 5),
    "inpainting_big": _inpainting(20, 8),
}


class ResidualBlock(nn.Module):
    """x + conv(LReLU(conv(x))), a piece of the CPEN."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.body = nn.Sequential(
            operations.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE),
            operations.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class CPEN(nn.Module):
    """Compact IR prior extraction network: an image, folded to channels, to its IPR."""

    def __init__(
        self, in_channels: int, n_encoder_res: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        widths = (N_FEATS, 2 * N_FEATS, 2 * N_FEATS, IPR_LENGTH)
        layers: list[nn.Module] = [
            operations.Conv2d(in_channels, N_FEATS, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE),
        ]
        layers += [ResidualBlock(N_FEATS, operations=operations) for _ in range(n_encoder_res)]
        for narrow, wide in pairwise(widths):
            layers += [
                operations.Conv2d(narrow, wide, 3, padding=1),
                nn.LeakyReLU(LEAKY_SLOPE),
            ]
        self.E = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.mlp = nn.Sequential(
            operations.Linear(IPR_LENGTH, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
            operations.Linear(IPR_LENGTH, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
        )

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, in_channels, h, w), any size. Returns the IPR (B, 256)."""
        return self.mlp(self.E(features).flatten(1))


class LayerNormBody(nn.Module):
    """Per-pixel normalisation over channels. "BiasFree" divides by the deviation about the mean
    but does not subtract the mean."""

    def __init__(self, dim: int, kind: LayerNormKind) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        if kind == "WithBias":
            self.bias = nn.Parameter(torch.zeros(dim))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        weight = self.weight.to(x)[:, None, None]
        if self.kind == "BiasFree":
            return x / torch.sqrt(variance + 1e-5) * weight
        normalised = (x - mean) / torch.sqrt(variance + 1e-5)
        return normalised * weight + self.bias.to(x)[:, None, None]


class LayerNorm(nn.Module):
    """Holds the key name `body` of the published files."""

    def __init__(self, dim: int, kind: LayerNormKind) -> None:
        super().__init__()
        self.body = LayerNormBody(dim, kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def modulate(x: Tensor, kernel: nn.Module, z: Tensor) -> Tensor:
    """x * k1 + k2 with (k1, k2) = W z per channel and sample (DiffIR eq. 3).
    x: (B, C, H, W), z: (B, 256)."""
    scale, shift = kernel(z)[:, :, None, None].chunk(2, dim=1)
    modulated: Tensor = x * scale + shift
    return modulated


class DMTA(nn.Module):
    """Dynamic multi-head transposed attention: C/h x C/h attention between channels, over all
    pixels (DiffIR eq. 4)."""

    def __init__(self, dim: int, heads: int, *, bias: bool, operations: ModuleType = nn) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.kernel = nn.Sequential(operations.Linear(IPR_LENGTH, 2 * dim, bias=False))
        self.qkv = operations.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = operations.Conv2d(
            3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias
        )
        self.project_out = operations.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:  # (B, C, H, W), (B, 256) -> (B, C, H, W)
        height, width = x.shape[-2:]
        qkv = self.qkv_dwconv(self.qkv(modulate(x, self.kernel, z)))
        q, k, v = (
            rearrange(part, "b (h c) y x -> b h c (y x)", h=self.heads)
            for part in qkv.chunk(3, dim=1)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # along the pixels, eps 1e-12
        attention = (q @ k.transpose(-2, -1) * self.temperature.to(x)).softmax(dim=-1)
        mixed = rearrange(attention @ v, "b h c (y x) -> b (h c) y x", y=height, x=width)
        return self.project_out(mixed)


class DGFN(nn.Module):
    """Dynamic gated feed-forward network (DiffIR eq. 5)."""

    def __init__(
        self, dim: int, expansion: float, *, bias: bool, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.kernel = nn.Sequential(operations.Linear(IPR_LENGTH, 2 * dim, bias=False))
        self.project_in = operations.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = operations.Conv2d(
            2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias
        )
        self.project_out = operations.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:  # (B, C, H, W), (B, 256) -> (B, C, H, W)
        gate, value = self.dwconv(self.project_in(modulate(x, self.kernel, z))).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class DIRformerBlock(nn.Module):
    """x + DMTA(norm(x), z), then x + DGFN(norm(x), z)."""

    def __init__(
        self, config: DiffIRConfig, dim: int, heads: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, config.layer_norm)
        self.attn = DMTA(dim, heads, bias=config.bias, operations=operations)
        self.norm2 = LayerNorm(dim, config.layer_norm)
        self.ffn = DGFN(dim, config.ffn_expansion_factor, bias=config.bias, operations=operations)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), z)
        return x + self.ffn(self.norm2(x), z)


class PatchEmbed(nn.Module):
    """The first convolution, under the key name of the published files."""

    def __init__(self, in_channels: int, dim: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.proj = operations.Conv2d(in_channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Resample(nn.Module):
    """A convolution and a pixel (un)shuffle: half the grid and twice the channels, or back."""

    def __init__(
        self, dim: int, direction: Literal["down", "up"], *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        down = direction == "down"
        self.body = nn.Sequential(
            operations.Conv2d(dim, dim // 2 if down else dim * 2, 3, padding=1, bias=False),
            nn.PixelUnshuffle(2) if down else nn.PixelShuffle(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class DIRformer(nn.Module):
    """Dynamic IR transformer: a four-level U of blocks that the IPR modulates (DiffIR fig. 2)."""

    def __init__(self, config: DiffIRConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        dim, counts, heads, bias = config.dim, config.num_blocks, config.heads, config.bias

        def blocks(count: int, level_dim: int, level: int) -> nn.ModuleList:
            return nn.ModuleList(
                DIRformerBlock(config, level_dim, heads[level], operations=operations)
                for _ in range(count)
            )

        def resample(level_dim: int, direction: Literal["down", "up"]) -> Resample:
            return Resample(level_dim, direction, operations=operations)

        folded = config.in_channels * config.unshuffle**2
        self.patch_embed = PatchEmbed(folded, dim, operations=operations)
        self.encoder_level1 = blocks(counts[0], dim, 0)
        self.down1_2 = resample(dim, "down")
        self.encoder_level2 = blocks(counts[1], 2 * dim, 1)
        self.down2_3 = resample(2 * dim, "down")
        self.encoder_level3 = blocks(counts[2], 4 * dim, 2)
        self.down3_4 = resample(4 * dim, "down")
        self.latent = blocks(counts[3], 8 * dim, 3)
        self.up4_3 = resample(8 * dim, "up")
        self.reduce_chan_level3 = operations.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = blocks(counts[2], 4 * dim, 2)
        self.up3_2 = resample(4 * dim, "up")
        self.reduce_chan_level2 = operations.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = blocks(counts[1], 2 * dim, 1)
        self.up2_1 = resample(2 * dim, "up")
        self.decoder_level1 = blocks(counts[0], 2 * dim, 0)
        if config.task != "inpainting":
            self.refinement = blocks(config.num_refinement_blocks, 2 * dim, 0)
        if config.task == "sr":
            upsample = nn.Sequential(
                operations.Conv2d(2 * dim, 8 * dim, 3, padding=1),
                nn.PixelShuffle(2),
                operations.Conv2d(2 * dim, 8 * dim, 3, padding=1),
                nn.PixelShuffle(2),
            )
            self.tail = nn.Sequential(upsample, operations.Conv2d(2 * dim, 3, 3, padding=1))
        else:
            self.output = operations.Conv2d(2 * dim, 3, 3, padding=1, bias=bias)

    def forward(self, lq: Tensor, z: Tensor) -> Tensor:
        """lq: (B, in_channels, H, W), sides dividing by `config.size_multiple`; z: (B, 256).
        Returns (B, 3, H * scale, W * scale), not clamped."""

        def through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
            for block in blocks:
                x = block(x, z)
            return x

        x = F.pixel_unshuffle(lq, self.config.unshuffle)
        enc1 = through(self.encoder_level1, self.patch_embed(x))  # (B, d, h, w)
        enc2 = through(self.encoder_level2, self.down1_2(enc1))  # (B, 2d, h/2, w/2)
        enc3 = through(self.encoder_level3, self.down2_3(enc2))  # (B, 4d, h/4, w/4)
        latent = through(self.latent, self.down3_4(enc3))  # (B, 8d, h/8, w/8)
        x = self.reduce_chan_level3(torch.cat([self.up4_3(latent), enc3], dim=1))
        x = through(self.decoder_level3, x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), enc2], dim=1))
        x = through(self.decoder_level2, x)
        x = through(self.decoder_level1, torch.cat([self.up2_1(x), enc1], dim=1))  # (B, 2d, h, w)
        if self.config.task == "inpainting":
            return self.output(x)
        x = through(self.refinement, x)
        if self.config.task == "deblur":
            return lq + self.output(x)
        return F.interpolate(lq, scale_factor=self.config.scale, mode="nearest") + self.tail(x)


class ResMLP(nn.Module):
    """Linear and LReLU; despite its published name there is no residual sum."""

    def __init__(self, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.resmlp = nn.Sequential(
            operations.Linear(IPR_LENGTH, IPR_LENGTH), nn.LeakyReLU(LEAKY_SLOPE)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.resmlp(x)


class IPRDenoiser(nn.Module):
    """Estimates the clean IPR (x0 parametrisation) from a noisy one, its time and a condition."""

    def __init__(self, config: DiffIRConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.max_period = config.timesteps * 10
        self.resmlp = nn.Sequential(
            operations.Linear(2 * IPR_LENGTH + 1, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
            *(ResMLP(operations=operations) for _ in range(config.n_denoise_res)),
        )

    def forward(self, z_t: Tensor, t: int, cond: Tensor) -> Tensor:
        """z_t, cond: (B, 256); t in 0..timesteps-1. Returns z_0's estimate (B, 256)."""
        time = torch.full_like(cond[:, :1], t / self.max_period)
        return self.resmlp(torch.cat([cond, time, z_t], dim=1))


class IPRDiffusion(nn.Module):
    """The schedule of the diffusion on the IPR. Betas are the square of a linear ramp of roots;
    the other tables follow from them and are not stored."""

    betas: Tensor

    def __init__(self, config: DiffIRConfig) -> None:
        super().__init__()
        roots = torch.linspace(
            config.linear_start**0.5,
            config.linear_end**0.5,
            config.timesteps,
            dtype=torch.float64,
            device="cpu",
        )
        betas = roots.square()
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        previous = torch.cat(
            [torch.ones(1, dtype=torch.float64, device="cpu"), alphas_cumprod[:-1]]
        )
        self.register_buffer("betas", betas.float())
        # Plain numbers: exact in any dtype of the network, and no device to follow.
        self.timesteps = config.timesteps
        self.alphas_cumprod = alphas_cumprod.tolist()
        self.posterior_mean_coef1 = (betas * previous.sqrt() / (1 - alphas_cumprod)).tolist()
        self.posterior_mean_coef2 = (
            (1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod)
        ).tolist()

    def q_sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """Z_T from the clean IPR: sqrt(abar_T) z + sqrt(1 - abar_T) noise, all (B, 256)."""
        abar: float = self.alphas_cumprod[-1]
        return abar**0.5 * z + (1 - abar) ** 0.5 * noise

    def posterior_mean(self, z_0: Tensor, z_t: Tensor, t: int) -> Tensor:
        """Mean of q(z_{t-1} | z_t, z_0), the whole reverse step: DiffIR adds no noise to it."""
        return self.posterior_mean_coef1[t] * z_0 + self.posterior_mean_coef2[t] * z_t


def require_multiple(lq: Tensor, config: DiffIRConfig) -> None:
    """Raise BIRError unless lq is (B, in_channels, H, W) with sides that the network takes."""
    height, width = lq.shape[-2:]
    if lq.ndim != 4 or lq.shape[1] != config.in_channels:
        raise BIRError(
            f"This DiffIR expects an image of shape (B, {config.in_channels}, H, W), but "
            f"{tuple(lq.shape)} came; for inpainting join the masked image and the mask."
        )
    if height % config.size_multiple or width % config.size_multiple:
        raise BIRError(
            f"This DiffIR expects sides that divide by {config.size_multiple}, but {height} x "
            f"{width} came; pad the image first, or call bir_core.restore, which does."
        )


class DiffIRStage1(nn.Module):
    """DIRformer and the CPEN that sees the low- and the high-quality image (DiffIR eq. 2)."""

    def __init__(self, config: DiffIRConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        lq_channels = config.in_channels * config.prior_unshuffle**2
        self.G = DIRformer(config, operations=operations)
        self.E = CPEN(lq_channels + 3 * 4**2, config.n_encoder_res, operations=operations)

    def encode(self, lq: Tensor, hq: Tensor) -> Tensor:
        """The IPR (B, 256) of a pair. lq: (B, in_channels, H, W), hq: (B, 3, H*scale, W*scale)."""
        lq_features = F.pixel_unshuffle(lq, self.config.prior_unshuffle)
        return self.E(torch.cat([lq_features, F.pixel_unshuffle(hq, 4)], dim=1))

    def forward(self, lq: Tensor, hq: Tensor) -> Tensor:
        """Restore lq with the prior of the pair; shapes as in `encode`, result as hq."""
        require_multiple(lq, self.config)
        return self.G(lq, self.encode(lq, hq))


class DiffIRStage2(nn.Module):
    """DIRformer, with a diffusion that estimates the IPR from the low-quality image."""

    def __init__(self, config: DiffIRConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        lq_channels = config.in_channels * config.prior_unshuffle**2
        self.G = DIRformer(config, operations=operations)
        self.condition = CPEN(lq_channels, config.n_encoder_res, operations=operations)
        self.denoise = IPRDenoiser(config, operations=operations)
        self.diffusion = IPRDiffusion(config)

    def encode_condition(self, lq: Tensor) -> Tensor:
        """The condition c (B, 256) of the denoiser. lq: (B, in_channels, H, W)."""
        return self.condition(F.pixel_unshuffle(lq, self.config.prior_unshuffle))

    def reverse(self, z_T: Tensor, cond: Tensor) -> list[Tensor]:  # noqa: N803
        """All states of the reverse diffusion, t = T-1 first, the IPR last; each (B, 256)."""
        states: list[Tensor] = []
        z = z_T
        for t in reversed(range(self.diffusion.timesteps)):
            z = self.diffusion.posterior_mean(self.denoise(z, t, cond), z, t)
            states.append(z)
        return states

    def prior(self, lq: Tensor, noise: Tensor) -> Tensor:
        """The estimated IPR (B, 256) from Z_T = noise, standard normal (B, 256)."""
        return self.reverse(noise, self.encode_condition(lq))[-1]

    def forward(self, lq: Tensor, noise: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """Restore an image.

        Args:
            lq: (B, in_channels, H, W) in [0, 1], sides dividing by `config.size_multiple`; for
                inpainting the image times (1 - mask), then the mask, 1 in the hole.
            noise: Z_T, (B, 256) standard normal; drawn from `seed` where absent.
            seed: image i of the batch takes its noise from a CPU generator seeded `seed + i`.

        Returns:
            (B, 3, H * scale, W * scale), not clamped; for inpainting the prediction everywhere.
        """
        require_multiple(lq, self.config)
        if noise is None:
            noise = draw_noise(lq.shape[0], seed)
        return self.G(lq, self.prior(lq, noise.to(lq)))


def draw_noise(batch: int, seed: int) -> Tensor:
    """Z_T (batch, 256), float32 on the CPU. Each image has a generator of its own, seeded
    `seed` + its index, so that its noise does not depend on the batch."""
    return torch.stack(
        [
            torch.randn(IPR_LENGTH, generator=torch.Generator().manual_seed(seed + index))
            for index in range(batch)
        ]
    )
