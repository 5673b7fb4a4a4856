"""Perceptual losses: pictures compared by the features of a network that classifies. The networks'
weights are files of their authors, which are only read, never fetched."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import read_checkpoint
from ..checkpoints.completeness import require_sound
from ..checkpoints.keys import unwrap
from ..errors import BIRError
from ..networks.perceptual import VGG19, DilatedResNet50, ImageNetNormalisation
from .losses import feature_sum

Network = TypeVar("Network", bound=nn.Module)

# torchvision's file, under the name that torch.hub gives it.
VGG19_FILE = "vgg19-dcbb9e9d.pth"
# Layers and weights of Real-ESRGAN and of DiffIR's GAN stage.
VGG19_WEIGHTS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


class VGG19Loss(nn.Module):
    """Weighted sum of the mean absolute differences of VGG19's features before the ReLU (Johnson et
    al., ECCV 2016, as Real-ESRGAN uses it). Pictures: (B, 3, H, W) in [0, 1], sides from 16 on."""

    def __init__(self, network: VGG19) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.normalise = ImageNetNormalisation()

    def forward(self, restored: Tensor, hq: Tensor) -> Tensor:
        """Scalar; the gradient reaches `restored` only."""
        wanted = tuple(VGG19_WEIGHTS)
        ours = self.network(self.normalise(restored), wanted)
        with torch.no_grad():
            target = self.network(self.normalise(hq), wanted)
        parts = [
            weight * F.l1_loss(ours[name].float(), target[name].float())
            for name, weight in VGG19_WEIGHTS.items()
        ]
        return torch.stack(parts).sum()


class ResNetLoss(nn.Module):
    """Sum of the mean squared differences of the features of a dilated ResNet-50 (LaMa's perceptual
    loss of high receptive field, eq. 3). Pictures: (B, 3, H, W) in [0, 1]."""

    def __init__(self, network: DilatedResNet50) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.normalise = ImageNetNormalisation()

    def forward(self, restored: Tensor, hq: Tensor) -> Tensor:
        """Scalar; the gradient reaches `restored` only."""
        with torch.no_grad():
            target = self.network(self.normalise(hq))
        return feature_sum(self.network(self.normalise(restored)), target)


def read_vgg19(path: Path | None) -> VGG19:
    """VGG19 with the weights of torchvision.

    Args:
        path: their file; None looks for vgg19-dcbb9e9d.pth where torch.hub keeps it.

    Raises:
        BIRError: no such file, or one of another network.
    """
    if path is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_FILE
        if not path.is_file():
            raise BIRError(
                f"A perceptual loss should find the weights of VGG19 at {path}, but there are "
                f"none; give torchvision's {VGG19_FILE} with --perceptual, or set the recipe's "
                "perceptual weight to 0."
            )
    return _read_into(VGG19(), path, "VGG19 of torchvision", "classifier.")


def read_dilated_resnet50(path: Path | None) -> DilatedResNet50:
    """The encoder of the ADE20k scene parser.

    Args:
        path: its file, as released: encoder_epoch_20.pth of ade20k-resnet50dilated-ppm_deepsup.

    Raises:
        BIRError: no such file, or one of another network.
    """
    if path is None:
        raise BIRError(
            "A perceptual loss should have the weights of its network, but no file came; give "
            "encoder_epoch_20.pth of ade20k-resnet50dilated-ppm_deepsup with --perceptual, or set "
            "the recipe's perceptual weight to 0."
        )
    return _read_into(DilatedResNet50(), path, "dilated ResNet-50 of ADE20k", "fc.")


def _read_into(network: Network, path: Path, what: str, needless: str) -> Network:
    """The network with a file's weights; keys that start with `needless` are its classifier."""
    weights = unwrap(read_checkpoint(path))
    # Batch norms of other frameworks keep more, or less, than these.
    wanted = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    missing = [
        name
        for name, value in wanted.items()
        if name not in weights or weights[name].shape != value.shape
    ]
    others = [
        name
        for name in weights
        if name.endswith(".weight") and name not in wanted and not name.startswith(needless)
    ]
    if missing or others:
        raise BIRError(
            f"Expected the {what} in {path}, but it is another network (see its key "
            f"{(missing or others)[0]}); give the file that belongs to the recipe."
        )
    require_sound(wanted, weights, f"{path} ({what})")
    network.load_state_dict({name: weights[name].float() for name in wanted}, strict=False)
    return network


def refuse_needless(path: Path | None) -> None:
    """Raise BIRError if a file came for a perceptual loss of weight 0."""
    if path is not None:
        raise BIRError(
            f"A recipe whose perceptual weight is 0 takes no --perceptual, but the file {path} "
            "came; leave it out, or set the weight."
        )
