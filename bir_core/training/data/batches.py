"""Batches of one process.

Random numbers are counted in global micro-batches: micro-batch `a` of process `rank` in an
iteration is number `a * processes + rank`. Two processes thus see what one process sees with two
accumulated micro-batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ...errors import BIRError
from ..recipe import DataRecipe
from .cuts import paired_crop
from .draws import DEGRADATION, NOISE, POOL, generator_for
from .examples import ExampleDataset, StackedExamples, stack
from .pictures import to_float
from .pool import PairPool

# (hq, generator on the CPU) -> (lq, hq), all on one device.
Degrade = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Batch:
    """What a loss is computed of.

    Attributes:
        lq: (B, 3, h, w) float32 in [0, 1]; for inpainting (B, 4, h, w), the last the mask.
        hq: (B, 3, h * scale, w * scale); (B, 6, ...) if the recipe keeps the picture as it was
            before the degradation sharpened it, behind the sharpened one; or what else the recipe's
            `target` is.
        generator: for the draws of the loss itself, on the CPU.
        captions: what each picture shows, "" where that is not known.
        micro_batches: how many of these an iteration has, those of all processes; gradients are
            averaged over them.
        iteration: to which it belongs, from 1.
        shared: what an update leaves for later ones on this micro-batch, by name.
    """

    lq: Tensor
    hq: Tensor
    generator: torch.Generator
    captions: tuple[str, ...] = ()
    micro_batches: int = 1
    iteration: int = 1
    shared: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class BatchSource:
    """The batches of one process.

    Attributes:
        dataset: where examples come from.
        data: the recipe's part about pairs.
        degrade: makes pairs of a batch, on the device or in the readers; None for pairs of files.
        device: where batches go.
        seed: of all draws.
        rank, processes: of this process.
        skipped: names of examples that could not be read so far.
    """

    dataset: ExampleDataset
    data: DataRecipe
    degrade: Degrade | None
    device: torch.device
    seed: int
    rank: int = 0
    processes: int = 1
    skipped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pool = PairPool(self.data.pool)

    def iterations(self, first: int, last: int) -> Iterator[list[Batch]]:
        """The micro-batches of each of the iterations first..last, both included, from 1."""
        reader = MicroBatchReader(
            self.dataset, self.data, self.degrade if self.readers_degrade else None, self.seed
        )
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=MicroBatchNumbers(self, first, last),
            num_workers=self.data.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # keeps the loader off the global random state
        )
        examples = iter(loader)
        for iteration in range(first, last + 1):
            yield [
                self._batch(_next(examples), iteration, self.micro_batch_number(iteration, part))
                for part in range(self.data.accumulate)
            ]

    @property
    def readers_degrade(self) -> bool:
        """Whether the processes that read pictures also make the low-quality ones of them."""
        return self.data.degrade_on == "worker" or self.device.type == "cpu"

    def micro_batch_number(self, iteration: int, part: int) -> int:
        """Number of this process's micro-batch `part` of an iteration, among those of all."""
        done = (iteration - 1) * self.data.accumulate
        return (done + part) * self.processes + self.rank

    def _batch(self, examples: StackedExamples, iteration: int, number: int) -> Batch:
        self.skipped.update(examples.skipped)
        hq = self._on_device(examples.hq)
        generator = torch.Generator()
        generator.set_state(examples.random_state)
        if examples.lq is not None:
            lq = self._on_device(examples.lq)
        else:
            assert self.degrade is not None  # pairs without lq come with a degradation
            lq, hq = self.degrade(hq, generator)
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
            iteration=iteration,
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


class MicroBatchReader(Dataset[StackedExamples]):
    """The examples of a micro-batch by its number, which all its draws follow from.

    Args:
        degrade: makes lq here; None where lq is a file, or made on the device.
    """

    def __init__(
        self, dataset: ExampleDataset, data: DataRecipe, degrade: Degrade | None, seed: int
    ) -> None:
        self.dataset, self.data, self.degrade, self.seed = dataset, data, degrade, seed

    def __getitem__(self, number: int) -> StackedExamples:
        size = self.data.batch
        examples = [self.dataset[number * size + place] for place in range(size)]
        generator = generator_for(self.seed, DEGRADATION, number)
        stacked = stack(examples, generator.get_state())
        if self.degrade is None:
            return stacked
        lq, hq = self.degrade(to_float(stacked.hq), generator)
        return stacked._replace(lq=lq, hq=hq, random_state=generator.get_state())


class MicroBatchNumbers(Sampler[int]):
    """The numbers of a process's micro-batches."""

    def __init__(self, source: BatchSource, first: int, last: int) -> None:
        self.source, self.first, self.last = source, first, last

    def __iter__(self) -> Iterator[int]:
        for iteration in range(self.first, self.last + 1):
            for part in range(self.source.data.accumulate):
                yield self.source.micro_batch_number(iteration, part)

    def __len__(self) -> int:
        return (self.last - self.first + 1) * self.source.data.accumulate
