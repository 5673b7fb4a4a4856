"""Where pictures to measure come from: a model run on pairs, or folders of results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..checkpoints.loading import networks_of
from ..degradations import degrade, get_preset
from ..diffbir.restoration_modules import load_restoration_module
from ..errors import BIRError
from ..images import resize
from ..methods import METHODS, RestoreSeeded
from ..pictures.files import list_pictures, read_picture
from ..seeds import image_generator, image_seed
from .measuring import Sample

# Told of a picture that cannot be used, and why; the others go on.
OnFailure = Callable[[Path, BIRError], None]


def raise_failure(path: Path, error: BIRError) -> None:
    """An `OnFailure` that lets no picture fail."""
    raise error


@dataclass(frozen=True)
class Model:
    """A network to measure.

    Attributes:
        restore: (low-quality picture (1, 3, h, w) in [0, 1], seed) -> (1, 3, h scale, w scale).
    """

    restore: RestoreSeeded
    scale: int


def load(source: str | Path, device: torch.device, dtype: torch.dtype) -> Model:
    """Load a network of a method, or in float32 any other that stage 1 of DiffBIR can be.

    Raises:
        BIRError: unreadable, of another kind, for inpainting, or another format than float32 for a
            network that no method has.
    """
    held = {row.name for row in networks_of(source)}
    for method in METHODS.values():
        for name in method.networks.keys() & held:
            network = load_model(source, architecture=name, device=device, dtype=dtype)
            return Model(*method.networks[name](network, str(source)))
    if dtype != torch.float32:
        raise BIRError(
            f"Expected float32 for {source}, which is no network of a method ("
            f"{', '.join(METHODS)}), but {dtype} came; leave --dtype out."
        )
    module = load_restoration_module(source, device=device)
    return Model(lambda lq, seed: module.restore(lq), module.scale)


@dataclass(frozen=True)
class Pair:
    """A low-quality picture (1, 3, h, w) and its original (1, 3, h scale, w scale), in [0, 1]."""

    name: str
    lq: Tensor
    hq: Tensor


def degraded_pairs(
    originals: Sequence[Path],
    preset: str,
    *,
    scale: int,
    multiple: int,
    seed: int,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Pair]:
    """Degrade originals, cut to multiples of `multiple`; picture i is drawn with seed + i.

    Raises:
        BIRError: an unknown preset.
    """
    parameters = get_preset(preset)
    for index, path in enumerate(originals):
        generator = image_generator(seed, index)
        try:
            hq = _cut(read_picture(path).image, multiple)
            degraded = degrade(hq, parameters, generator=generator, scale=scale)
        except BIRError as error:
            on_failure(path, error)
            continue
        yield Pair(path.name, degraded.lq, degraded.hq)


def folder_pairs(
    originals: Sequence[Path],
    lq_folder: Path,
    *,
    scale: int,
    multiple: int,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Pair]:
    """Find low-quality pictures named like the originals, which are cut to multiples of `multiple`.
    A picture fails if it has no partner, or one of a size that does not fit.

    Raises:
        BIRError: no low-quality pictures, or two of one name.
    """
    low = by_stem(lq_folder)
    for path in originals:
        try:
            lq, hq = _read_pair(path, _partner(path, low, lq_folder), scale, multiple)
        except BIRError as error:
            on_failure(path, error)
            continue
        yield Pair(path.name, lq, hq)


def _read_pair(path: Path, lq_path: Path, scale: int, multiple: int) -> tuple[Tensor, Tensor]:
    lq = read_picture(lq_path).image
    hq = _cut(read_picture(path).image, multiple)
    height, width = lq.shape[-2] * scale, lq.shape[-1] * scale
    if tuple(hq.shape[-2:]) != (height, width):
        raise BIRError(
            f"Expected {path} to be {width}x{height}, {scale} times {lq_path.name}, but it is "
            f"{_size(hq)}; choose a model of another scale or cut it by --multiple."
        )
    return lq, hq


def model_samples(
    pairs: Iterator[Pair], models: dict[str, Model], *, device: torch.device, seed: int
) -> Iterator[Sample]:
    """Restore pairs with models of one scale; picture i with seed + i. The baseline is the bicubic
    enlargement, or the input itself where the size stays."""
    for index, pair in enumerate(pairs):
        lq = pair.lq.to(device)
        restored = {"input": lq}
        if lq.shape != pair.hq.shape:
            restored = {"bicubic": resize(lq, *pair.hq.shape[-2:])}
        for name, model in models.items():
            restored[name] = model.restore(lq, image_seed(seed, index))
        yield Sample(pair.name, restored, pair.hq)


def result_samples(
    folders: Sequence[Path],
    hq_folder: Path | None,
    *,
    multiple: int,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Sample]:
    """Read results, from one or more folders, and the originals of the same names, cut to multiples
    of `multiple`. All folders hold the same pictures. A picture fails if one of them cannot be read
    or is of another size.

    Raises:
        BIRError: a picture without its partner in another folder.
    """
    results = {folder: by_stem(folder) for folder in folders}
    every = {**results, **({} if hq_folder is None else {hq_folder: by_stem(hq_folder)})}
    for pictures in every.values():
        for folder, others in every.items():
            for path in pictures.values():
                _partner(path, others, folder)
    for stem, path in next(iter(results.values())).items():
        original = None if hq_folder is None else every[hq_folder][stem]
        own = {str(folder): pictures[stem] for folder, pictures in results.items()}
        try:
            sample = _read_results(path.name, own, original, multiple)
        except BIRError as error:
            on_failure(path, error)
            continue
        yield sample


def _read_results(
    name: str, results: dict[str, Path], original: Path | None, multiple: int
) -> Sample:
    hq = None if original is None else _cut(read_picture(original).image, multiple)
    restored = {}
    for folder, path in results.items():
        image = read_picture(path).image
        if hq is not None and image.shape != hq.shape:
            raise BIRError(
                f"Expected {path} to be {_size(hq)} as its original, but it is "
                f"{_size(image)}; cut the original by --multiple or restore at its size."
            )
        restored[folder] = image
    return Sample(name, restored, hq)


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without suffixes.

    Raises:
        BIRError: no pictures, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in list_pictures(folder):
        if path.stem in found:
            raise BIRError(
                f"Expected one picture named {path.stem} in {folder}, but found "
                f"{found[path.stem].name} and {path.name}; remove one."
            )
        found[path.stem] = path
    return found


def _partner(path: Path, pictures: dict[str, Path], folder: Path) -> Path:
    if path.stem not in pictures:
        raise BIRError(
            f"Expected a picture named {path.stem} in {folder}, but found none; give all pictures "
            f"that belong to {path} the same name."
        )
    return pictures[path.stem]


def _cut(image: Tensor, multiple: int) -> Tensor:
    height, width = image.shape[-2:]
    return image[..., : height - height % multiple, : width - width % multiple]


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"
