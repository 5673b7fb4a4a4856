"""All that is said of a picture, in one place."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..images import require_pixels
from ..memory import dtype_of
from ..networks.estimator import CHANCES, UNITS, Estimator
from ..pictures.files import read_picture
from ..pictures.jpeg_tables import luma_table
from .classical import colour_cast, contrast, greyness, sharpness, wavelet_noise
from .jpeg import grid_quality, table_quality
from .patches import Measured, spread_patches, together

BATCH = 6  # patches at a time
# Of each number, what can be.
BOUNDS = {
    "blur_sigma": (0.0, 20.0),
    "noise_sigma": (0.0, 128.0),
    "jpeg_quality": (1.0, 100.0),
    "enlargement": (1.0, 16.0),
}
PROBABLE = 0.8
# In spreads.
BEYOND_DOUBT = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is wrong with a picture.

    Blur and noise are those of the picture before it was enlarged.

    Attributes:
        blur_sigma: of a Gaussian that blurs as much, in pixels.
        noise_sigma: standard deviation in steps of 8 bit.
        noise_grey: probability that the noise is the same in all channels.
        jpeg_quality: 1 to 100, of the strongest JPEG that is seen; None where there is none.
        jpeg: probability that there is one.
        file_quality: of the tables in the file, which may have been saved again; None where it is
            no JPEG, or no file.
        enlargement: how many times larger the picture is than its detail, from 1 on.
        sharpness: of the strongest edges, by a classical method: 0.25 and more in a sharp
            photograph, below 0.18 in one that was blurred or enlarged.
        grey: share of the pixels without colour.
        contrast: range of brightness in [0, 1].
        colour_cast: of red, green and blue, in steps of 8 bit.
        wavelet_noise: the noise by a classical method, which takes texture for noise.
    """

    blur_sigma: Measured
    noise_sigma: Measured
    noise_grey: float
    jpeg_quality: Measured | None
    jpeg: float
    file_quality: Measured | None
    enlargement: Measured
    sharpness: Measured
    grey: Measured
    contrast: Measured
    colour_cast: tuple[float, float, float]
    wavelet_noise: Measured

    def numbers(self) -> dict[str, float | list[float] | None]:
        """All of it by name, the spreads under the names with `_spread` behind."""
        flat: dict[str, float | list[float] | None] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Measured):
                flat[field.name], flat[f"{field.name}_spread"] = value.value, value.spread
            elif field.name.endswith("quality"):
                flat[field.name] = flat[f"{field.name}_spread"] = None
            else:
                flat[field.name] = list(value) if isinstance(value, tuple) else value
        return flat


def load_estimator() -> Estimator:
    """The network that comes with the package, on the CPU."""
    network = load_model("builtin-estimate", architecture="estimator")
    assert isinstance(network, Estimator)  # load_model refuses every other architecture
    return network


def estimate_file(path: str | Path, network: Estimator | None = None) -> Estimate:
    """Say what is wrong with a picture file; of several frames, with the first. Arguments as of
    `estimate`, errors as of `read_picture`."""
    picture = read_picture(path, first_frame=True)
    return estimate(picture.image, network, file_quality=file_quality(path))


def file_quality(path: str | Path) -> Measured | None:
    """The quality in the tables of a JPEG file; None for a file of another format."""
    table = luma_table(path)
    return None if table is None else table_quality(table)


@torch.no_grad()
def estimate(
    image: Tensor, network: Estimator | None = None, *, file_quality: Measured | None = None
) -> Estimate:
    """Say what is wrong with a picture. The same picture gives the same numbers.

    Args:
        image: (1, 3, H, W) in [0, 1], any size from 1 pixel on, of which some dozens of patches are
            looked at.
        network: as of `load_estimator`, which it is if None.
        file_quality: as of the function of this name, of the file that the picture comes from.

    Raises:
        BIRError: no pixels.
    """
    require_pixels(image)
    network = load_estimator() if network is None else network
    place = next(network.parameters()).device
    patches = spread_patches(image.float())
    found = [network(part.to(place, dtype_of(network))) for part in torch.split(patches, BATCH)]
    values, spreads, logits = (
        torch.cat([getattr(each, name) for each in found]).float().cpu()
        for name in ("values", "spreads", "logits")
    )
    numbers = {
        name: together(values[:, column].clamp(*BOUNDS[name]), spreads[:, column])
        for column, name in enumerate(UNITS)
    }
    chances = dict(zip(CHANCES, logits.mean(dim=0).sigmoid().tolist(), strict=True))
    seen = grid_quality(image)
    if seen is not None:
        chances["jpeg"] = 1.0
    elif chances["jpeg"] >= PROBABLE:
        seen = numbers["jpeg_quality"]
    grey = greyness(image)
    return Estimate(
        blur_sigma=numbers["blur_sigma"],
        noise_sigma=numbers["noise_sigma"],
        noise_grey=chances["noise_grey"],
        jpeg_quality=_strongest(seen, file_quality),
        jpeg=1.0 if file_quality is not None else chances["jpeg"],
        file_quality=file_quality,
        enlargement=numbers["enlargement"],
        sharpness=sharpness(image),
        grey=grey,
        contrast=contrast(image),
        colour_cast=colour_cast(image),
        wavelet_noise=wavelet_noise(image),
    )


def _strongest(seen: Measured | None, of_file: Measured | None) -> Measured | None:
    """What the tables say, unless the pixels show a lower quality beyond doubt: then the picture
    was a JPEG before, and was saved again."""
    if of_file is None or seen is None:
        return of_file if seen is None else seen
    return seen if seen.value + BEYOND_DOUBT * seen.spread < of_file.value else of_file
