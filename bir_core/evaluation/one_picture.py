"""Everything that can be measured of one restored picture, and why the rest cannot."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..checkpoints.distances import LPIPS_FILES, read_lpips
from ..errors import BIRError
from ..images import require_image
from ..metrics import SSIM_WINDOW, psnr, ssim
from ..networks.perceptual import AlexNet
from .faults import color_drift, consistency, seam_score
from .weight_files import usual_folder


@dataclass(frozen=True)
class Number:
    """How a number is told.

    Attributes:
        title: its name.
        decimals: that are shown.
        meaning: what it says, in a few words.
        unit: behind the number.
    """

    title: str
    decimals: int
    meaning: str
    unit: str = ""

    def shown(self, value: float) -> str:
        """The number with its name."""
        return f"{self.title} {value:.{self.decimals}f}{self.unit}"


NUMBERS = {
    "psnr": Number("PSNR Y", 2, "higher is nearer to the reference", " dB"),
    "ssim": Number("SSIM Y", 4, "1 is equal to the reference"),
    "lpips": Number("LPIPS", 4, "to the eye; 0 is equal to the reference"),
    "color_drift": Number("colour drift", 2, "Delta E; below 1 nobody sees it"),
    "seams": Number("seams", 3, "1 is none; 2: steps at tile borders are twice the usual"),
    "consistency": Number(
        "consistency", 2, "reduced again against the low-quality picture; higher agrees", " dB"
    ),
}


@dataclass(frozen=True)
class Measured:
    """The numbers of a picture.

    Attributes:
        values: by the names of `NUMBERS`, in their order.
        absent: why the others are not there, by name.
    """

    values: dict[str, float]
    absent: dict[str, str]

    def short(self) -> tuple[str, ...]:
        """A line for each number."""
        return tuple(NUMBERS[name].shown(value) for name, value in self.values.items())

    def text(self) -> str:
        """A line for each number and what it says, or why it is not there."""
        return "\n".join(
            f"{number.shown(self.values[name])} ({number.meaning})"
            if name in self.values
            else f"{number.title} not measured: {self.absent[name]}"
            for name, number in NUMBERS.items()
        )


def lpips_if_there(folder: Path | None = None) -> nn.Module | str:
    """LPIPS on AlexNet, or why it is not there.

    Args:
        folder: of the weights, laid out as torch's cache; None takes that.

    Raises:
        BIRError: a file that is not LPIPS's in its place.
    """
    folder = usual_folder() if folder is None else folder
    file = LPIPS_FILES["alex"]
    if not (folder / file).is_file():
        return f"its weights {file} are not in {folder}; `bir weights measures` puts them there"
    return read_lpips("alex", folder)


def measure(
    image: Tensor,
    *,
    reference: Tensor | None = None,
    lq: Tensor | None = None,
    lpips: nn.Module | str,
    border: int = 0,
    tile: int = 0,
    overlap: int = 0,
) -> Measured:
    """Measure a picture, as the picture of 8 bits that would be saved; on the CPU.

    Args:
        image: (1, 3, H, W) in [0, 1].
        reference: the original of the same size.
        lq: (1, 3, h, w), what the picture was restored from. Without a reference the colours are
            compared with it.
        lpips: as `lpips_if_there` gives it.
        border: pixels that PSNR and SSIM leave out on each side.
        tile, overlap: in pixels of the image, of the tiles whose seams are looked for; 0 for none.

    Raises:
        BIRError: a reference of another size, a low-quality picture in other proportions, a border
            that leaves nothing, a wrong overlap, or numbers that are not finite.
    """
    given = [each for each in (image, reference, lq) if each is not None]
    for each in given:
        require_image(each)
    if reference is not None and reference.shape != image.shape:
        raise BIRError(
            f"Expected a reference of {image.shape[-1]} x {image.shape[-2]} pixels like the image, "
            f"but {reference.shape[-1]} x {reference.shape[-2]} came; resize or crop one of them."
        )
    image = (image.clamp(0, 1) * 255).round() / 255
    side = min(image.shape[-2:])
    values: dict[str, Tensor] = {}
    absent: dict[str, str] = {}
    if reference is None:
        absent |= dict.fromkeys(("psnr", "ssim", "lpips"), "there is no reference")
    else:
        values["psnr"] = psnr(image, reference, channel="y", border=border)
        if side - 2 * border < SSIM_WINDOW:
            absent["ssim"] = f"it needs {SSIM_WINDOW} x {SSIM_WINDOW} pixels"
        else:
            values["ssim"] = ssim(image, reference, channel="y", border=border)
        if isinstance(lpips, str):
            absent["lpips"] = lpips
        elif side < AlexNet.least_sides[-1]:
            absent["lpips"] = f"it needs sides of {AlexNet.least_sides[-1]} pixels"
        else:
            values["lpips"] = lpips(image, reference)
    model = lq if reference is None else reference
    if model is None:
        absent["color_drift"] = "there is neither a reference nor a low-quality picture"
    else:
        values["color_drift"] = color_drift(image, model)
    if not tile:
        absent["seams"] = "no tile is given"
    elif max(image.shape[-2:]) <= tile:
        absent["seams"] = "the picture is a single tile"
    else:
        values["seams"] = seam_score(image, tile, overlap)
    if lq is None:
        absent["consistency"] = "there is no low-quality picture"
    else:
        values["consistency"] = consistency(image, lq)
    ordered = {name: float(values[name]) for name in NUMBERS if name in values}
    return Measured(ordered, absent)


def difference_map(image: Tensor, other: Tensor, gain: float) -> Tensor:
    """Where two pictures (B, 3, H, W) of one size differ: the largest difference of the three
    channels times `gain`, as a grey picture (B, 3, H, W), white from 1 / gain on."""
    difference = (image - other).abs().amax(1, keepdim=True) * gain
    return difference.clamp(0, 1).expand(-1, 3, -1, -1)
