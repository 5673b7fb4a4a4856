"""Damage to a smaller picture, which is then enlarged, as pictures on web pages often are."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import ResizeMode, luma, resize
from .degradation import (
    RESIZE_MODES,
    Degradation,
    Degraded,
    Draws,
    Randomness,
    require_modes,
    round_8bit,
)
from .draws import Range, choose_evenly, require_probability, require_range, uniform_per_sample
from .fixed import FixedDegradation


@dataclass(frozen=True, kw_only=True)
class EnlargedDegradation(Degradation):
    """Reduce without damage, damage the small picture, enlarge it to the size of hq.

    Blur and noise are those of the small picture. Everything is drawn for each image of a batch.

    Attributes:
        damage: of the small picture; of scale 1. Its order is blur, noise, JPEG.
        enlargement: factor of the enlargement, at least 1.
        enlarge_probability: of any reduction and enlargement.
        late_jpeg_probability: of JPEG after the enlargement, instead of before.
        grey_picture_probability: of a picture without colours, whose noise is grey.
        resize_modes: equally likely, for the reduction and for the enlargement.
    """

    damage: FixedDegradation
    enlargement: Range
    enlarge_probability: float = 1.0
    late_jpeg_probability: float = 0.0
    grey_picture_probability: float = 0.0
    resize_modes: tuple[ResizeMode, ...] = RESIZE_MODES

    def __post_init__(self) -> None:
        require_range("enlargement", self.enlargement, 1, math.inf)
        require_modes(self.resize_modes)
        for name in ("enlarge", "late_jpeg", "grey_picture"):
            require_probability(f"{name}_probability", getattr(self, f"{name}_probability"))
        if self.damage.scale != 1:
            raise BIRError(
                "The damage of an enlarged picture should have a scale of 1, but "
                f"{self.damage.scale} came; say by `enlargement` how small the picture was."
            )

    @property
    def keeps_size(self) -> bool:
        """True: it enlarges what it made smaller."""
        return True

    def with_scale(self, scale: int) -> "EnlargedDegradation":
        """The same with a picture in between that is so many times smaller."""
        factor = float(scale)
        return dataclasses.replace(
            self, enlargement=(factor, factor), enlarge_probability=float(scale > 1)
        )

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """All steps for one image after the other, since every one has another size in between."""
        batch, generator = len(hq), random.generator
        enlarged, late, grey = (
            uniform_per_sample((0.0, 1.0), batch, generator) < probability
            for probability in (
                self.enlarge_probability,
                self.late_jpeg_probability,
                self.grey_picture_probability,
            )
        )
        factors = uniform_per_sample(self.enlargement, batch, generator)
        factors = torch.where(enlarged, factors, torch.ones(batch))
        random.drawn["enlargement"] = factors
        random.drawn["late_jpeg"], random.drawn["grey_picture"] = late, grey
        hq = torch.where(grey.to(hq.device).view(-1, 1, 1, 1), luma(hq), hq)
        images, records = [], []
        for index, factor in enumerate(factors.tolist()):
            one = dataclasses.replace(random, drawn={})
            image = hq[index : index + 1]
            damage = self.damage
            if grey[index]:
                damage = dataclasses.replace(damage, grey_probability=1.0)
            images.append(self._one(image, damage, factor, bool(late[index]), one))
            records.append(one.drawn)
        random.drawn.update(_of_batch(records))
        return Degraded(torch.cat(images), hq, random.drawn)

    def _one(
        self, image: Tensor, damage: FixedDegradation, factor: float, late: bool, random: Randomness
    ) -> Tensor:
        """One image (1, 3, H, W) through all steps."""
        height, width = image.shape[-2:]
        modes = [choose_evenly(self.resize_modes, random.generator) for _ in range(2)]
        random.drawn["reduced_by"], random.drawn["enlarged_by"] = [modes[0]], [modes[1]]
        first = dataclasses.replace(damage, jpeg_probability=0.0)
        jpeg = dataclasses.replace(damage, blur_probability=0.0, noise_probability=0.0)
        if factor > 1:
            rows, columns = (max(1, round(side / factor)) for side in (height, width))
            image = resize(image, rows, columns, modes[0]).clamp(0, 1)
        image = first.degrade(image, random).lq
        if not late:
            image = jpeg.degrade(image, random).lq
        if factor > 1:
            image = round_8bit(resize(image, height, width, modes[1]))
        return jpeg.degrade(image, random).lq if late else image


def _of_batch(records: list[Draws]) -> Draws:
    """What was drawn for each image, as for a batch; what only some of them have is False there."""
    merged: Draws = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name, torch.zeros(1, dtype=torch.bool)) for record in records]
        if all(isinstance(value, Tensor) for value in values):
            merged[name] = torch.cat([value for value in values if isinstance(value, Tensor)])
        else:
            merged[name] = [each for value in values if isinstance(value, list) for each in value]
    return merged
