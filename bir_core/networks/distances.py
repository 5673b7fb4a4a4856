"""How far two pictures are apart to the eye, by the features of networks: LPIPS and DISTS, as
measures and as losses."""

import torch
from torch import Tensor, nn

from ..errors import BIRError
from .perceptual import VGG16, AlexNet, ImageNetNormalisation, L2Pooling

# Channels that DISTS compares: those of the picture itself, and of the five levels of VGG16.
_DISTS_CHANNELS = (3, *VGG16.channels)


class LPIPS(nn.Module):
    """Learned perceptual similarity 0.1 (Zhang et al., "The Unreasonable Effectiveness of Deep
    Features as a Perceptual Metric", CVPR 2018, eq. 1; the heads are the squares of its w).

    Its own scaling of pictures in [-1, 1] is that of ImageNet in [0, 1].

    Args:
        network: whose features are compared, with one `heads` for each of its levels.
    """

    def __init__(self, network: VGG16 | AlexNet) -> None:
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.network = network
        self.heads = nn.ParameterList(
            torch.ones(channels) for channels in network.channels[: len(network.ends)]
        )

    def forward(self, restored: Tensor, hq: Tensor) -> Tensor:
        """The distance, 0 for equal pictures.

        Args:
            restored, hq: (B, 3, H, W) in [0, 1].

        Returns:
            (B,) float32; the gradient reaches both pictures.

        Raises:
            BIRError: not two RGB pictures of one size, or they are too small for the levels.
        """
        _require_pair(restored, hq, self.network.least_sides[len(self.heads) - 1])
        ours = self.network(self.normalise(restored))
        theirs = self.network(self.normalise(hq))
        parts = []
        for head, a, b in zip(self.heads, ours, theirs, strict=True):
            difference = (_unit(a.float()) - _unit(b.float())).square()
            parts.append((difference.mean((2, 3)) * head).sum(1))
        return torch.stack(parts).sum(0)


def _unit(features: Tensor) -> Tensor:
    """Vectors of channels (B, C, H, W) of length 1. The slope of `vector_norm` is 0 where all
    channels are, and not infinite as that of a root is."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


class DISTS(nn.Module):
    """Structure and texture similarity (Ding et al., "Image Quality Assessment: Unifying Structure
    and Texture Similarity", TPAMI 2020).

    Attributes:
        alpha, beta: (1475,), weights of texture (means) and structure (covariances).
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.network = VGG16(pooling=L2Pooling)
        self.alpha = nn.Parameter(torch.ones(sum(_DISTS_CHANNELS)))
        self.beta = nn.Parameter(torch.ones(sum(_DISTS_CHANNELS)))

    def forward(self, restored: Tensor, hq: Tensor) -> Tensor:
        """The distance, 0 for equal pictures and up to about 1.

        Args:
            restored, hq: (B, 3, H, W) in [0, 1].

        Returns:
            (B,) float32; the gradient reaches both pictures.

        Raises:
            BIRError: not two RGB pictures of one size.
        """
        _require_pair(restored, hq, 1)
        ours = [restored, *self.network(self.normalise(restored))]
        theirs = [hq, *self.network(self.normalise(hq))]
        pairs = zip(ours, theirs, strict=True)
        parts = [_similarities(a.float(), b.float()) for a, b in pairs]
        textures, structures = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        similarity = (textures * self.alpha + structures * self.beta).sum(1)
        return 1 - similarity / (self.alpha.sum() + self.beta.sum())


def _similarities(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of texture and of structure, each (B, C), of features (B, C, H, W)."""
    small = 1e-6
    mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
    a, b = a - mean_a[..., None, None], b - mean_b[..., None, None]
    texture = (2 * mean_a * mean_b + small) / (mean_a.square() + mean_b.square() + small)
    covariance = (a * b).mean((2, 3))
    variances = a.square().mean((2, 3)) + b.square().mean((2, 3))
    return texture, (2 * covariance + small) / (variances + small)


def _require_pair(restored: Tensor, hq: Tensor, least: int) -> None:
    if restored.shape != hq.shape or restored.ndim != 4 or restored.shape[1] != 3:
        raise BIRError(
            "A distance expects two RGB images of the same size, but shapes "
            f"{tuple(restored.shape)} and {tuple(hq.shape)} came; resize or crop one of them first."
        )
    height, width = hq.shape[-2:]
    if min(height, width) < least:
        raise BIRError(
            f"This distance expects sides of at least {least} pixels, but {width}x{height} came; "
            "give larger pictures or take fewer levels."
        )
