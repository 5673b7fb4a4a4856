"""`bir restore --auto`: for each picture, what is to be done by what is wrong with it."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import load_model
from ..choosing import Choice, carry_out, choose
from ..command_line.options import DTYPES
from ..diffbir import method as diffbir
from ..diffbir.fidelity import of_fidelity
from ..errors import BIRError
from ..estimate import estimate
from ..estimate.estimating import file_quality, load_estimator
from ..images import extend_opaque
from ..methods import Report, RestoreImage
from ..pictures.files import Picture
from .restore_options import AutoOptions, NetworkOptions, RestoreOptions

# What restores a picture, None for nothing; the enlargement; what was chosen and why, a line each.
Planned = tuple[RestoreImage | None, float, tuple[str, ...]]
# (picture, its file, its mask (1, 1, H, W) in [0, 1] or None, progress)
PlanPicture = Callable[[Picture, Path, Tensor | None, Report], Planned]
# (image (1, 3, H, W) in [0, 1], the file that it comes from)
PlanImage = Callable[[Tensor, Path], Planned]
# The version of DiffBIR that was trained with noise on the condition.
WITH_NOISE_AUG = "v2.1"


def prepare(options: RestoreOptions, auto: AutoOptions, device: torch.device) -> PlanPicture:
    """Load the network that looks at pictures; those that restore are loaded when they are needed.

    Raises:
        BIRError: files of DiffBIR that are not at hand.
    """
    plan_image = prepare_choice(options, auto, device)

    def plan(picture: Picture, source: Path, mask: Tensor | None, report: Report) -> Planned:
        return plan_image(extend_opaque(picture.image, picture.alpha), source)

    return plan


def prepare_choice(options: RestoreOptions, auto: AutoOptions, device: torch.device) -> PlanImage:
    """The same for images."""
    estimator = load_estimator()
    if options.method is None:
        restorer = _of_networks(options.of_method, device)
    else:
        restorer = _of_diffbir(options.of_method, auto, device)

    def plan(image: Tensor, source: Path) -> Planned:
        found = estimate(image, estimator, file_quality=file_quality(source))
        choice = choose(found, *image.shape[-2:], scale=auto.scale)
        if choice.is_nothing:
            return None, choice.scale, choice.reasons
        restore_image, why = restorer(choice)
        return restore_image, choice.scale, why

    return plan


def _of_networks(
    options: NetworkOptions, device: torch.device
) -> Callable[[Choice], tuple[RestoreImage, tuple[str, ...]]]:
    @cache  # the built-in networks take a few megabytes each
    def load(name: str) -> nn.Module:
        return load_model(name, device=device, dtype=DTYPES[options.dtype])

    def restore(choice: Choice, image: Tensor, mask: Tensor | None, report: Report) -> Tensor:
        return carry_out(image, choice, load, seed=options.seed, strip=options.strip, report=report)

    return lambda choice: (partial(restore, choice), choice.reasons)


def _of_diffbir(
    options: diffbir.DiffBIROptions, auto: AutoOptions, device: torch.device
) -> Callable[[Choice], tuple[RestoreImage, tuple[str, ...]]]:
    @lru_cache(maxsize=1)  # gigabytes
    def load(files: tuple[Path, Path, str]) -> diffbir.Loaded:
        base, controlnet, stage1 = files
        named = replace(options, base=base, controlnet=controlnet, stage1=stage1)
        return diffbir.load(named, device)

    usual = diffbir.files_of(options)

    def restorer(choice: Choice) -> tuple[RestoreImage, tuple[str, ...]]:
        why = choice.diffbir.reasons
        task, files = (options.task if auto.task else choice.diffbir.task), usual
        if task != options.task:
            try:
                files = diffbir.files_of(replace(options, task=task))
            except BIRError:
                why += (f"the task {options.task} instead, as the files of {task} are not at hand",)
                task = options.task
        loaded = load(files)
        chosen = {**asdict(of_fidelity(choice.diffbir.fidelity)), **options.settings}
        if loaded.version == WITH_NOISE_AUG:
            chosen.setdefault("noise_aug", choice.diffbir.noise_aug)
        asked = replace(options, task=task, upscale=choice.scale, settings=chosen)
        settings = asked.settings_of(loaded.version)
        why += (
            f"DiffBIR {loaded.version}, task {task}: strength {settings.strength:g}, guidance "
            f"{settings.guidance:g}, blending {settings.blending:g}, noise_aug "
            f"{settings.noise_aug}",
        )
        return loaded.restorer(asked), why

    return restorer
