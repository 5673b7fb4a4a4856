"""Training pairs. Every draw follows from the seed and a position, so that a training can be
resumed anywhere and does not depend on the number of reading processes.

Random numbers are counted in global micro-batches: micro-batch `a` of process `rank` in an
iteration is number `a * processes + rank`. Two processes thus see what one process sees with two
accumulated micro-batches.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import BIRError
from ..images import pad_to_multiple
from ..picture_files import list_pictures, read_picture
from .recipe import Augmentation, DataRecipe

# Streams of random numbers that must not depend on each other.
ORDER, CUT, DEGRADATION, NOISE, POOL, VALIDATION = range(6)


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator that belongs to these non-negative numbers, independent of all others."""
    words = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


@dataclass(frozen=True)
class Batch:
    """What a loss is computed of.

    Attributes:
        lq: (B, 3, h, w) float32 in [0, 1].
        hq: (B, 3, h * scale, w * scale).
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


@dataclass(frozen=True)
class PicturePair:
    """Files of one training example; `lq` is None where a degradation makes it."""

    hq: Path
    lq: Path | None = None


def find_pairs(
    folder: str | Path, data: DataRecipe, exclude: tuple[str, ...] = ()
) -> list[PicturePair]:
    """The training examples of a folder: its pictures, or those of its subfolders `lq` and `hq` if
    the recipe trains on pairs; subfolders of these are searched as well.

    Args:
        exclude: file names to leave out.

    Raises:
        BIRError: folder or pictures absent, a name without its partner, a name in `exclude` that
            is not there.
    """
    folder = Path(folder)
    if data.degradation != "pairs":
        pairs = [PicturePair(path) for path in list_pictures(folder, recursive=True)]
    else:
        hq_root, lq_root = folder / "hq", folder / "lq"
        partners = {
            path.relative_to(lq_root).with_suffix(""): path
            for path in list_pictures(lq_root, recursive=True)
        }
        pairs = []
        for path in list_pictures(hq_root, recursive=True):
            name = path.relative_to(hq_root).with_suffix("")
            if name not in partners:
                raise BIRError(
                    f"Expected a picture {name} in {lq_root} for {path}, but found none; "
                    "give both pictures of a pair the same name."
                )
            pairs.append(PicturePair(path, partners[name]))
    absent = set(exclude) - {pair.hq.name for pair in pairs}
    if absent:
        raise BIRError(
            f"Expected the held-out picture {min(absent)} in {folder}, but it is not there; "
            "use the recipe's data folder, or change validation.held_out."
        )
    kept = [pair for pair in pairs if pair.hq.name not in exclude]
    if not kept:
        raise BIRError(
            f"Expected pictures to train on in {folder}, but all are held out; add pictures."
        )
    return kept


def read_training_picture(path: Path) -> Tensor:
    """(3, H, W): uint8 if the file has 8 bits, else float32 in [0, 1]. Errors as `read_picture`."""
    picture = read_picture(path)
    image = picture.image[0]
    return (image * 255).round().to(torch.uint8) if picture.bits == 8 else image


def to_float(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float stays."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


@dataclass(frozen=True)
class Example:
    """One cut and augmented example, and the unreadable files that were met on the way to it."""

    hq: Tensor
    lq: Tensor | None
    caption: str = ""
    skipped: tuple[str, ...] = ()


class PictureDataset(Dataset[Example]):
    """Random cuts of pictures by position: position k is picture k of a sequence of shuffled passes
    over all pictures, with cut and augmentation drawn from (seed, k).

    Args:
        pairs: the files.
        patch: side of the cut in pixels of hq; smaller pictures are continued by reflection.
        scale: size of hq divided by size of lq.
        augmentation: see `DataRecipe`.
        seed: of all draws.
        cache: read all files now and keep them as 8-bit values.

    A file that cannot be read is skipped: the next one of the pass takes its place.
    """

    def __init__(
        self,
        pairs: list[PicturePair],
        *,
        patch: int,
        scale: int,
        augmentation: Augmentation,
        seed: int,
        cache: bool = False,
    ) -> None:
        self.pairs = pairs
        self.patch = patch
        self.scale = scale
        self.augmentation = augmentation
        self.seed = seed
        self._pass: tuple[int, list[int]] = (-1, [])
        self._cached: dict[int, tuple[Tensor, Tensor | None]] | None = None
        if cache:
            self._cached = {}
            for index in range(len(pairs)):
                try:
                    self._cached[index] = self._read(index)
                except BIRError:
                    continue  # met again, and counted, when its turn comes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> Example:
        skipped: list[str] = []
        for shift in range(len(self.pairs)):
            index = self._picture_at(position, shift)
            try:
                hq, lq = self._cached[index] if self._cached is not None else self._read(index)
            except (BIRError, KeyError):
                skipped.append(self.pairs[index].hq.name)
                continue
            if lq is not None:
                self._require_fit(hq, lq, self.pairs[index])
            hq, lq = self._cut(hq, lq, generator_for(self.seed, CUT, position))
            return Example(hq, lq, skipped=tuple(skipped))
        raise BIRError(
            f"Expected readable pictures to train on, but none of {len(self.pairs)} can be "
            f"decoded, {self.pairs[0].hq} for example; get them again."
        )

    def _read(self, index: int) -> tuple[Tensor, Tensor | None]:
        pair = self.pairs[index]
        hq = read_training_picture(pair.hq)
        return hq, None if pair.lq is None else read_training_picture(pair.lq)

    def _require_fit(self, hq: Tensor, lq: Tensor, pair: PicturePair) -> None:
        expected = (hq.shape[1] // self.scale, hq.shape[2] // self.scale)
        if tuple(lq.shape[1:]) != expected:
            raise BIRError(
                f"Expected {expected[1]} x {expected[0]} pixels in {pair.lq}, but it has "
                f"{lq.shape[2]} x {lq.shape[1]}; make it again from its partner."
            )

    def _picture_at(self, position: int, shift: int) -> int:
        number, place = divmod(position, len(self.pairs))
        if self._pass[0] != number:
            order = torch.randperm(
                len(self.pairs), generator=generator_for(self.seed, ORDER, number)
            )
            self._pass = (number, order.tolist())
        return self._pass[1][(place + shift) % len(self.pairs)]

    def _cut(
        self, hq: Tensor, lq: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        side = self.patch // self.scale
        rows, columns = hq.shape[1] // self.scale, hq.shape[2] // self.scale
        step = self.scale if lq is not None else 1  # pairs are cut on the grid of lq
        if lq is None:
            side, rows, columns = self.patch, hq.shape[1], hq.shape[2]
        top = _draw_integer(max(rows - side, 0) + 1, generator)
        left = _draw_integer(max(columns - side, 0) + 1, generator)
        turn = draw_turn(self.augmentation, generator)
        hq = _window(hq, top * step, left * step, self.patch)
        return turn(to_float(hq)), None if lq is None else turn(
            to_float(_window(lq, top, left, side))
        )


def _draw_integer(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def _window(image: Tensor, top: int, left: int, side: int) -> Tensor:
    part = image[:, top : top + side, left : left + side]
    return pad_to_multiple(part[None], side)[0]


def draw_turn(augmentation: Augmentation, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Draw a flip or turn; the result applies it to an image (3, H, W)."""
    flip_columns, flip_rows, transpose = (torch.rand(3, generator=generator) < 0.5).tolist()
    flip_columns = flip_columns and augmentation != "none"
    flip_rows = flip_rows and augmentation == "dihedral"
    transpose = transpose and augmentation == "dihedral"

    def turn(image: Tensor) -> Tensor:
        axes = [axis for axis, flipped in ((1, flip_rows), (2, flip_columns)) if flipped]
        image = image.flip(axes) if axes else image
        return (image.transpose(1, 2) if transpose else image).contiguous()

    return turn


class PairPool:
    """Pairs of the last batches with their captions, of which each batch takes a random part, so
    that it mixes draws that a degradation makes once for each batch. While it fills, batches pass
    through."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lq: list[Tensor] = []
        self.hq: list[Tensor] = []
        self.captions: list[str] = []

    def exchange(
        self, lq: Tensor, hq: Tensor, captions: tuple[str, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Put a batch in, get one of the same size out."""
        if len(self.lq) < self.size:
            self.lq.extend(lq.unbind())
            self.hq.extend(hq.unbind())
            self.captions.extend(captions)
            return lq, hq, captions
        chosen = torch.randperm(self.size, generator=generator)[: len(lq)].tolist()
        out = (
            torch.stack([self.lq[i] for i in chosen]),
            torch.stack([self.hq[i] for i in chosen]),
            tuple(self.captions[i] for i in chosen),
        )
        for place, slot in enumerate(chosen):
            self.lq[slot], self.hq[slot] = lq[place], hq[place]
            self.captions[slot] = captions[place]
        return out

    def state(self) -> dict[str, Tensor]:
        """Its pairs, on the CPU, and the captions as the bytes of a JSON list; empty while it holds
        none."""
        if not self.lq:
            return {}
        return {
            "lq": torch.stack(self.lq).cpu(),
            "hq": torch.stack(self.hq).cpu(),
            "captions": torch.tensor(list(json.dumps(self.captions).encode()), dtype=torch.uint8),
        }

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Take the pairs of `state`."""
        self.lq = list(state["lq"].to(device).unbind()) if state else []
        self.hq = list(state["hq"].to(device).unbind()) if state else []
        self.captions = json.loads(bytes(state["captions"].tolist())) if state else []


def paired_crop(
    lq: Tensor, hq: Tensor, patch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One random window, the same for the whole batch; `patch` in pixels of hq (B, 3, H, W)."""
    scale = hq.shape[-1] // lq.shape[-1]
    side = patch // scale
    if lq.shape[-2] == lq.shape[-1] == side:
        return lq, hq
    top = _draw_integer(lq.shape[-2] - side + 1, generator)
    left = _draw_integer(lq.shape[-1] - side + 1, generator)
    lq = lq[..., top : top + side, left : left + side]
    top, left = top * scale, left * scale
    return lq.contiguous(), hq[..., top : top + patch, left : left + patch].contiguous()


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
        skipped: names of files that could not be read so far.
    """

    dataset: PictureDataset
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
            collate_fn=list,
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

    def _batch(self, examples: list[Example], iteration: int, number: int) -> Batch:
        for example in examples:
            self.skipped.update(example.skipped)
        hq = torch.stack([example.hq for example in examples]).to(self.device)
        generator = generator_for(self.seed, DEGRADATION, number)
        if self.degrade is not None:
            lq, hq = self.degrade(hq, generator)
        else:
            lq = torch.stack([e.lq for e in examples if e.lq is not None]).to(self.device)
        lq, hq = paired_crop(lq, hq, self.data.patch, generator)
        captions = tuple(example.caption for example in examples)
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


def _next(examples: Iterator[list[Example]]) -> list[Example]:
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
