"""Classification networks whose features compare pictures in a loss or a measure. Attribute names
follow the published checkpoints; classifiers are left out."""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Channels of the convolutions of each level; a pooling that halves the sides precedes all but the
# first.
_VGG16_LEVELS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
_VGG19_LEVELS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
_max_pooling = partial(nn.MaxPool2d, 2)
RESNET50_BLOCKS = (3, 4, 6, 3)


class ImageNetNormalisation(nn.Module):
    """(B, 3, H, W) in [0, 1] to the mean and deviation of ImageNet."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (
            ("mean", (0.485, 0.456, 0.406)),
            ("deviation", (0.229, 0.224, 0.225)),
        ):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.deviation


class L2Pooling(nn.Module):
    """Halves the sides: the root of the mean of squares under a 3x3 Hann window (Ding et al.,
    "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020)."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        hann = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("window", (hann[:, None] * hann).view(1, 1, 3, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        window = self.window.to(x.dtype).expand(channels, 1, 3, 3)
        # The small number keeps the slope of the root finite where all is 0.
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _vgg_layers(
    levels: Sequence[Sequence[int]], pooling: Callable[[], nn.Module], operations: ModuleType
) -> tuple[nn.Sequential, dict[int, str]]:
    """The layers, and the names of the convolutions by their places among these."""
    layers: list[nn.Module] = []
    names: dict[int, str] = {}
    channels = 3
    for level, widths in enumerate(levels, 1):
        if level > 1:
            layers.append(pooling())
        for number, width in enumerate(widths, 1):
            names[len(layers)] = f"conv{level}_{number}"
            layers += [operations.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers), names


class VGG19(nn.Module):
    """Convolutions of VGG19 (Simonyan and Zisserman, ICLR 2015), named as in torchvision."""

    def __init__(self, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.features, self.names = _vgg_layers(_VGG19_LEVELS, _max_pooling, operations)

    def forward(self, image: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        """The features before the ReLU of the wanted convolutions.

        Args:
            image: (B, 3, H, W), normalised as ImageNet; sides from 16 on for the last level.
            wanted: names such as "conv3_4", level and number from 1; at least one.

        Returns:
            (B, C, H / 2^(level - 1), W / 2^(level - 1)) by name.
        """
        found: dict[str, Tensor] = {}
        x = image
        for index, layer in enumerate(self.features):
            x = layer(x)
            if self.names.get(index) in wanted:
                found[self.names[index]] = x
            if len(found) == len(wanted):
                break
        return found


def _features(layers: nn.Sequential, ends: Sequence[int], image: Tensor) -> list[Tensor]:
    """What comes out of the layers at the places `ends`."""
    found: list[Tensor] = []
    x = image
    start = 0
    for end in ends:
        x = layers[start : end + 1](x)
        found.append(x)
        start = end + 1
    return found


class VGG16(nn.Module):
    """Convolutions of VGG16 (Simonyan and Zisserman, ICLR 2015), named as in torchvision.

    Args:
        levels: from 1 to 5; only the first so many are built.
        pooling: makes what halves the sides between levels.
    """

    channels = tuple(widths[-1] for widths in _VGG16_LEVELS)
    least_sides = (1, 2, 4, 8, 16)  # by the number of levels, with pooling that needs 2 pixels

    def __init__(
        self,
        levels: int = 5,
        *,
        pooling: Callable[[], nn.Module] = _max_pooling,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        built = _VGG16_LEVELS[:levels]
        self.features, names = _vgg_layers(built, pooling, operations)
        lasts = {f"conv{level}_{len(widths)}" for level, widths in enumerate(built, 1)}
        self.ends = [index + 1 for index, name in names.items() if name in lasts]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features after the last ReLU of each level.

        Args:
            image: (B, 3, H, W), normalised as ImageNet; sides from `least_sides[levels - 1]` on.

        Returns:
            (B, C, H / 2^(level - 1), W / 2^(level - 1)) with 64, 128, 256, 512, 512 channels.
        """
        return _features(self.features, self.ends, image)


class AlexNet(nn.Module):
    """Convolutions of AlexNet in one column (Krizhevsky, "One weird trick for parallelizing
    convolutional neural networks", 2014), named as in torchvision.

    Args:
        levels: from 1 to 5; only the first so many convolutions are built.
    """

    channels = (64, 192, 384, 256, 256)
    least_sides = (7, 15, 31, 31, 31)  # by the number of levels

    def __init__(self, levels: int = 5, *, operations: ModuleType = nn) -> None:
        super().__init__()
        layers = [
            operations.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            operations.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            operations.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            operations.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            operations.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        ]
        ends = [index for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
        self.ends = ends[:levels]
        self.features = nn.Sequential(*layers[: self.ends[-1] + 1])

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: (B, 3, H, W), normalised as ImageNet; sides from `least_sides[levels - 1]` on.
        Returns the features after each ReLU, with 64, 192, 384, 256 and 256 channels, at about 1/4,
        1/8 and three times 1/16 of the sides."""
        return _features(self.features, self.ends, image)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50 (He et al., CVPR 2016, figure 5)."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        wide = 4 * channels
        self.conv1 = operations.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = operations.BatchNorm2d(channels)
        self.conv2 = operations.Conv2d(
            channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = operations.BatchNorm2d(channels)
        self.conv3 = operations.Conv2d(channels, wide, 1, bias=False)
        self.bn3 = operations.BatchNorm2d(wide)
        self.downsample: nn.Module = nn.Identity()
        if channels_in != wide or stride != 1:
            self.downsample = nn.Sequential(
                operations.Conv2d(channels_in, wide, 1, stride=stride, bias=False),
                operations.BatchNorm2d(wide),
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


class DilatedResNet50(nn.Module):
    """Encoder of the ADE20k scene parser (Zhou et al., "Semantic Understanding of Scenes through
    the ADE20K Dataset", IJCV 2019): a ResNet-50 with three 3x3 convolutions at its start, whose
    last two levels are dilated by 2 and 4 instead of halving the sides."""

    def __init__(self, *, operations: ModuleType = nn) -> None:
        super().__init__()

        def convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Module:
            layer: nn.Module = operations.Conv2d(
                channels_in, channels_out, 3, stride=stride, padding=1, bias=False
            )
            return layer

        self.conv1, self.bn1 = convolution(3, 64, 2), operations.BatchNorm2d(64)
        self.conv2, self.bn2 = convolution(64, 64), operations.BatchNorm2d(64)
        self.conv3, self.bn3 = convolution(64, 128), operations.BatchNorm2d(128)

        def level(
            index: int, channels_in: int, stride: int, dilations: tuple[int, int]
        ) -> nn.Module:
            """Dilations of the first block and of the others."""
            channels = 64 * 2**index
            blocks = [
                Bottleneck(
                    channels_in if first else 4 * channels,
                    channels,
                    stride=stride if first else 1,
                    dilation=dilations[0 if first else 1],
                    operations=operations,
                )
                for first in (number == 0 for number in range(RESNET50_BLOCKS[index]))
            ]
            return nn.Sequential(*blocks)

        self.layer1 = level(0, 128, 1, (1, 1))
        self.layer2 = level(1, 256, 2, (1, 1))
        self.layer3 = level(2, 512, 1, (1, 2))
        self.layer4 = level(3, 1024, 1, (2, 4))

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: (B, 3, H, W), normalised as ImageNet. Returns the features of the four levels,
        with 256, 512, 1024 and 2048 channels, at 1/4 and three times 1/8 of the sides."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features
