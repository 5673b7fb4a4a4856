"""Batches of one process.

Random numbers are counted in global micro-batches: micro-batch `a` of process `rank` in an
iteration is number `a * processes + rank`. Two processes thus see what one process sees with two
accumulated micro-batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ...errors import BIRError
from ..recipe import DataRecipe
from .cuts import paired_crop
from .draws import DEGRADATION, NOISE, POOL, generator_for
from .examples import ExampleDataset, StackedExamples, stack
from .pictures import to_float
from .pool import PairPool


@dataclass(frozen=True)
class Batch:
    """What a loss is computed of.

    Attributes:
        lq: (B, 3, h, w) float32 in [0, 1]; for inpainting (B, 4, h, w), the last the mask.
        hq: (B, 3, h * scale, w * scale); (B, 6, ...) if the recipe keeps the picture as it was
            before the degradation sharpened it, behind the sharpened one.
        generator: for the draws of the loss itself, on the CPU.
        captions: what each picture shows, "" where that is not known.
        micro_batches: how many of these an iteration has, those of all processes; gradients are
            averaged over them.
        shared: what an update leaves for later ones on this micro-batch, by name.
    """

    lq: Tensor
    hq: Tensor
    generator: torch.Generator
    captions: tuple[str, ...] = ()
    micro_batches: int = 1
    shared: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class BatchSource:
    """The batches of one process.

    Attributes:
        dataset: where examples come from.
        data: the recipe's part about pairs.
        degrade: (hq, generator) -> (lq, hq) for a batch on the device; None for pairs of files.
        device: where batches go.
        seed: of all draws.
        rank, processes: of this process.
        skipped: names of examples that could not be read so far.
    """

    dataset: ExampleDataset
    data: DataRecipe
    degrade: Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]] | None
    device: torch.device
    seed: int
    rank: int = 0
    processes: int = 1
    skipped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pool = PairPool(self.data.pool)

    def iterations(self, first: int, last: int) -> Iterator[list[Batch]]:
        """The micro-batches of each of the iterations first..last, both included, from 1."""
        numbers = MicroBatches(self, first, last)
        loader = DataLoader(
            self.dataset,
            batch_sampler=numbers,
            num_workers=self.data.workers,
            collate_fn=stack,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # keeps the loader off the global random state
        )
        examples = iter(loader)
        for iteration in range(first, last + 1):
            yield [
                self._batch(_next(examples), iteration, self.micro_batch_number(iteration, part))
                for part in range(self.data.accumulate)
            ]

    def micro_batch_number(self, iteration: int, part: int) -> int:
        """Number of this process's micro-batch `part` of an iteration, among those of all."""
        done = (iteration - 1) * self.data.accumulate
        return (done + part) * self.processes + self.rank

    def _batch(self, examples: StackedExamples, iteration: int, number: int) -> Batch:
        self.skipped.update(examples.skipped)
        hq = self._on_device(examples.hq)
        generator = generator_for(self.seed, DEGRADATION, number)
        if self.degrade is not None:
            lq, hq = self.degrade(hq, generator)
        else:
            assert examples.lq is not None  # pairs of files
            lq = self._on_device(examples.lq)
        lq, hq = paired_crop(lq, hq, self.data.patch, generator)
        captions = tuple(examples.captions)  # pinning memory makes lists of tuples
        if self.data.pool:
            draws = generator_for(self.seed, POOL, number)
            lq, hq, captions = self.pool.exchange(lq, hq, captions, draws)
        stage = self.data.stage_at(iteration)
        if stage is not None:
            chosen = torch.randperm(len(lq), generator=generator)[: stage.batch].to(lq.device)
            lq, hq = paired_crop(lq[chosen], hq[chosen], stage.patch, generator)
            captions = tuple(captions[index] for index in chosen.tolist())
        return Batch(
            lq,
            hq,
            generator_for(self.seed, NOISE, number),
            captions,
            micro_batches=self.data.accumulate * self.processes,
        )

    def _on_device(self, images: Tensor) -> Tensor:
        """Float in [0, 1]; 8-bit pictures are copied as such, which is faster."""
        return to_float(images.to(self.device, non_blocking=True))


def _next(examples: Iterator[StackedExamples]) -> StackedExamples:
    try:
        return next(examples)
    except BIRError as error:
        # From a reading process the sentence comes as the last line of a traceback.
        sentence = str(error).strip().splitlines()[-1]
        raise BIRError(sentence.removeprefix(f"{BIRError.__module__}.BIRError: ")) from error


class MicroBatches(Sampler[list[int]]):
    """The positions of the examples of each of a process's micro-batches."""

    def __init__(self, source: BatchSource, first: int, last: int) -> None:
        self.source, self.first, self.last = source, first, last

    def __iter__(self) -> Iterator[list[int]]:
        size = self.source.data.batch
        for iteration in range(self.first, self.last + 1):
            for part in range(self.source.data.accumulate):
                number = self.source.micro_batch_number(iteration, part)
                yield list(range(number * size, (number + 1) * size))

    def __len__(self) -> int:
        return (self.last - self.first + 1) * self.source.data.accumulate
