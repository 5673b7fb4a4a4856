"""The UNet of Stable Diffusion 2.1 (Rombach et al., "High-Resolution Image Synthesis with Latent
Diffusion Models", CVPR 2022), which DiffBIR leaves frozen and steers through its IRControlNet.

Attribute names are the published keys below `model.diffusion_model.`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BIRError
from .layers import (
    GROUPS,
    Downsample,
    GroupNorm,
    LayerGroup,
    ResBlock,
    SpatialTransformer,
    Upsample,
    require_sides,
    timestep_embedding,
)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of the UNet; the defaults are Stable Diffusion 2.1.

    Attributes:
        in_channels, out_channels: of the latent.
        model_channels: width of the first level.
        channel_mult: width of each level, in multiples of the first; the grid halves between them.
        num_res_blocks: residual blocks per level.
        attention_resolutions: the levels with attention, by the factor that their grid is smaller.
        num_head_channels: width of one attention head.
        context_dim: width of the text embedding.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (1, 2, 4)
    num_head_channels: int = 64
    context_dim: int = 1024

    def __post_init__(self) -> None:
        for mult in self.channel_mult:
            width = self.model_channels * mult
            if width % GROUPS or width % self.num_head_channels:
                raise BIRError(
                    f"The widths of a UNet should divide by {GROUPS} and by the width of a head, "
                    f"{self.num_head_channels}, but {width} came; choose other model_channels."
                )

    @property
    def size_multiple(self) -> int:
        """Latent pixels by which the sides of the input must divide."""
        return 1 << (len(self.channel_mult) - 1)


class UNetEncoder(nn.Module):
    """The half of the UNet that IRControlNet copies: time embedding, input blocks and middle.

    With `checkpoint`, a pass with gradients keeps the blocks' inputs only and computes the blocks
    again on the way back: less memory in training, a third more time. It can be changed at any
    time.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        *,
        checkpoint: bool = False,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        self.config = config
        self.checkpoint = checkpoint
        self.in_channels = in_channels
        width = config.model_channels
        self.time_dim = 4 * width
        self.time_embed = nn.Sequential(
            operations.Linear(width, self.time_dim),
            nn.SiLU(),
            operations.Linear(self.time_dim, self.time_dim),
        )
        first = operations.Conv2d(in_channels, width, 3, padding=1)
        blocks = [LayerGroup([first])]
        self.skip_channels = [width]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                blocks.append(
                    LayerGroup(self._layers(width, config.model_channels * mult, level, operations))
                )
                width = config.model_channels * mult
                self.skip_channels.append(width)
            if level < len(config.channel_mult) - 1:
                blocks.append(LayerGroup([Downsample(width, operations=operations)]))
                self.skip_channels.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = LayerGroup(
            [
                ResBlock(width, self.time_dim, width, operations=operations),
                self._attention(width, operations),
                ResBlock(width, self.time_dim, width, operations=operations),
            ]
        )

    def _attention(self, width: int, operations: ModuleType) -> SpatialTransformer:
        config = self.config
        return SpatialTransformer(
            width, config.context_dim, config.num_head_channels, operations=operations
        )

    def _layers(
        self, in_channels: int, channels: int, level: int, operations: ModuleType
    ) -> list[nn.Module]:
        """A residual block, with attention where the level has it."""
        layers: list[nn.Module] = [
            ResBlock(in_channels, self.time_dim, channels, operations=operations)
        ]
        if 1 << level in self.config.attention_resolutions:
            layers.append(self._attention(channels, operations))
        return layers

    def run(self, block: nn.Module, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """One block, recomputed in the backward pass if `checkpoint` says so."""
        if self.checkpoint and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(block, x, emb, context, use_reentrant=False)
            return recomputed
        return block(x, emb, context)

    def embed_time(self, timesteps: Tensor, x: Tensor) -> Tensor:
        """(B,) timesteps -> (B, 4 * model_channels), in the dtype of x."""
        return self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x))

    def encode(self, x: Tensor, emb: Tensor, context: Tensor) -> list[Tensor]:
        """The output of every input block, then that of the middle block.

        Raises:
            BIRError: sides that do not divide by `config.size_multiple`, or a context of another
                width.
        """
        require_sides(x, self.in_channels, self.config.size_multiple, "The latent for this network")
        if context.ndim != 3 or context.shape[-1] != self.config.context_dim:
            raise BIRError(
                f"The text embedding should have the shape (B, L, {self.config.context_dim}), but "
                f"{tuple(context.shape)} came; use the text encoder of Stable Diffusion 2.1."
            )
        outputs: list[Tensor] = []
        for block in (*self.input_blocks, self.middle_block):
            x = self.run(block, x, emb, context)
            outputs.append(x)
        return outputs


class SDUNet(UNetEncoder):
    """Predicts the noise, or v, in a noisy latent."""

    def __init__(
        self, config: UNetConfig, *, checkpoint: bool = False, operations: ModuleType = nn
    ) -> None:
        super().__init__(config, config.in_channels, checkpoint=checkpoint, operations=operations)
        skips = list(self.skip_channels)
        width = skips[-1]
        blocks: list[LayerGroup] = []
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for index in range(config.num_res_blocks + 1):
                channels = config.model_channels * mult
                layers = self._layers(width + skips.pop(), channels, level, operations)
                width = channels
                if level and index == config.num_res_blocks:
                    layers.append(Upsample(width, operations=operations))
                blocks.append(LayerGroup(layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(
            GroupNorm(width, 1e-5),
            nn.SiLU(),
            operations.Conv2d(width, config.out_channels, 3, padding=1),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict what the base was trained for: eps (SD 2.1 base) or v (DiffBIR v2.1's base).

        Args:
            x: noisy latent (B, 4, h, w), `latent_scale` applied, sides dividing by
                `config.size_multiple`.
            timesteps: (B,), 0..999, integer or not.
            context: text embedding (B, L, context_dim).
            control: the residuals of IRControlNet, times their strength: one per input block in
                their order, then the middle's (13 for SD 2.1). Each is added where the output
                half reads that block's output.

        Returns:
            (B, 4, h, w).

        Raises:
            BIRError: as `encode`, or a control of another length.
        """
        emb = self.embed_time(timesteps, x)
        *skips, hidden = self.encode(x, emb, context)
        if control is not None:
            if len(control) != len(skips) + 1:
                raise BIRError(
                    f"This UNet takes a control of {len(skips) + 1} residuals, but {len(control)} "
                    "came; use an IRControlNet with the sizes of this UNet."
                )
            *residuals, middle = control
            hidden = hidden + middle
            skips = [skip + residual for skip, residual in zip(skips, residuals, strict=True)]
        for block in self.output_blocks:
            hidden = self.run(block, torch.cat([hidden, skips.pop()], dim=1), emb, context)
        return self.out(hidden)
