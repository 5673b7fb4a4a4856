"""Pieces that the networks of Stable Diffusion 2.1 and DiffBIR's IRControlNet share.

Attribute names are the keys of the published checkpoints (the layout of latent diffusion).
"""

import math
from collections.abc import Sequence
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError

GROUPS = 32


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoids of the time (Vaswani et al. 2017, as in DDPM): cosines, then sines.

    Args:
        timesteps: (B,), 0..999, integer or not.
        dim: even.

    Returns:
        (B, dim) float32.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def require_sides(image: Tensor, channels: int, multiple: int, what: str) -> None:
    """Raise BIRError unless `image` is (B, channels, H, W) with sides that divide by `multiple`;
    `what` names it in the sentence."""
    if image.ndim != 4 or image.shape[1] != channels:
        raise BIRError(
            f"{what} should have the shape (B, {channels}, H, W), but {tuple(image.shape)} came; "
            "check what was passed."
        )
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise BIRError(
            f"{what} should have sides that divide by {multiple}, but {height} x {width} came; "
            "pad it first and crop the result."
        )


class GroupNorm(nn.Module):
    """Group normalisation over 32 groups, computed in float32 at least: in half precision the
    statistics of a large map would overflow."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, ...) -> the same
        # Contiguous: on a CPU torch loses three digits in large maps with the channels last.
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
        normalised = F.group_norm(wide, GROUPS, self.weight.to(wide), self.bias.to(wide), self.eps)
        return normalised.to(x.dtype)


class Upsample(nn.Module):
    """Twice the grid by repetition, then a convolution."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, 2h, 2w)
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Downsample(nn.Module):
    """Half the grid by a convolution of stride 2."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h/2, w/2)
        return self.op(x)


class ResBlock(nn.Module):
    """Two convolutions, with the time added in between, and a skip connection."""

    def __init__(
        self, in_channels: int, time_dim: int, channels: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm(in_channels, 1e-5),
            nn.SiLU(),
            operations.Conv2d(in_channels, channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(time_dim, channels))
        self.out_layers = nn.Sequential(
            GroupNorm(channels, 1e-5),
            nn.SiLU(),
            nn.Identity(),  # the published keys count a dropout here, which has probability 0
            operations.Conv2d(channels, channels, 3, padding=1),
        )
        self.skip_connection = (
            nn.Identity()
            if in_channels == channels
            else operations.Conv2d(in_channels, channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (B, in_channels, h, w), emb: (B, time_dim). Returns (B, channels, h, w)."""
        hidden = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a context."""

    def __init__(
        self, dim: int, context_dim: int, head_channels: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.heads = dim // head_channels
        self.to_q = operations.Linear(dim, dim, bias=False)
        self.to_k = operations.Linear(context_dim, dim, bias=False)
        self.to_v = operations.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Sequential(operations.Linear(dim, dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x: (B, N, dim), context: (B, L, context_dim), None for x itself. Returns as x."""
        source = x if context is None else context
        q, k, v = (
            rearrange(tokens, "b n (h d) -> b h n d", h=self.heads)
            for tokens in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(mixed, "b h n d -> b n (h d)"))


class GEGLU(nn.Module):
    """value * gelu(gate), both from one projection (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:  # (..., dim) -> (..., hidden)
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, dim: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(dim, 4 * dim, operations=operations),
            nn.Identity(),  # as in ResBlock: the place of a dropout
            operations.Linear(4 * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Attention among the tokens, attention to the text, feed-forward; each with a residual."""

    def __init__(
        self, dim: int, context_dim: int, head_channels: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, dim, head_channels, operations=operations)
        self.ff = FeedForward(dim, operations=operations)
        self.attn2 = Attention(dim, context_dim, head_channels, operations=operations)
        self.norm1 = operations.LayerNorm(dim)
        self.norm2 = operations.LayerNorm(dim)
        self.norm3 = operations.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block on the pixels of a map, with a residual around it."""

    def __init__(
        self, channels: int, context_dim: int, head_channels: int, *, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, 1e-6)
        self.proj_in = operations.Linear(channels, channels)
        block = TransformerBlock(channels, context_dim, head_channels, operations=operations)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (B, channels, h, w), context: (B, L, context_dim). Returns as x."""
        height, width = x.shape[-2:]
        tokens = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + rearrange(self.proj_out(tokens), "b (h w) c -> b c h w", h=height, w=width)


class LayerGroup(nn.Sequential):
    """Layers that run one after the other, each with what it needs of time and text."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x
