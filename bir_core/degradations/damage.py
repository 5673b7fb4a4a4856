"""Old photographs: what the damage of a print and its scan have in common, however the damage is
made."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import luma
from .degradation import Degradation, Degraded, Randomness
from .draws import Range, chance, require_probability, require_range, uniform
from .fixed import FixedDegradation

# Damage is visible where it changes a colour by more than this, in [0, 1], as the mean over 3 x 3
# pixels with binomial weights has it.
VISIBLE = 0.05
# Red, green and blue of middle grey on toned paper.
SEPIA = (0.58, 0.5, 0.39)


@dataclass(frozen=True, kw_only=True)
class DamageDegradation(Degradation):
    """A print that faded, was damaged and was scanned.

    Attributes:
        grey_probability: of a black-and-white print.
        sepia_probability: of a toned one among these.
        faded: by how much of the range of values the darkest and the brightest one are moved.
        scan: blur, noise and JPEG of the scan, which keep the size.
    """

    grey_probability: float = 0.5
    sepia_probability: float = 0.5
    faded: Range = (0.0, 0.25)
    scan: FixedDegradation

    def __post_init__(self) -> None:
        require_probability("grey_probability", self.grey_probability)
        require_probability("sepia_probability", self.sepia_probability)
        require_range("faded", self.faded, 0, 0.5)
        if self.scan.scale != 1:
            raise BIRError(
                f"The scan of a print should keep its size, but a scale of {self.scan.scale} came; "
                "change the preset."
            )

    @property
    def damages_surface(self) -> bool:
        """True."""
        return True

    def with_scale(self, scale: int) -> "DamageDegradation":
        """The same. Raises BIRError unless the scale is 1."""
        if scale != 1:
            raise BIRError(
                f"A preset of old photographs keeps the size of a picture, but a scale of {scale} "
                "came; leave it out."
            )
        return self

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """A print of its own for each image; `damage` is what of it can be seen."""
        prints, grey = [], []
        for image in hq:
            grey.append(chance(self.grey_probability, random.generator))
            prints.append(self._print(image, grey[-1], random.generator))
        random.drawn["grey_print"] = torch.tensor(grey)
        damaged = torch.stack(
            [self.damage(image.cpu(), random.generator).to(image) for image in prints]
        ).clamp(0, 1)
        visible = visible_damage(damaged, torch.stack(prints))
        random.drawn["damage_share"] = visible.mean(dim=(1, 2, 3)).cpu()
        scanned = self.scan.degrade(damaged, random).lq
        return Degraded(scanned, hq, random.drawn, damage=visible)

    @abstractmethod
    def damage(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """A print (3, H, W) in [0, 1] on the CPU to the damaged one, not clamped."""

    def _print(self, image: Tensor, is_grey: bool, generator: torch.Generator) -> Tensor:
        if is_grey:
            image = luma(image[None])[0].expand(3, -1, -1)
            if chance(self.sepia_probability, generator):
                # A power keeps black and white paper as they are.
                tone = image.new_tensor(SEPIA).log() / torch.tensor(0.5).log().to(image)
                strength = uniform((0.3, 1.0), generator)
                image = image ** (1 + strength * (tone - 1))[:, None, None]
        darkest, brightest = (uniform(self.faded, generator) for _ in range(2))
        return darkest + (1 - darkest - brightest) * image


def visible_damage(damaged: Tensor, picture: Tensor) -> Tensor:
    """Where a picture (B, 3, H, W) in [0, 1] differs visibly from what it was: (B, 1, H, W), 0 or
    1; see `VISIBLE`."""
    change = (damaged - picture).abs().amax(1, keepdim=True)
    weights = change.new_tensor([0.25, 0.5, 0.25])
    smooth = F.conv2d(
        F.pad(change, (1, 1, 1, 1), mode="replicate"), weights.outer(weights)[None, None]
    )
    return (smooth > VISIBLE).to(change)
