"""What every training recipe has. Each method adds its own part, in its own file."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..degradations import Degraded
from ..networks.perceptual import AlexNet
from .optimizers import OptimizerRecipe
from .toml_tables import require

Augmentation = Literal["none", "hflip", "dihedral", "places"]
Crop = Literal["window", "center", "resized"]


@dataclass(frozen=True, kw_only=True)
class PatchStage:
    """A stretch of iterations with a patch and a batch of its own (progressive training)."""

    patch: int
    batch: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class CaptionRecipe:
    """Which caption of a picture a training step sees; one stands in for the other if only one is
    there.

    Attributes:
        long_probability: of the long caption instead of the short one.
        drop_probability: of no caption at all, so that the network learns to go without.
    """

    long_probability: float = 0.2
    drop_probability: float = 0.2

    def __post_init__(self) -> None:
        for probability in (self.long_probability, self.drop_probability):
            require(0 <= probability <= 1, "probabilities of captions in [0, 1]", probability)


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """A kind of damage, and how often it occurs.

    Attributes:
        preset: name of a preset, see `get_preset`.
        weight: share of the pictures that get it, among the weights of all parts.
        change: values that replace the preset's own, as a table of its fields: `noise_sigma`,
            `jpeg_quality`, `blur = { sigma = [0.2, 2.0] }`, `order`, ...
    """

    preset: str
    weight: float = 1.0
    change: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.weight >= 0, "`weight`s of the mixture of 0 or more", self.weight)


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Where pairs come from.

    Attributes:
        degradation: name of a preset that makes the low-quality picture from the clean one;
            "mixture": one of the parts of `mixture`, drawn for each picture; or "pairs": the data
            folder holds `lq` and `hq` with pictures of equal names.
        mixture: the parts, under names of one's own; in a file also the name of another recipe, or
            its file, whose parts they are.
        degrade_on: where the low-quality pictures are made. `device`: on that of the training; a
            GPU also draws the noise, which is then another than that of a CPU. `worker`: in the
            processes that read pictures, ahead of the training. On a CPU both give the same
            pictures; a training on a CPU always has it done by the workers.
        patch: side in pixels of the high-quality patches that the networks see.
        source_patch: side of the patch that is cut from the picture and degraded; a random paired
            crop of `patch` follows. 0: the same as `patch`.
        batch: pairs per process and micro-batch.
        accumulate: micro-batches per iteration, whose gradients are averaged.
        crop: which square of a picture is cut out. `window`: a random one of its pixels; `center`:
            the middle of the picture after its short side is resized to the patch; `resized`: a
            random window after the short side is resized to between 1 and 1/0.7 patches. The last
            two are those of DiffBIR's CodeFormer-type degradation, and not for pairs.
        augmentation: `hflip` (probability 0.5), `dihedral` (the eight flips and turns, uniform;
            also what two flips and a transposition, each with probability 0.5, amount to),
            `places` (bends, turns and recolours pictures, for inpainting; see `data/places.py`) or
            `none`.
        pool: pairs kept in a pool from which batches are drawn, so that a batch mixes degradations;
            0: no pool. A multiple of `batch`.
        progressive: stages that replace `patch` and `batch` from the first iteration on: a random
            subset of each batch and one common random crop of it. The last stage stays.
        workers: processes that read pictures; 0 reads in the training process.
        cache: decode all pictures once and keep them in memory as 8-bit values.
        shuffle_window: pictures of shards are shuffled among so many neighbours, after the shards
            themselves, so that only a few shards are read at a time; 0: among all. Other data, and
            no more pictures than this, are shuffled as a whole.
        captions: which captions are seen; None: none, every caption is "".
    """

    degradation: str
    mixture: dict[str, MixturePart] = field(default_factory=dict)
    degrade_on: Literal["device", "worker"] = "device"
    patch: int
    source_patch: int = 0
    batch: int
    accumulate: int = 1
    crop: Crop = "window"
    augmentation: Augmentation = "hflip"
    pool: int = 0
    progressive: tuple[PatchStage, ...] = ()
    workers: int = 0
    cache: bool = False
    shuffle_window: int = 100_000
    captions: CaptionRecipe | None = None

    def __post_init__(self) -> None:
        require(
            (self.degradation == "mixture") == any(part.weight for part in self.mixture.values()),
            'parts of a `mixture` with a weight above 0 for the degradation "mixture", none else',
            f"{self.degradation} with {len(self.mixture)} parts",
        )
        require(self.patch > 0, "a `patch` of at least 1 pixel", self.patch)
        require(
            self.source_patch == 0 or self.source_patch >= self.patch,
            f"a `source_patch` of 0 or at least `patch` = {self.patch}",
            self.source_patch,
        )
        require(self.batch > 0, "a `batch` of at least 1", self.batch)
        require(self.accumulate > 0, "an `accumulate` of at least 1", self.accumulate)
        require(
            self.pool >= 0 and self.pool % self.batch == 0,
            f"a `pool` that divides by `batch` = {self.batch}",
            self.pool,
        )
        require(self.workers >= 0, "0 or more `workers`", self.workers)
        require(self.shuffle_window >= 0, "a `shuffle_window` of 0 or more", self.shuffle_window)
        require(
            self.crop == "window" or self.degradation != "pairs",
            'the crop "window" for pairs, which must not be resized',
            self.crop,
        )
        require(
            self.augmentation != "places"
            or (self.crop == "window" and self.degradation != "pairs"),
            'the crop "window" and a degradation for the augmentation "places"',
            f"{self.crop}, {self.degradation}",
        )
        for stage in self.progressive:
            require(
                0 < stage.patch <= self.patch
                and 0 < stage.batch <= self.batch
                and stage.iterations > 0,
                f"progressive stages of at most patch {self.patch} and batch {self.batch}",
                stage,
            )

    def stage_at(self, iteration: int) -> PatchStage | None:
        """The progressive stage of an iteration (from 1), None where the recipe has no stages."""
        last = 0
        for stage in self.progressive:
            last += stage.iterations
            if iteration <= last:
                return stage
        return self.progressive[-1] if self.progressive else None


@dataclass(frozen=True, kw_only=True)
class ValidationRecipe:
    """PSNR, SSIM and, if it decides, LPIPS on held-out pictures during training.

    Attributes:
        every: iterations between two validations; 0: never.
        patch: side of the central crop of each picture, in pixels; 0: the whole picture.
        border: pixels that are left out on each side of what is measured.
        channel: `y` (BT.601 luma) or `rgb`; LPIPS is always that of RGB.
        held_out: file names in the training folder that are kept out of training and used for
            validation if no other folder is given; the log names those that are not there.
        held_out_share: the same for this share of the folder's pictures, whichever they are; 0: by
            `held_out`.
        held_out_most: how many pictures a share may be at most; more of them take time.
        pictures: how many of them TensorBoard shows: input, restored picture and original.
        best: the measure whose best mean decides which model is kept: the highest `psnr` or `ssim`,
            or the lowest `lpips` (AlexNet; `bir weights measures` fetches its weights).
    """

    every: int = 5000
    patch: int = 0
    border: int = 0
    channel: Literal["y", "rgb"] = "y"
    held_out: tuple[str, ...] = ()
    held_out_share: float = 0.0
    held_out_most: int = 16
    pictures: int = 4
    best: Literal["psnr", "ssim", "lpips"] = "psnr"

    def __post_init__(self) -> None:
        require(
            min(self.every, self.patch, self.border, self.pictures) >= 0,
            "`every`, `patch`, `border` and `pictures` of 0 or more",
            self,
        )
        require(0 <= self.held_out_share < 1, "a `held_out_share` in [0, 1)", self.held_out_share)
        require(self.held_out_most >= 1, "a `held_out_most` of 1 or more", self.held_out_most)
        require(
            not (self.held_out and self.held_out_share),
            "names that are `held_out` or a `held_out_share`, not both",
            self.held_out_share,
        )
        least = AlexNet.least_sides[-1] + 2 * self.border
        require(
            self.best != "lpips" or self.patch == 0 or self.patch >= least,
            f"a `patch` of validation of 0 or at least {least} pixels for LPIPS",
            self.patch,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """All that determines a training, but for the pictures and most files it starts from.

    Attributes:
        method: a name in the table of methods.
        iterations: optimiser steps in all, counted from 1.
        seed: of the network's initial weights and of every draw.
        start_from: model to go on from, a file or the name of a built-in one, where the files of
            the training name none; None: new weights.
        freeze: parts of the network that do not learn, by the names of the method.
        data: pairs, patches and batches.
        optimizer: of the network that is trained.
        ema: decay of the average of the weights that is saved as the model; 0: no average.
        precision: `fp32`, or `bf16` for mixed precision.
        tf32: let CUDA round the factors of float32 products to TF32.
        compile: let torch.compile make kernels for the network; needs a C++ compiler on a CPU.
        channels_last: lay the kernels of convolutions out with the channels last.
        checkpointing: keep only the inputs of the network's blocks for the backward pass and
            compute the rest again: less memory, a third more time, the same gradients.
        validation: held-out measurement.
        save_every: iterations between two saved states.
        save_minutes: minutes after which a state is saved all the same; 0: only by iterations.
        keep: how many of the last saved models stay as model_<iteration>.safetensors.
    """

    method: str
    iterations: int
    seed: int = 0
    start_from: str | None = None
    freeze: tuple[str, ...] = ()
    data: DataRecipe
    optimizer: OptimizerRecipe
    ema: float = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False
    compile: bool = False
    channels_last: bool = False
    checkpointing: bool = False
    validation: ValidationRecipe = ValidationRecipe()
    save_every: int = 5000
    save_minutes: float = 0.0
    keep: int = 0

    def __post_init__(self) -> None:
        require(self.iterations > 0, "`iterations` of at least 1", self.iterations)
        require(0 <= self.ema < 1, "an `ema` decay in [0, 1)", self.ema)
        require(self.save_every > 0, "a `save_every` of at least 1", self.save_every)
        require(self.save_minutes >= 0, "`save_minutes` of 0 (off) or more", self.save_minutes)
        require(self.keep >= 0, "a number of models to `keep` of 0 or more", self.keep)
        multiple = self.size_multiple * self.scale
        for patch in (self.data.patch, *(stage.patch for stage in self.data.progressive)):
            require(
                patch % multiple == 0,
                f"patches that divide by {multiple} for this network",
                patch,
            )

    @property
    def keeps_unsharpened(self) -> bool:
        """Whether a batch's hq also has the picture as it was before the degradation sharpened it,
        as its last three channels."""
        return False

    def target(self, degraded: Degraded) -> Tensor:
        """(B, C, H, W), what a loss compares with, in a batch's `hq`: the clean picture."""
        if self.keeps_unsharpened and degraded.sharpened_from is not None:
            return torch.cat([degraded.hq, degraded.sharpened_from], dim=1)
        return degraded.hq

    @property
    @abstractmethod
    def scale(self) -> int:
        """Side of hq divided by side of lq."""

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Pixels by which the sides of lq must divide."""


class SizedNetwork(Protocol):
    """The configuration of a network that restores pictures."""

    @property
    def scale(self) -> int:
        """Output side divided by input side."""

    @property
    def size_multiple(self) -> int:
        """Pixels by which the sides of the input must divide."""


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    """A recipe that says the sizes of its network, from which those of the pairs follow.

    Attributes:
        network: sizes of the network.
    """

    network: SizedNetwork

    @property
    def scale(self) -> int:
        """Side of hq divided by side of lq."""
        return self.network.scale

    @property
    def size_multiple(self) -> int:
        """Pixels by which the sides of lq must divide."""
        return self.network.size_multiple
