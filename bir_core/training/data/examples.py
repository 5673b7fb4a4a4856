"""Training examples by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import BIRError
from ..recipe import DataRecipe
from .captions import draw_caption
from .cuts import cut_pair, cut_picture
from .draws import CAPTION, CUT, generator_for
from .orders import ShuffledPasses
from .pictures import WholeExample, to_float
from .sources import ExampleSource

# More unreadable examples in a row than this are no accident.
UNREADABLE_IN_A_ROW = 1000


@dataclass(frozen=True)
class Example:
    """One cut and augmented example, and the unreadable ones that were met on the way to it.

    Attributes:
        hq: (3, side, side), uint8 or float32 in [0, 1].
        lq: likewise, for pairs; None where a degradation makes it.
    """

    hq: Tensor
    lq: Tensor | None
    caption: str = ""
    skipped: tuple[str, ...] = ()


class StackedExamples(NamedTuple):
    """The examples of a micro-batch: hq and lq (B, 3, side, side), the rest as in `Example`.

    `random_state` is that of the generator of degradation and crops after the reader used it.
    """

    hq: Tensor
    lq: Tensor | None
    captions: tuple[str, ...]
    skipped: tuple[str, ...]
    random_state: Tensor


def stack(examples: Sequence[Example], random_state: Tensor) -> StackedExamples:
    """Stack examples: in the process that read them, so that few tensors are handed over."""
    lq = [example.lq for example in examples if example.lq is not None]
    return StackedExamples(
        _stack([example.hq for example in examples]),
        _stack(lq) if lq else None,
        tuple(example.caption for example in examples),
        tuple(name for example in examples for name in example.skipped),
        random_state,
    )


def _stack(images: list[Tensor]) -> Tensor:
    """(B, 3, H, W), uint8 if all are."""
    if any(image.is_floating_point() for image in images):
        images = [to_float(image) for image in images]
    return torch.stack(images)


class ExampleDataset(Dataset[Example]):
    """Random cuts of pictures by position: position k is example k of a sequence of shuffled passes
    over all examples, with cut, augmentation and caption drawn from (seed, k).

    Args:
        source: whole examples.
        data: the recipe's part about them.
        scale: size of hq divided by size of lq.
        seed: of all draws.

    An example that cannot be read is skipped: the next one of the pass takes its place.
    """

    def __init__(self, source: ExampleSource, data: DataRecipe, *, scale: int, seed: int) -> None:
        self.source, self.data, self.scale, self.seed = source, data, scale, seed
        self.passes = ShuffledPasses(source.sizes, data.shuffle_window, seed)
        self._cached: dict[int, WholeExample] = {}
        if data.cache:
            for index in range(len(self)):
                try:
                    self._cached[index] = source.read(index)
                except BIRError:
                    continue  # met again, and counted, when its turn comes

    def __len__(self) -> int:
        return self.passes.count

    def __getitem__(self, position: int) -> Example:
        number, place = divmod(position, len(self))
        skipped: list[str] = []
        for shift in range(min(len(self), UNREADABLE_IN_A_ROW)):
            index = self.passes.example_at(number, (place + shift) % len(self))
            try:
                whole = self._read(index)
            except BIRError as error:
                skipped.append(self.source.name(index))
                reason = error
                continue
            return self._cut(whole, index, position, tuple(skipped))
        raise BIRError(
            f"Expected readable pictures to train on, but none of {len(skipped)} can be used; "
            f"the last reason: {reason}"
        )

    def _read(self, index: int) -> WholeExample:
        kept = self._cached.get(index)
        return self.source.read(index) if kept is None else kept

    def _cut(
        self, whole: WholeExample, index: int, position: int, skipped: tuple[str, ...]
    ) -> Example:
        side = self.data.source_patch or self.data.patch
        draws = generator_for(self.seed, CUT, position)
        lq = whole.lq
        if lq is None:
            hq = cut_picture(whole.hq, side, self.data.crop, self.data.augmentation, draws)
        else:
            self._require_fit(whole.hq, lq, index)
            hq, lq = cut_pair(whole.hq, lq, side, self.scale, self.data.augmentation, draws)
        draws = generator_for(self.seed, CAPTION, position)
        return Example(hq, lq, draw_caption(whole.captions, self.data.captions, draws), skipped)

    def _require_fit(self, hq: Tensor, lq: Tensor, index: int) -> None:
        expected = (hq.shape[1] // self.scale, hq.shape[2] // self.scale)
        if tuple(lq.shape[1:]) != expected:
            raise BIRError(
                f"Expected {expected[1]} x {expected[0]} pixels in the low-quality picture of "
                f"{self.source.name(index)}, but it has {lq.shape[2]} x {lq.shape[1]}; make it "
                "again from its partner."
            )
