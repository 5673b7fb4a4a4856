"""Classification networks whose features compare pictures in a loss. Attribute names follow the
published checkpoints; classifiers are left out."""

from types import ModuleType

from torch import Tensor, nn
from torch.nn import functional as F

# Channels of the convolutions of each level; a pooling that halves the sides follows each level.
_VGG19_LEVELS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
RESNET50_BLOCKS = (3, 4, 6, 3)


class VGG19(nn.Module):
    """Convolutions of VGG19 (Simonyan and Zisserman, ICLR 2015), named as in torchvision."""

    def __init__(self, *, operations: ModuleType = nn) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.names: dict[int, str] = {}
        channels = 3
        for level, widths in enumerate(_VGG19_LEVELS, 1):
            for number, width in enumerate(widths, 1):
                self.names[len(layers)] = f"conv{level}_{number}"
                layers += [operations.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

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
