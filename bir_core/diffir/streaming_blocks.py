"""One block of DiffIR's DIRformer over strips of rows, in place on its map.

Two merges keep the number of passes low. The modulation of the IPR and the affine part of the
layer norm are one scale and one shift per channel. And with A the attention matrix, P the output
projection, P (A v) = (P A) v. The Gram matrix is divided by the norms instead of q and k.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.diffir import DGFN, DMTA, DIRformerBlock, LayerNorm
from ..tiling import Progress
from .row_strips import Conv3x3, cast_weights, conv1x1, strips_of


class _ModulatedNorm:
    """Layer norm and modulation by the IPR z (1, 256) of rows (n, W, C), as one scale and one
    shift per channel."""

    def __init__(self, norm: LayerNorm, kernel: nn.Module, z: Tensor) -> None:
        projection = kernel[0].weight  # type: ignore[index]
        k1, k2 = F.linear(z, projection.to(z))[0].chunk(2)
        body = norm.body
        self.bias_free = body.kind == "BiasFree"
        self.scale = body.weight.to(z) * k1
        self.shift = k2 if self.bias_free else body.bias.to(z) * k1 + k2

    def __call__(self, rows: Tensor) -> Tensor:
        channels = self.scale.shape[0]
        u, mean, inverse = torch.native_layer_norm(rows, (channels,), self.scale, self.shift, 1e-5)
        if self.bias_free:  # this kind does not subtract the mean: put it back
            u.addcmul_((mean * inverse).to(u), self.scale)
        return u


class _Pointwise3x3:
    """A 1x1 convolution and a depthwise 3x3 one behind it, for some of their output channels."""

    def __init__(
        self, height: int, pointwise: nn.Module, depthwise: nn.Module, part: slice, like: Tensor
    ) -> None:
        weight, bias = cast_weights(pointwise, like)
        self.weight, self.bias = weight[part], bias if bias is None else bias[part]
        weight, bias = cast_weights(depthwise, like)
        weight, bias = weight[part], bias if bias is None else bias[part]
        self.depthwise = Conv3x3(height, weight, bias, groups=weight.shape[0])

    def __call__(self, rows: Tensor) -> Tensor:
        return self.depthwise(conv1x1(rows, self.weight, self.bias))


class _Gram:
    """Sums over all pixels of q k^T per head (h, C/h, C/h) and of the squares of q and k (C,),
    in float32."""

    def __init__(self, channels: int, heads: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        self.heads = heads
        self.products = zeros(heads, channels // heads, channels // heads)
        self.squares_q = zeros(channels)
        self.squares_k = zeros(channels)

    def add(self, q: Tensor, k: Tensor) -> None:
        q, k = q.float(), k.float()
        self.squares_q += q.square().sum(dim=(0, 1))
        self.squares_k += k.square().sum(dim=(0, 1))
        q = rearrange(q, "y x (h c) -> h c (y x)", h=self.heads)
        k = rearrange(k, "y x (h c) -> h (y x) c", h=self.heads)
        self.products += q @ k

    def attention(self, temperature: Tensor) -> Tensor:
        """softmax of the cosine between channels times `temperature` (h, 1, 1), float32."""

        def norms(squares: Tensor) -> Tensor:
            return squares.sqrt().clamp_min(1e-12).view(self.heads, -1)

        norms_q, norms_k = norms(self.squares_q), norms(self.squares_k)
        cosine = self.products / (norms_q[:, :, None] * norms_k[:, None, :])
        return (cosine * temperature.to(cosine)).softmax(dim=-1)


def _merged(attn: DMTA, gram: _Gram) -> Tensor:
    """project_out times the attention matrix, (C, C, 1, 1), float32."""
    attention = gram.attention(attn.temperature)
    projection = attn.project_out.weight.to(attention)[:, :, 0, 0]
    projection = rearrange(projection, "o (h i) -> h o i", h=attn.heads)
    return rearrange(projection @ attention, "h o j -> o (h j) 1 1")


def _attention_matrix(
    x: Tensor, attn: DMTA, norm: _ModulatedNorm, strip: int, progress: Progress
) -> Tensor:
    """First sweep of a block: what `_merged` gives for all pixels."""
    height, _, channels = x.shape
    q_conv, k_conv = (
        _Pointwise3x3(height, attn.qkv, attn.qkv_dwconv, part, x)
        for part in (slice(0, channels), slice(channels, 2 * channels))
    )
    gram = _Gram(channels, attn.heads, x.device)
    for rows in strips_of(x, strip, progress):
        u = norm(rows)
        q, k = q_conv(u), k_conv(u)
        if q.shape[0]:
            gram.add(q, k)
    return _merged(attn, gram)


class _AttentionRows:
    """project_out(A v) of the rows that are complete, for modulated rows."""

    def __init__(self, height: int, attn: DMTA, merged: Tensor, like: Tensor) -> None:
        channels = merged.shape[0]
        part = slice(2 * channels, 3 * channels)
        self.value = _Pointwise3x3(height, attn.qkv, attn.qkv_dwconv, part, like)
        self.weight = merged.to(like)
        self.bias = cast_weights(attn.project_out, like)[1]

    def __call__(self, u: Tensor) -> Tensor:
        value = self.value(u)
        return conv1x1(value, self.weight, self.bias) if value.shape[0] else value


class _FeedForwardRows:
    """The gated feed-forward network of the rows that are complete, for modulated rows."""

    def __init__(self, height: int, ffn: DGFN, like: Tensor) -> None:
        self.weight, self.bias = cast_weights(ffn.project_out, like)
        hidden = self.weight.shape[1]
        self.gate, self.value = (
            _Pointwise3x3(height, ffn.project_in, ffn.dwconv, part, like)
            for part in (slice(0, hidden), slice(hidden, 2 * hidden))
        )

    def __call__(self, u: Tensor) -> Tensor:
        gate, value = self.gate(u), self.value(u)
        if not gate.shape[0]:
            return u[:0]
        return conv1x1(F.gelu(gate).mul_(value), self.weight, self.bias)


def _block(x: Tensor, block: DIRformerBlock, z: Tensor, strip: int, progress: Progress) -> None:
    """One block, in place on a map x (H, W, C)."""
    height = x.shape[0]
    norm1 = _ModulatedNorm(block.norm1, block.attn.kernel, z)
    norm2 = _ModulatedNorm(block.norm2, block.ffn.kernel, z)
    merged = _attention_matrix(x, block.attn, norm1, strip, progress)
    attention = _AttentionRows(height, block.attn, merged, x)
    feed_forward = _FeedForwardRows(height, block.ffn, x)
    # Both stages run behind their input, so no row changes before it has been read.
    attended = finished = 0
    for rows in strips_of(x, strip, progress):
        delta = attention(norm1(rows))
        if not delta.shape[0]:
            continue
        between = x[attended : attended + delta.shape[0]].add_(delta)
        attended += delta.shape[0]
        delta = feed_forward(norm2(between))
        x[finished : finished + delta.shape[0]].add_(delta)
        finished += delta.shape[0]


def _whole_block(x: Tensor, block: DIRformerBlock, z: Tensor) -> None:
    """One block, in place on a map x (H, W, C) that one strip covers: nothing is computed in parts
    nor twice."""
    height, _, channels = x.shape
    attn, ffn, every = block.attn, block.ffn, slice(None)
    u = _ModulatedNorm(block.norm1, attn.kernel, z)(x)
    qkv = _Pointwise3x3(height, attn.qkv, attn.qkv_dwconv, every, x)(u)
    q, k, v = qkv.chunk(3, dim=-1)
    gram = _Gram(channels, attn.heads, x.device)
    gram.add(q, k)
    x.add_(conv1x1(v, _merged(attn, gram).to(x), cast_weights(attn.project_out, x)[1]))
    u = _ModulatedNorm(block.norm2, ffn.kernel, z)(x)
    gate, value = _Pointwise3x3(height, ffn.project_in, ffn.dwconv, every, x)(u).chunk(2, dim=-1)
    x.add_(conv1x1(F.gelu(gate).mul_(value), *cast_weights(ffn.project_out, x)))


def stream_blocks(
    x: Tensor, blocks: nn.ModuleList, z: Tensor, strip: int, progress: Progress
) -> None:
    """The blocks of a level, in place on its map x (H, W, C), with the IPR z (1, 256)."""
    for block in blocks:
        assert isinstance(block, DIRformerBlock)
        # On a CPU the narrower maps of the parts are faster, as they stay in the caches.
        if x.shape[0] > strip or x.device.type == "cpu":
            _block(x, block, z, strip, progress)
        else:
            _whole_block(x, block, z)
            for _ in range(2):  # the sweeps of a block
                progress.advance()
