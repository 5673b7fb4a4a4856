"""The files of a DiffBIR together: a small picture through both stages in few steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..checkpoints.loading import origin_of
from ..diffbir.pipeline import DiffBIR
from ..diffbir.prompts import encode_prompts
from ..diffbir.restoration_modules import IMAGE_TO_IMAGE, load_restoration_module
from ..diffbir.runs import Request
from ..diffbir.settings import DiffBIRSettings, official_settings
from ..diffbir.versions import (
    DEFAULT_VERSION,
    Task,
    find_version,
    official_module,
)
from ..diffbir.which_version import possible_versions, versions_of_file
from ..diffusion.denoisers import Parameterization
from ..diffusion.sampling import SAMPLERS
from ..errors import BIRError
from ..images import resize
from ..memory import CPU
from ..networks.text_encoder import TextEncoder
from .carrying_out import Trialled, carry_out
from .files import Part
from .trials import SPANDREL, Findings, compared, sample_picture

STEPS = 5
UPSCALE = 4
WITHOUT_TORCHSDE = "spaced"
NEEDED = {
    "sd_unet": "the UNet of the base",
    "sd_vae": "its VAE",
    "text_encoder": "its text encoder",
    "ir_controlnet": "an IRControlNet",
}
STAGE1 = "stage1"


@dataclass(frozen=True)
class Conditions:
    """Under which files are checked.

    Attributes:
        dtype: of UNet, IRControlNet and DiffIR; the others stay in float32, as in DiffBIR.
        side: of the pipeline's result in pixels, a multiple of 64.
        version: of DiffBIR; None for what the files say.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    side: int = 256
    version: str | None = None


@dataclass(frozen=True)
class Found:
    """A network that loaded and ran.

    Attributes:
        architecture: as in `TRIALS`.
        predicts: of a UNet, what its trial says; None where that is not clear.
        inpainting: whether it needs a mask.
    """

    architecture: str
    part: Part
    predicts: Parameterization | None = None
    inpainting: bool = False


@dataclass(frozen=True)
class PipelineCheck:
    """How networks of several files did together.

    Attributes:
        version: of DiffBIR, and how it was known.
        files: names by the part that they play.
        lacking: what was not among the files, in words; nothing was run if there is any.
    """

    version: str
    version_source: str
    files: Mapping[str, str]
    lacking: tuple[str, ...]
    trialled: Trialled


def check_pipelines(found: Sequence[Found], conditions: Conditions) -> tuple[PipelineCheck, ...]:
    """One pipeline for each IRControlNet, with the first of every other network."""
    first: dict[str, Found] = {}
    for each in reversed(found):
        first[_role(each)] = each
    first.pop("", None)
    controls = [each for each in found if each.architecture == "ir_controlnet"]
    return tuple(_check({**first, "ir_controlnet": each}, conditions) for each in controls)


def _role(found: Found) -> str:
    if found.architecture in NEEDED:
        return found.architecture
    restores = found.architecture in (*IMAGE_TO_IMAGE, SPANDREL) and not found.inpainting
    return STAGE1 if restores else ""


def _check(found: Mapping[str, Found], conditions: Conditions) -> PipelineCheck:
    predicts = found["sd_unet"].predicts if "sd_unet" in found else None
    version, source = _version(found["ir_controlnet"].part, predicts, conditions)
    lacking = tuple(what for name, what in NEEDED.items() if name not in found)
    trialled = Trialled()
    if not lacking:
        parts = {role: each.part for role, each in found.items()}

        def hide(text: str) -> str:
            for part in parts.values():
                text = part.hide(text)
            return text

        paths = {role: part.path for role, part in parts.items()}
        trialled = carry_out(
            lambda: _load(paths, version, conditions),
            lambda loaded: _run(*loaded, conditions),
            conditions.device,
            hide,
        )
        doubt = _doubt_on_base(version, predicts)
        trialled = replace(trialled, doubts=(*trialled.doubts, *doubt))
    return PipelineCheck(
        version=version,
        version_source=source,
        files={role: found[role].part.name for role in (*NEEDED, STAGE1) if role in found},
        lacking=lacking,
        trialled=trialled,
    )


def _version(
    control: Part, predicts: Parameterization | None, conditions: Conditions
) -> tuple[str, str]:
    """The version of DiffBIR, and how it is known."""
    if conditions.version is not None:
        return conditions.version, "as asked for"
    origin = origin_of(control.path, "ir_controlnet")
    possible = possible_versions(origin, predicts) or versions_of_file(origin)
    if len(possible) == 1:
        return possible[0], "by the files"
    assumed = DEFAULT_VERSION if DEFAULT_VERSION in possible else possible[-1]
    return assumed, "assumed, the files do not say it"


def _doubt_on_base(version: str, predicts: Parameterization | None) -> tuple[str, ...]:
    wanted = find_version(version).parameterization
    if predicts in (None, wanted):
        return ()
    return (
        f"DiffBIR {version} should have a base that predicts {wanted}, but this one seems to "
        f"predict {predicts}; choose the base of this version, or name another by --version.",
    )


def _load(
    paths: Mapping[str, Path], version: str, conditions: Conditions
) -> tuple[DiffBIR, Task, list[Tensor], str]:
    """The pipeline with its task, the embeddings of both prompts, and which prompts they are."""
    device, dtype = conditions.device, conditions.dtype
    encoder = cast(
        TextEncoder, load_model(paths["text_encoder"], architecture="text_encoder", device=device)
    )
    which = "the authors'"
    try:
        embeddings = encode_prompts(encoder, find_version(version).prompts)
    except BIRError:
        # The tokenizer cannot be used; of a damaged encoder this says the same again.
        embeddings, which = encode_prompts(encoder, ["", ""]), "empty, without open_clip"
    del encoder
    module = load_restoration_module(paths[STAGE1], device=device) if STAGE1 in paths else None
    pipeline = DiffBIR(
        sd_unet=load_model(paths["sd_unet"], architecture="sd_unet", device=device, dtype=dtype),
        ir_controlnet=load_model(
            paths["ir_controlnet"], architecture="ir_controlnet", device=device, dtype=dtype
        ),
        sd_vae=load_model(paths["sd_vae"], architecture="sd_vae", device=device),
        stage1=module,
        version=version,
        device=device,
    )
    name = "" if module is None else module.name
    return pipeline, task_of_module(name, version), [embeddings[:1], embeddings[1:]], which


def task_of_module(name: str, version: str) -> Task:
    """The first task of a version for which the authors take this network in stage 1; sr for any
    other network."""
    tasks: tuple[Task, ...] = get_args(Task)
    official = {task: official_module(task, version).name.lower() for task in tasks}
    return next((task for task in tasks if official[task] == name.lower()), "sr")


def quick_settings(version: str) -> DiffBIRSettings:
    """The authors' settings in few steps, without the colour fix, which would bring any result
    near to the picture of stage 1."""
    settings = official_settings(version)
    sampler = settings.sampler
    if SAMPLERS[sampler].brownian and find_spec("torchsde") is None:
        sampler = WITHOUT_TORCHSDE
    return replace(settings, steps=STEPS, sampler=sampler, color_fix="none", short_side=0)


def _run(
    pipeline: DiffBIR, task: Task, embeddings: list[Tensor], prompts: str, conditions: Conditions
) -> Findings:
    settings = quick_settings(pipeline.version)
    side = conditions.side // UPSCALE
    image = sample_picture(side, side).to(conditions.device)
    run = pipeline.decide(
        Request(height=side, width=side, task=task, upscale_by=UPSCALE, settings=settings)
    )
    stage1 = pipeline.remove_degradation(
        image, run, callback=lambda stage, done, total: None
    ).clamp(0, 1)
    result = pipeline(image, *embeddings, task=task, upscale_by=UPSCALE, settings=settings)
    enlarged = resize(image, *run.sizes.output).clamp(0, 1)
    first = compared(stage1, enlarged, "enlarged_input")
    findings = compared(result, stage1, "stage_1_picture")
    return Findings(
        {
            "task": task,
            "sampler": settings.sampler,
            "steps": settings.steps,
            "prompts": prompts,
            **{f"stage_1_{name}": value for name, value in first.numbers.items() if "_to_" in name},
            **findings.numbers,
        },
        findings.doubts,
    )
