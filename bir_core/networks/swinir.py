"""SwinIR (Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021), the
restoration module of DiffBIR's stage 1, in the form that works on an eighth of the picture's grid,
and in the original form for super-resolution of real pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import BIRError
from ..images import crop, pad_to_multiple

MEAN = (0.4488, 0.4371, 0.4040)
NUM_FEAT = 64
MASKED = -100.0
# Side of the feature grid for which published files store their masks.
STORED_GRID = 64


@dataclass(frozen=True, kw_only=True)
class SwinIRConfig:
    """Sizes of the network; the defaults are the four SwinIR files of DiffBIR.

    Attributes:
        embed_dim: width.
        depths: Swin layers in each residual Swin transformer block (RSTB).
        num_heads: attention heads in each RSTB.
        window: side of an attention window, in pixels of the feature grid.
        mlp_ratio: hidden width of the MLPs, in multiples of `embed_dim`.
        unshuffle: side of the pixel blocks folded into channels at the input; 1 for none.
        upsample: how often the feature grid is enlarged at the end: 2, 4 or 8.
        drop_path: probability, in training, to skip the last layer's branches; it grows linearly
            from 0 at the first (stochastic depth). It is no part of a checkpoint.
    """

    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 8
    num_heads: tuple[int, ...] = (6,) * 8
    window: int = 8
    mlp_ratio: float = 2.0
    unshuffle: int = 8
    upsample: int = 8
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise BIRError(
                "A SwinIR should skip branches with a probability drop_path in [0, 1), but "
                f"{self.drop_path} came; choose another."
            )
        if self.upsample not in (2, 4, 8) or self.upsample % self.unshuffle:
            raise BIRError(
                "A SwinIR should enlarge its grid 2, 4 or 8 times and at least as much as it folds "
                f"the picture, but {self.upsample} and {self.unshuffle} came; choose others."
            )
        if len(self.depths) != len(self.num_heads):
            raise BIRError(
                "A SwinIR should have as many numbers of heads as of layers, but "
                f"{len(self.num_heads)} and {len(self.depths)} came; give one for each block."
            )
        if any(self.embed_dim % heads for heads in self.num_heads):
            raise BIRError(
                f"The width {self.embed_dim} of a SwinIR should divide by its numbers of heads, "
                f"but {self.num_heads} came; choose others."
            )

    @property
    def scale(self) -> int:
        """Output size divided by input size."""
        return self.upsample // self.unshuffle

    @property
    def size_multiple(self) -> int:
        """Pixels to which the network continues its input: whole windows."""
        return self.window * self.unshuffle


def relative_position_index(window: int, device: torch.device | None = None) -> Tensor:
    """Row of the bias table for each pair of pixels of a window, (window^2, window^2) int64."""
    axis = torch.arange(window, device=device)
    rows, columns = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


def shift_mask(
    height: int, width: int, window: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """What attention between pixels that only the cyclic shift made neighbours is lowered by.

    Args:
        height, width: of the feature grid, multiples of `window`.

    Returns:
        (height * width / window^2, window^2, window^2) float32, 0 or -100.
    """

    def regions(length: int) -> Tensor:
        position = torch.arange(length, device=device)
        return (position >= length - window).long() + (position >= length - shift).long()

    labels = 3 * regions(height)[:, None] + regions(width)[None, :]
    labels = rearrange(labels, "(y wy) (x wx) -> (y x) (wy wx)", wy=window, wx=window)
    differ = labels[:, :, None] != labels[:, None, :]
    return torch.where(differ, MASKED, 0.0)


def kept_branches(config: SwinIRConfig, batch: int, generator: torch.Generator) -> Tensor:
    """Stochastic depth (Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016): each image
    goes without some branches, and those that it keeps are enlarged to the same mean.

    Args:
        generator: on the CPU; drawn from here, so that layers computed again see the same.

    Returns:
        (layers, 2, batch) float32: 0, or 1 / probability to keep, of the attention's and the MLP's
        branch.
    """
    layers = sum(config.depths)
    rates = torch.linspace(0, config.drop_path, layers)[:, None, None]
    kept = torch.rand(layers, 2, batch, generator=generator) >= rates
    return kept / (1 - rates)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each relative position."""

    def __init__(self, dim: int, window: int, heads: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.heads = heads
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = operations.Linear(dim, 3 * dim)
        self.proj = operations.Linear(dim, dim)

    def forward(self, windows: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """windows: (B, N, L, C); index: (L, L); mask: (N, L, L). Returns as windows."""
        batch, count = windows.shape[:2]
        # Four dimensions: torch has fast attention for no other number.
        q, k, v = rearrange(
            self.qkv(windows), "b n l (three h d) -> three (b n) h l d", three=3, h=self.heads
        )
        bias = self.relative_position_bias_table.to(windows)[index]  # (L, L, heads)
        bias = rearrange(bias, "q k h -> 1 h q k")
        if mask is None:
            bias = bias.expand(batch * count, -1, -1, -1)
        else:
            bias = (bias + mask[:, None].to(bias)).repeat(batch, 1, 1, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(rearrange(mixed, "(b n) h l d -> b n l (h d)", b=batch))


class MLP(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.fc1 = operations.Linear(dim, hidden)
        self.fc2 = operations.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinLayer(nn.Module):
    """Window attention and an MLP, each normalised before and added to its input. Every second
    layer shifts the grid by half a window, so that windows exchange what they know."""

    def __init__(
        self,
        config: SwinIRConfig,
        heads: int,
        *,
        shift: int,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        dim = config.embed_dim
        self.window, self.shift = config.window, shift
        self.norm1 = operations.LayerNorm(dim)
        self.attn = WindowAttention(dim, config.window, heads, operations=operations)
        self.norm2 = operations.LayerNorm(dim)
        self.mlp = MLP(dim, round(dim * config.mlp_ratio), operations=operations)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor, kept: Tensor | None = None) -> Tensor:
        """x: (B, h, w, C), sides multiples of the window; kept: (2, B), factors of the attention's
        and the MLP's branch for each image, None for 1. Returns as x."""
        height, width = x.shape[1:3]
        grid = self.norm1(x)
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = rearrange(
            grid, "b (y wy) (x wx) c -> b (y x) (wy wx) c", wy=self.window, wx=self.window
        )
        windows = self.attn(windows, index, mask if self.shift else None)
        grid = rearrange(
            windows,
            "b (y x) (wy wx) c -> b (y wy) (x wx) c",
            y=height // self.window,
            wy=self.window,
            x=width // self.window,
        )
        if self.shift:
            grid = grid.roll((self.shift, self.shift), dims=(1, 2))
        x = x + (grid if kept is None else grid * kept[0, :, None, None, None].to(grid))
        branch = self.mlp(self.norm2(x))
        return x + (branch if kept is None else branch * kept[1, :, None, None, None].to(branch))


class ResidualGroup(nn.Module):
    """Holds the key name `blocks` of the published files."""

    def __init__(self, layers: list[SwinLayer]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, index: Tensor, mask: Tensor, kept: Tensor | None = None
    ) -> Tensor:  # kept: (layers, 2, B)
        for number, layer in enumerate(self.blocks):
            x = layer(x, index, mask, None if kept is None else kept[number])
        return x


class RSTB(nn.Module):
    """Residual Swin transformer block: Swin layers and a convolution, added to the input."""

    def __init__(self, layers: list[SwinLayer], dim: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.residual_group = ResidualGroup(layers)
        self.conv = operations.Conv2d(dim, dim, 3, padding=1)

    def forward(
        self, x: Tensor, index: Tensor, mask: Tensor, kept: Tensor | None = None
    ) -> Tensor:  # x: (B, h, w, C), kept: (layers, 2, B)
        features = rearrange(self.residual_group(x, index, mask, kept), "b h w c -> b c h w")
        return x + rearrange(self.conv(features), "b c h w -> b h w c")


class PatchEmbed(nn.Module):
    """The norm of the tokens, under the key name of the published files."""

    def __init__(self, dim: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SwinIR(nn.Module):
    """Attribute names are the published keys. With `checkpoint`, training keeps the inputs of the
    RSTBs only and computes their insides again on the way back."""

    def __init__(
        self, config: SwinIRConfig, *, checkpoint: bool = False, operations: ModuleType = nn
    ) -> None:
        super().__init__()
        self.config = config
        self.checkpoint = checkpoint
        dim = config.embed_dim

        def conv(in_channels: int, channels: int) -> nn.Module:
            layer: nn.Module = operations.Conv2d(in_channels, channels, 3, padding=1)
            return layer

        first = conv(3 * config.unshuffle**2, dim)
        folded = config.unshuffle > 1
        self.conv_first = (
            nn.Sequential(nn.PixelUnshuffle(config.unshuffle), first) if folded else first
        )
        self.patch_embed = PatchEmbed(dim, operations=operations)
        blocks: list[RSTB] = []
        for depth, heads in zip(config.depths, config.num_heads, strict=True):
            layers = [
                SwinLayer(
                    config,
                    heads,
                    shift=config.window // 2 if index % 2 else 0,
                    operations=operations,
                )
                for index in range(depth)
            ]
            blocks.append(RSTB(layers, dim, operations=operations))
        self.layers = nn.ModuleList(blocks)
        self.norm = operations.LayerNorm(dim)
        self.conv_after_body = conv(dim, dim)
        self.conv_before_upsample = nn.Sequential(conv(dim, NUM_FEAT), nn.LeakyReLU(0.01))
        self.conv_up1 = conv(NUM_FEAT, NUM_FEAT)
        if config.upsample >= 4:
            self.conv_up2 = conv(NUM_FEAT, NUM_FEAT)
        if config.upsample >= 8:
            self.conv_up3 = conv(NUM_FEAT, NUM_FEAT)
        self.conv_hr = conv(NUM_FEAT, NUM_FEAT)
        self.conv_last = conv(NUM_FEAT, 3)
        for module in self.modules():  # as vision transformers are trained from scratch
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Restore an image (B, 3, H, W) in [0, 1] of any size; (B, 3, H * scale, W * scale), not
        clamped.

        The image is continued by reflection to whole windows and the result is cropped. The
        official code takes multiples of `config.size_multiple` only and pads with black before;
        for its numbers at other sizes do the same.

        Args:
            generator: in training, a CPU generator that draws which branches are skipped; None
                skips none.

        Raises:
            BIRError: another shape.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise BIRError(
                f"SwinIR expects an image of shape (B, 3, H, W), but {tuple(image.shape)} came; "
                "convert it to RGB."
            )
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.config.size_multiple)
        mean = torch.tensor(MEAN).to(image)[:, None, None]
        shallow = self.conv_first(padded - mean)
        kept = None
        if generator is not None and self.config.drop_path:
            kept = kept_branches(self.config, len(image), generator).to(image.device)
        x = self.conv_before_upsample(self.conv_after_body(self._deep(shallow, kept)) + shallow)
        for name in ("conv_up1", "conv_up2", "conv_up3"):
            if hasattr(self, name):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = F.leaky_relu(getattr(self, name)(x), 0.2)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2)) + mean
        return crop(x, height * self.config.scale, width * self.config.scale)

    def _deep(self, shallow: Tensor, kept: Tensor | None) -> Tensor:
        """The transformer, (B, C, h, w) -> the same. Index and mask are made once for all layers:
        a pass costs thousands of times more than they do, and nothing has to be kept in step with
        the size or the device."""
        window, device = self.config.window, shallow.device
        index = relative_position_index(window, device)
        mask = shift_mask(shallow.shape[-2], shallow.shape[-1], window, window // 2, device)
        x = self.patch_embed(rearrange(shallow, "b c h w -> b h w c"))
        parts: Sequence[Tensor | None] = [None] * len(self.layers)
        if kept is not None:
            parts = torch.split(kept, list(self.config.depths))
        for block, part in zip(self.layers, parts, strict=True):
            if self.checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, index, mask, part, use_reentrant=False)
            else:
                x = block(x, index, mask, part)
        return rearrange(self.norm(x), "b h w c -> b c h w")

    def published_tables(self) -> dict[str, Tensor]:
        """The index and mask tables that published files hold beside the weights, by key. This
        network needs none of them, but other programs refuse a file without."""
        window = self.config.window
        index = relative_position_index(window)
        mask = shift_mask(STORED_GRID, STORED_GRID, window, window // 2)
        tables: dict[str, Tensor] = {}
        for name, module in self.named_modules():
            if isinstance(module, SwinLayer):
                tables[f"{name}.attn.relative_position_index"] = index.clone()
                if module.shift:
                    tables[f"{name}.attn_mask"] = mask.clone()
        return tables
