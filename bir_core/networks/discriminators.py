"""Discriminators of the adversarial trainings.

Attribute names follow the published checkpoints. Spectral normalisation is torch's older form,
which stores the names that those have (`weight_orig`, `weight_u`, `weight_v`).
"""

from itertools import pairwise
from types import ModuleType

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

LEAKY_SLOPE = 0.2
KERNEL = 4


class UNetDiscriminator(nn.Module):
    """A U of convolutions with spectral normalisation that judges each pixel (Wang et al.,
    "Real-ESRGAN", ICCVW 2021, section 3.3).

    Args:
        features: channels at full resolution; 64 in the published files.
    """

    def __init__(self, features: int = 64, *, operations: ModuleType = nn) -> None:
        super().__init__()
        n = features

        def down(narrow: int) -> nn.Module:
            layer = operations.Conv2d(narrow, 2 * narrow, KERNEL, stride=2, padding=1, bias=False)
            return spectral_norm(layer)

        def same(channels_in: int, channels_out: int) -> nn.Module:
            layer = operations.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
            return spectral_norm(layer)

        self.conv0 = operations.Conv2d(3, n, 3, padding=1)
        self.conv1, self.conv2, self.conv3 = down(n), down(2 * n), down(4 * n)
        self.conv4, self.conv5, self.conv6 = same(8 * n, 4 * n), same(4 * n, 2 * n), same(2 * n, n)
        self.conv7, self.conv8 = same(n, n), same(n, n)
        self.conv9 = operations.Conv2d(n, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, 3, H, W) in [0, 1], sides dividing by 8. Returns logits (B, 1, H, W), high for
        real pictures. In training mode each call makes one power iteration of the norms."""
        x0 = _leaky(self.conv0(image))
        x1 = _leaky(self.conv1(x0))
        x2 = _leaky(self.conv2(x1))
        x = _leaky(self.conv3(x2))
        x = _leaky(self.conv4(_enlarge(x))) + x2
        x = _leaky(self.conv5(_enlarge(x))) + x1
        x = _leaky(self.conv6(_enlarge(x))) + x0
        x = _leaky(self.conv8(_leaky(self.conv7(x))))
        return self.conv9(x)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class PatchDiscriminator(nn.Module):
    """Five convolutions with spectral normalisation that judge patches of 24 pixels: small enough
    to train beside a compact network on a CPU.

    Args:
        features: channels at full resolution; twice as many after it is halved.
    """

    def __init__(self, features: int = 32, *, operations: ModuleType = nn) -> None:
        super().__init__()

        def convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Module:
            """Of stride 2 with a kernel of 4, and 1 with one of 3."""
            layer: nn.Module = operations.Conv2d(
                channels_in, channels_out, kernel, stride=kernel - 2, padding=1
            )
            return spectral_norm(layer)

        self.convolutions = nn.ModuleList(
            [
                convolution(3, features, 3),
                convolution(features, features, KERNEL),
                convolution(features, 2 * features, 3),
                convolution(2 * features, 2 * features, KERNEL),
                convolution(2 * features, 1, 3),
            ]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """image: (B, 3, H, W) in [0, 1], sides from 4 on. Returns logits (B, 1, H / 4, W / 4), high
        for real pictures, and the inner features of the layers before, outermost first. In training
        mode each call makes one power iteration of the norms."""
        features = []
        x = image
        *inner, last = self.convolutions
        for layer in inner:
            x = _leaky(layer(x))
            features.append(x)
        return last(x), features


class NLayerDiscriminator(nn.Module):
    """Convolutions that judge patches (Isola et al., "Image-to-Image Translation with Conditional
    Adversarial Networks", CVPR 2017), in the form that LaMa trains against (Suvorov et al.,
    WACV 2022).

    Args:
        features: channels of the first layer; they double up to 8 times as many.
        layers: convolutions of stride 2; two of stride 1 follow.
    """

    def __init__(self, features: int = 64, layers: int = 4, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.layers = layers

        def convolution(channels_in: int, channels_out: int, stride: int) -> nn.Module:
            layer: nn.Module = operations.Conv2d(
                channels_in, channels_out, KERNEL, stride=stride, padding=KERNEL // 2
            )
            return layer

        widths = [features * min(2**level, 8) for level in range(layers + 1)]
        self.model0 = nn.Sequential(convolution(3, widths[0], 2), nn.LeakyReLU(LEAKY_SLOPE))
        for level, (narrow, wide) in enumerate(pairwise(widths), 1):
            block = nn.Sequential(
                convolution(narrow, wide, 2 if level < layers else 1),
                operations.BatchNorm2d(wide),
                nn.LeakyReLU(LEAKY_SLOPE),
            )
            self.add_module(f"model{level}", block)
        self.add_module(f"model{layers + 1}", nn.Sequential(convolution(widths[-1], 1, 1)))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """image: (B, 3, H, W) in [0, 1]. Returns logits (B, 1, h, w), high for real pictures, and
        the inner features of the layers before, outermost first."""
        features = []
        x = image
        for level in range(self.layers + 1):
            x = self.get_submodule(f"model{level}")(x)
            features.append(x)
        return self.get_submodule(f"model{self.layers + 1}")(x), features
