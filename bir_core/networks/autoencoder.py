"""The autoencoder of Stable Diffusion (Rombach et al. 2022): images to latents of an eighth of the
size and back. Attribute names are the published keys below `first_stage_model.`.
"""

from dataclasses import dataclass
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError
from .layers import GROUPS, GroupNorm, Upsample, require_sides

NORM_EPS = 1e-6
LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the autoencoder; the defaults are Stable Diffusion 1 and 2.

    Attributes:
        ch: width of the first level.
        ch_mult: width of each level, in multiples of the first; the grid halves between them.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        z_channels: of the encoder's and decoder's inner latent.
        embed_dim: of the latent outside.
    """

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    embed_dim: int = 4

    def __post_init__(self) -> None:
        if self.ch % GROUPS:
            raise BIRError(
                f"The width of an autoencoder should divide by {GROUPS}, but {self.ch} came; "
                "choose another ch."
            )

    @property
    def size_multiple(self) -> int:
        """Pixels of the image per pixel of the latent, by which its sides must divide."""
        return 1 << (len(self.ch_mult) - 1)


class ResnetBlock(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, in_channels: int, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels, NORM_EPS)
        self.conv1 = operations.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = GroupNorm(channels, NORM_EPS)
        self.conv2 = operations.Conv2d(channels, channels, 3, padding=1)
        if in_channels != channels:
            self.nin_shortcut = operations.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, in_channels, h, w) -> (B, channels, h, w)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttentionBlock(nn.Module):
    """Attention among all pixels with one head as wide as the map."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, NORM_EPS)
        self.q = operations.Conv2d(channels, channels, 1)
        self.k = operations.Conv2d(channels, channels, 1)
        self.v = operations.Conv2d(channels, channels, 1)
        self.proj_out = operations.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        normalised = self.norm(x)
        # contiguous: the fused attention kernels fall back to the full matrix on other layouts
        q, k, v = (
            rearrange(part(normalised), "b c h w -> b 1 (h w) c").contiguous()
            for part in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=height, w=width))


class Middle(nn.Module):
    """Residual block, attention, residual block, at the smallest grid."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, operations=operations)
        self.attn_1 = AttentionBlock(channels, operations=operations)
        self.block_2 = ResnetBlock(channels, channels, operations=operations)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the grid by a convolution of stride 2, padded at the right and the bottom only."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """The residual blocks of one grid size, and the change to the next."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_blocks: int,
        *,
        resample: type[Downsample] | type[Upsample] | None,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(channels if index else in_channels, channels, operations=operations)
            for index in range(num_blocks)
        )
        if resample is Downsample:
            self.downsample = Downsample(channels, operations=operations)
        elif resample is Upsample:
            self.upsample = Upsample(channels, operations=operations)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if hasattr(self, "downsample"):
            return self.downsample(x)
        return self.upsample(x) if hasattr(self, "upsample") else x


class Encoder(nn.Module):
    """Image to the moments of the latent, before `quant_conv`."""

    def __init__(self, config: VAEConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = operations.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                widths[level - 1] if level else config.ch,
                width,
                config.num_res_blocks,
                resample=Downsample if level < len(widths) - 1 else None,
                operations=operations,
            )
            for level, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1], operations=operations)
        self.norm_out = GroupNorm(widths[-1], NORM_EPS)
        self.conv_out = operations.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latent, after `post_quant_conv`, to image."""

    def __init__(self, config: VAEConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = operations.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], operations=operations)
        self.up = nn.ModuleList(  # by level as in the encoder, so it is run from the last on
            Level(
                widths[min(level + 1, len(widths) - 1)],
                width,
                config.num_res_blocks + 1,
                resample=Upsample if level else None,
                operations=operations,
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = GroupNorm(widths[0], NORM_EPS)
        self.conv_out = operations.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class SDVAE(nn.Module):
    """Images are (B, 3, H, W) in [-1, 1], latents (B, 4, H/8, W/8) without `latent_scale`."""

    def __init__(self, config: VAEConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, operations=operations)
        self.decoder = Decoder(config, operations=operations)
        self.quant_conv = operations.Conv2d(2 * config.z_channels, 2 * config.embed_dim, 1)
        self.post_quant_conv = operations.Conv2d(config.embed_dim, config.z_channels, 1)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent's normal distribution, each (B, embed_dim, h, w).

        Raises:
            BIRError: not (B, 3, H, W), or sides that do not divide by `config.size_multiple`.
        """
        require_sides(image, 3, self.config.size_multiple, "The image for the VAE")
        mean, log_variance = self.quant_conv(self.encoder(image)).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def encode(self, image: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Image to latent, without `latent_scale`.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides dividing by 8.
            generator: a CPU generator, to draw a sample of the distribution as the training of
                stage 2 does; None for its mode, which is the condition of IRControlNet.

        Returns:
            (B, 4, H/8, W/8).

        Raises:
            BIRError: as `posterior`.
        """
        mean, log_variance = self.posterior(image)
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + torch.exp(0.5 * log_variance) * noise

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (B, 4, h, w), without `latent_scale`, to image (B, 3, 8h, 8w) in [-1, 1], not
        clamped.

        Raises:
            BIRError: another shape.
        """
        require_sides(latent, self.config.embed_dim, 1, "The latent for the VAE")
        return self.decoder(self.post_quant_conv(latent))
