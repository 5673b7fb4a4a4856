"""The text tower of OpenCLIP's ViT-H (Cherti et al., "Reproducible scaling laws for contrastive
language-image learning", CVPR 2023), which turns prompts into the context of Stable Diffusion 2.1.

Attribute names are the published keys below `cond_stage_model.model.`. The last block of the
published tower is not here: Stable Diffusion 2 takes the output of the one before.
"""

from dataclasses import dataclass
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError

CONTEXT_LENGTH = 77  # tokens of a text, as CLIP was trained
HEAD_WIDTH = 64
MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Sizes of the tower; the defaults are Stable Diffusion 2.1.

    Attributes:
        width: of an embedded token.
        heads: of the attention.
        layers: blocks that run, one fewer than the published tower has.
        vocabulary: number of different tokens.
        length: of a text in tokens.
    """

    width: int = 1024
    heads: int = 16
    layers: int = 23
    vocabulary: int = 49408
    length: int = CONTEXT_LENGTH

    @property
    def size_multiple(self) -> int:
        """Of the texts that go in, any number."""
        return 1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise BIRError(
                f"The width of a text encoder should divide by its heads, but {self.width} and "
                f"{self.heads} came; choose another number of heads."
            )


class CausalAttention(nn.Module):
    """Multi-head attention of each token to itself and those before."""

    def __init__(self, width: int, heads: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.normal_(torch.empty(3 * width, width), std=0.02))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = operations.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, width) -> the same
        joined = F.linear(x, self.in_proj_weight.to(x), self.in_proj_bias.to(x))
        q, k, v = rearrange(joined, "b l (three h d) -> three b h l d", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(rearrange(mixed, "b h l d -> b l (h d)"))


class TextMLP(nn.Module):
    """Two layers with a GELU between them, under the published names."""

    def __init__(self, width: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.c_fc = operations.Linear(width, MLP_RATIO * width)
        self.c_proj = operations.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    """Attention and an MLP, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.ln_1 = operations.LayerNorm(width)
        self.attn = CausalAttention(width, heads, operations=operations)
        self.ln_2 = operations.LayerNorm(width)
        self.mlp = TextMLP(width, operations=operations)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Holds the key name `resblocks` of the published files."""

    def __init__(self, config: TextEncoderConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(config.width, config.heads, operations=operations)
            for _ in range(config.layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class TextEncoder(nn.Module):
    """Tokens to the context of the UNet and IRControlNet. Padding is attended to like any token,
    as in the training of Stable Diffusion 2."""

    def __init__(self, config: TextEncoderConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = operations.Embedding(config.vocabulary, config.width)
        position = torch.empty(config.length, config.width)
        self.positional_embedding = nn.Parameter(nn.init.normal_(position, std=0.01))
        self.transformer = TextTransformer(config, operations=operations)
        self.ln_final = operations.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed texts.

        Args:
            tokens: (B, length) int64, each text with its start and end token, then padding.

        Returns:
            (B, length, width): the output of the published tower's penultimate block, normalised.

        Raises:
            BIRError: another length, or a token that the vocabulary does not have.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.config.length:
            raise BIRError(
                f"The text encoder expects texts of {self.config.length} tokens, (B, "
                f"{self.config.length}), but {tuple(tokens.shape)} came; pad or cut them."
            )
        # On `meta`, where only shapes are, nothing can be wrong with the numbers.
        if not tokens.is_meta and not (
            int(tokens.min()) >= 0 and int(tokens.max()) < self.config.vocabulary
        ):
            raise BIRError(
                f"The text encoder knows tokens from 0 to {self.config.vocabulary - 1}, but "
                f"{int(tokens.min())} to {int(tokens.max())} came; use CLIP's tokenizer."
            )
        x = self.token_embedding(tokens)
        return self.ln_final(self.transformer(x + self.positional_embedding.to(x)))
