"""DiffBIR as a method of the commands: its options, and what they make of a picture."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..checkpoints.loading import origin_of
from ..command_line.options import DTYPES, half_precision
from ..diffusion.noise import require_brownian_noise
from ..diffusion.sampling import SAMPLERS
from ..errors import BIRError
from ..exact_vae.mapped_files import files_folder, free_disk
from ..faces.alignment import FACE_SIZE
from ..faces.pipeline import require_photo_version
from ..memory import CPU, MemoryPlan, free_memory, visiting
from ..networks.text_encoder import TextEncoder
from . import pipeline as pipeline_module
from . import which_version
from .compiling import require_backend
from .face_options import UNALIGNED_FACE, FaceOptions, load_face_networks, photo_restorer
from .masks import Painted, mask_values
from .memory_plan import PLENTY, plan_diffbir
from .networks import DiffBIRNetworks, official_networks
from .official_files import find_files
from .piece import Piece, piece_at
from .pipeline import DiffBIR
from .prompts import encode_prompts, load_embedding
from .restoration_modules import load_restoration_module
from .settings import DiffBIRSettings, official_settings
from .stage1 import Stage1Sizes, stage1_sizes
from .stages import Callback
from .versions import DEFAULT_VERSION, Task, find_version, official_order

NO_STAGE1 = "none"
OF_FACE = "face: "  # before the names of the stages of a face in a whole photo


@dataclass(frozen=True, kw_only=True)
class DiffBIROptions:
    """What it is asked for.

    Attributes:
        base, vae, text_encoder, controlnet: files, or folders in the layout of diffusers; the VAE
            and the text encoder are those of the base where none is named.
        stage1: a file, or `NO_STAGE1`.
        version: None for the one that the files say, and in plans for the default one.
        task: as in `DiffBIR`, or unaligned_face.
        upscale: output by input side.
        prompt, negative: texts, instead of the authors', or files with their embeddings.
        settings: what differs from those of the version, see `DiffBIRSettings`.
        offload, compile: as in `DiffBIR`.
        maps_folder: the `folder` of `DiffBIR`.
        disk: bytes that files may take, to plan for; None for what is free in this folder.
        mask: a file, or a folder of them; `bir restore` reads them.
        try_crop: left, top and side in pixels of the result of the piece that is restored alone.
        painted: what is meant by white in it; None for "keep".
        faces: for the task unaligned_face.
        models: folder in which files that are not named are looked for by the authors' names.
        seed: of each picture.
        dtype: a name of `DTYPES`, for UNet and IRControlNet.
    """

    base: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    controlnet: Path | None = None
    stage1: str | None = None
    version: str | None = None
    task: str = "sr"
    upscale: float = 4.0
    prompt: str | None = None
    prompt_embedding: Path | None = None
    negative: str | None = None
    negative_embedding: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    offload: bool = False
    compile: str | None = None
    maps_folder: Path | None = None
    disk: int | None = None
    mask: Path | None = None
    painted: Painted | None = None
    try_crop: tuple[int, int, int] | None = None
    faces: FaceOptions = FaceOptions()
    models: Path | None = None
    seed: int = 0
    dtype: str = "float32"

    def settings_of(self, version: str) -> DiffBIRSettings:
        """Those of a version with what was changed.

        Raises:
            BIRError: impossible ones.
        """
        return replace(official_settings(version), **self.settings)


# (picture (1, 3, H, W) in [0, 1], mask (1, 1, H, W) in [0, 1] or None, progress) -> the result
Restorer = Callable[[Tensor, Tensor | None, Callback], Tensor]


@dataclass(frozen=True)
class Loaded:
    """DiffBIR with its networks.

    Attributes:
        version: whose files they are.
        restorer: from options to what restores by them; these may have another task with the same
            files, and another enlargement, strength, guidance, blending or noise on the condition
            than those that it was loaded for.
    """

    version: str
    restorer: Callable[[DiffBIROptions], Restorer]


def prepare(options: DiffBIROptions, device: torch.device) -> tuple[Restorer, float]:
    """Load everything that the options name.

    Returns:
        What restores a picture; and output by input side.

    Raises:
        BIRError: as `load`.
    """
    return load(options, device).restorer(options), options.upscale


def load(options: DiffBIROptions, device: torch.device) -> Loaded:
    """Load everything that the options name.

    Raises:
        BIRError: a file that is missing, unreadable or of another kind, or impossible settings.
    """
    base, controlnet, stage1 = files_of(options)
    _require_use(options)
    if options.offload and device.type == "cpu":
        raise BIRError(
            "Expected a GPU for --offload, but the CPU computes, which has no memory of its own; "
            "leave the option out or choose another --device."
        )
    files_folder(options.maps_folder)  # this and the next before files are read
    if options.compile is not None:
        require_backend(options.compile)
    # The version that was found, and the tiles that were chosen, one line for each picture.
    for module in (which_version, pipeline_module):
        logging.getLogger(module.__name__).setLevel(logging.INFO)
    dtype = DTYPES[options.dtype]
    # Of networks that wait on the host, none need be on the device at first.
    place = CPU if options.offload else device
    unet = partial(load_model, base, architecture="sd_unet", device=place, dtype=dtype)
    asked, version = None, options.version
    if version is None:
        options.settings_of(DEFAULT_VERSION)  # what none takes is said before the work
        origin = origin_of(controlnet, "ir_controlnet")
        asked = unet()
        with visiting(device, asked if options.offload else None):
            predicts = which_version.ask_unet(asked, device).predicts
        version = which_version.version_of(origin, predicts)
    settings = options.settings_of(version)
    if SAMPLERS[settings.sampler].brownian:
        require_brownian_noise()
    faces = load_face_networks(options.faces, options.task, version, device, options.models)
    prompts = _embeddings(options, base, version, device, settings.uses_negative)
    stage1_module = None if stage1 == NO_STAGE1 else load_restoration_module(stage1, device=place)
    pipeline = DiffBIR(
        sd_unet=unet() if asked is None else asked,
        ir_controlnet=load_model(
            controlnet, architecture="ir_controlnet", device=place, dtype=dtype
        ),
        # As in the official code these stay in float32.
        sd_vae=load_model(options.vae or base, architecture="sd_vae", device=place),
        stage1=stage1_module,
        version=version,
        device=device,
        offload=options.offload,
        compile=options.compile,
        folder=options.maps_folder,
    )
    restorer: Callable[..., Tensor] = pipeline if faces is None else photo_restorer(pipeline, faces)
    return Loaded(version, partial(_restored_by, restorer, prompts, version))


def _restored_by(
    restorer: Callable[..., Tensor], prompts: list[Tensor], version: str, options: DiffBIROptions
) -> Restorer:
    settings = options.settings_of(version)
    painted = options.painted or "keep"
    has_faces = options.task == UNALIGNED_FACE

    def restore(image: Tensor, mask: Tensor | None, callback: Callback) -> Tensor:
        return restorer(
            image,
            *prompts,
            upscale_by=options.upscale,
            settings=settings,
            seed=options.seed,
            callback=callback,
            **({} if has_faces else {"task": options.task}),
            **({} if mask is None else {"mask": mask_values(mask, painted)}),
            **({} if options.try_crop is None else {"piece": piece_of(image)}),
        )

    def piece_of(image: Tensor) -> Piece:
        assert options.try_crop is not None
        output = (int(side * options.upscale) for side in image.shape[-2:])
        return piece_at(*options.try_crop, *output)

    return restore


def _require_use(options: DiffBIROptions) -> None:
    """Raise BIRError for options that this task or the others make useless."""
    if options.mask is None and options.painted is not None:
        raise BIRError(
            "Expected --mask with --painted, but none came; give a mask or leave the option out."
        )
    for option, value in (("--mask", options.mask), ("--try-crop", options.try_crop)):
        if value is not None and options.task == UNALIGNED_FACE:
            raise BIRError(
                f"Expected another task with {option}, but --task {UNALIGNED_FACE} came, which "
                "pastes faces wherever it finds them; choose sr, or leave the option out."
            )


def files_of(options: DiffBIROptions) -> tuple[Path, Path, str]:
    """Of base, IRControlNet and stage 1: those that were given, the others by their names.

    Raises:
        BIRError: one is neither given nor at hand.
    """
    given = {name: getattr(options, name) for name in ("base", "controlnet", "stage1")}
    found = find_files(
        [name for name, value in given.items() if value is None],
        _background(options.task),
        version=options.version,
        controlnet=options.controlnet,
        folder=options.models,
    )
    files = {**given, **found}
    return files["base"], files["controlnet"], str(files["stage1"])


def _background(task: str) -> Task:
    """What is done to the picture as a whole."""
    return "sr" if task == UNALIGNED_FACE else cast(Task, task)


def _embeddings(
    options: DiffBIROptions, base: Path, version: str, device: torch.device, needs_negative: bool
) -> list[Tensor]:
    """The embedding of the prompt, and of the negative one where it is needed. The text encoder is
    loaded only for texts, and gone again before the other networks come."""
    given = {"prompt": (options.prompt, options.prompt_embedding)}
    if needs_negative:
        given["negative"] = (options.negative, options.negative_embedding)
    found: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for (name, (text, file)), official in zip(
        given.items(), find_version(version).prompts, strict=False
    ):
        if text is not None and file is not None:
            raise BIRError(
                f"Expected --{name} or --{name}-embedding, but both came; leave one of them out."
            )
        if file is not None:
            found[name] = load_embedding(file)
        else:
            texts[name] = official if text is None else text
    if texts:
        source = options.text_encoder or base
        encoder = cast(TextEncoder, load_model(source, architecture="text_encoder", device=device))
        embeddings = encode_prompts(encoder, list(texts.values()))
        found |= {name: embeddings[index, None] for index, name in enumerate(texts)}
    return [found[name] for name in given]


def savings(
    options: DiffBIROptions, device: torch.device
) -> dict[str, Callable[[DiffBIROptions], DiffBIROptions]]:
    """What may take less memory than the options do, as `methods.Savings`: half precision,
    offloading, and each setting that was given left to its default."""
    found = half_precision(options, device)
    if device.type != "cpu" and not options.offload:
        found["--offload"] = lambda options: replace(options, offload=True)
    if options.maps_folder is None:
        found["--maps-folder on a larger disk"] = lambda options: replace(options, disk=int(PLENTY))
    for name in options.settings:
        found[f"leaving out --{name.replace('_', '-')}"] = partial(_without, name)
    return found


def _without(name: str, options: DiffBIROptions) -> DiffBIROptions:
    settings = {each: value for each, value in options.settings.items() if each != name}
    return replace(options, settings=settings)


def plan(
    options: DiffBIROptions, device: torch.device, memory: int
) -> tuple[Callable[[int, int], tuple[str, MemoryPlan]], float]:
    """From height and width of a picture to the plan of its restoration with networks of the
    official sizes, with a title; and the enlargement.

    Raises:
        BIRError: impossible settings, or a version without the task.
    """
    version, task = options.version or DEFAULT_VERSION, _background(options.task)
    networks = official_networks(version, task, DTYPES[options.dtype])
    settings = options.settings_of(version)
    has_faces = options.task == UNALIGNED_FACE
    offloaded = ", offloaded" if options.offload else ""
    disk = options.disk
    if disk is None:
        disk = free_disk(files_folder(options.maps_folder))
    if has_faces:
        require_photo_version(version)
        face_networks = official_networks(version, "face", DTYPES[options.dtype])

    def plan_of(
        networks: DiffBIRNetworks, task: Task, height: int, width: int, upscale: float
    ) -> tuple[Stage1Sizes, MemoryPlan]:
        order = official_order(task, version)
        sizes = stage1_sizes(height, width, order, upscale, settings.short_side)
        found = plan_diffbir(
            networks,
            sizes,
            order,
            settings,
            device=device,
            memory=memory,
            host_memory=free_memory(CPU),
            disk=disk,
            offload=options.offload,
        )
        return sizes, found

    def plan_image(height: int, width: int) -> tuple[str, MemoryPlan]:
        sizes, found = plan_of(networks, task, height, width, options.upscale)
        uncounted = ""
        if has_faces:
            _, of_face = plan_of(face_networks, "face", FACE_SIZE, FACE_SIZE, 1.0)
            stages = [replace(stage, name=OF_FACE + stage.name) for stage in of_face.stages]
            found = replace(found, stages=(*found.stages, *stages))
            uncounted = ", without detector and parser"
        title = (
            f"DiffBIR {version} {options.task}, {width}x{height} -> "
            f"{sizes.output[1]}x{sizes.output[0]}, {options.dtype}{offloaded}{uncounted}"
        )
        return title, found

    return plan_image, options.upscale
