"""DiffIR (Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration", ICCV 2023).

A transformer restores the image (DIRformer); a vector of 256 numbers, the IR prior representation
(IPR, z), modulates each of its blocks. Stage 1 takes z from the low- and the high-quality image
(CPEN); stage 2 estimates it from the low-quality image alone by a four-step diffusion on z.

Attribute names follow the published checkpoints. This file is the plain network, written operation
by operation: training uses it, and it is the reference for `diffir_streaming`.
"""

from types import ModuleType
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError
from .diffir_config import DiffIRConfig, LayerNormKind
from .diffir_prior import CPEN, IPR_LENGTH, IPRDenoiser, IPRDiffusion, draw_noise


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
        if config.corrects:
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
        if not self.config.corrects:
            return self.output(x)
        x = through(self.refinement, x)
        if self.config.task != "sr":
            return lq[:, :3] + self.output(x)
        return F.interpolate(lq, scale_factor=self.config.scale, mode="nearest") + self.tail(x)


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
        self.E = CPEN(
            lq_channels + 3 * 4**2,
            config.n_encoder_res,
            config.encoder_features,
            operations=operations,
        )

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
        self.condition = CPEN(
            lq_channels, config.n_encoder_res, config.encoder_features, operations=operations
        )
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
                inpainting the image times (1 - mask), or filled roughly if the network corrects,
                then the mask, 1 in the hole.
            noise: Z_T, (B, 256) standard normal; drawn from `seed` where absent.
            seed: image i of the batch takes its noise from a CPU generator seeded `seed + i`.

        Returns:
            (B, 3, H * scale, W * scale), not clamped; for inpainting the prediction everywhere.
        """
        require_multiple(lq, self.config)
        if noise is None:
            noise = draw_noise(lq.shape[0], seed)
        return self.G(lq, self.prior(lq, noise.to(lq)))
