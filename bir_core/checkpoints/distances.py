"""The published weights of LPIPS and DISTS, in files that `bir weights measures` writes."""

from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ..errors import BIRError
from ..networks.distances import DISTS, LPIPS
from ..networks.perceptual import VGG16, AlexNet
from .completeness import require_sound
from .files import read_checkpoint
from .keys import unwrap

Network = Literal["alex", "vgg"]
Distance = TypeVar("Distance", bound=nn.Module)

# Where the weights lie below torch's cache. DISTS takes the VGG16 of LPIPS, which is torchvision's.
LPIPS_FILES: dict[Network, str] = {
    "alex": "bir/lpips_alex.safetensors",
    "vgg": "bir/lpips_vgg.safetensors",
}
DISTS_FILE = "bir/dists.safetensors"


def read_lpips(network: Network, folder: Path | None = None, levels: int = 5) -> LPIPS:
    """LPIPS with its published weights, which nothing trains.

    Args:
        network: `alex`, which the authors advise for measuring, or `vgg`, which they advise for a
            loss.
        folder: laid out as torch's cache; None takes that.
        levels: from 1 to 5, the first so many levels of features; the published distance takes 5.

    Raises:
        BIRError: no such network or number of levels, or no file or another one in its place.
    """
    if network not in LPIPS_FILES:
        raise BIRError(f"Expected LPIPS on alex or vgg, but {network} came; choose one of them.")
    if not 1 <= levels <= 5:
        raise BIRError(f"Expected from 1 to 5 levels of LPIPS, but {levels} came; change them.")
    distance = LPIPS(VGG16(levels) if network == "vgg" else AlexNet(levels))
    return _with_weights(distance, (LPIPS_FILES[network],), folder)


def read_dists(folder: Path | None = None) -> DISTS:
    """DISTS with its published weights, which nothing trains.

    Args:
        folder: laid out as torch's cache; None takes that.

    Raises:
        BIRError: a file is absent, or another one is in its place.
    """
    return _with_weights(DISTS(), (LPIPS_FILES["vgg"], DISTS_FILE), folder)


def _with_weights(distance: Distance, files: tuple[str, ...], folder: Path | None) -> Distance:
    """The distance with those of the files' tensors that it has."""
    folder = Path(torch.hub.get_dir()) if folder is None else folder
    weights: dict[str, Tensor] = {}
    for path in (folder / file for file in files):
        if not path.is_file():
            raise BIRError(
                f"Expected the weights of a distance at {path}, but there are none; run "
                "`bir weights measures`, which fetches them."
            )
        weights |= unwrap(read_checkpoint(path))
    state = distance.state_dict()
    for name, value in state.items():
        if name not in weights or weights[name].shape != value.shape:
            raise BIRError(
                f"Expected the weights of a distance in {', '.join(files)} of {folder}, but they "
                f"are others (see {name}); run `bir weights measures`, which writes them anew."
            )
    require_sound(state, weights, f"{', '.join(files)} of {folder}")
    distance.load_state_dict({name: weights[name] for name in state})
    return distance.eval().requires_grad_(False)
