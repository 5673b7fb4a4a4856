"""DiffBIR on the command line: its options, and what they make of a picture."""

import argparse
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..diffusion.noise import require_brownian_noise
from ..diffusion.sampling import SAMPLERS
from ..errors import BIRError
from ..memory import CPU, MemoryPlan, free_memory
from ..networks.text_encoder import TextEncoder
from ..options import DTYPES
from . import face_options
from . import pipeline as stages
from .memory_plan import plan_diffbir
from .networks import official_networks
from .pipeline import Callback, DiffBIR
from .prompts import encode_prompts, load_embedding
from .restoration_modules import RestorationModule, load_restoration_module
from .settings import CHOICES, DiffBIRSettings, official_settings
from .stage1 import stage1_sizes
from .versions import DEFAULT_VERSION, VERSIONS, Task, find_version, official_order

NO_STAGE1 = "none"
FILES = ("base", "controlnet", "stage1")
# Options that become settings of the same name.
SETTINGS = {
    "sampler": (str, tuple(SAMPLERS), "of the diffusion"),
    "steps": (int, None, "of the sampler"),
    "cfg": (float, None, "how strongly the prompts count; at 1 the negative one does not"),
    "strength": (float, None, "factor on the control of IRControlNet"),
    "noise_aug": (int, None, "timestep up to which noise is put on the condition, 0 to 999"),
    "start": (str, CHOICES["start"], "what the sampling starts from"),
    "guidance": (float, None, "scale of restoration guidance, 0.5 for 512 x 512 pixels"),
    "guidance_space": (str, CHOICES["guidance_space"], "where its loss is taken"),
    "guidance_loss": (
        str,
        CHOICES["guidance_loss"],
        "w_mse holds flat regions, mse everything alike",
    ),
    "tile": (int, None, "side in pixels of the tiles of the sampling, 0 for none"),
    "overlap": (int, None, "pixels that these tiles share"),
    "tile_batch": (int, None, "tiles that are computed at a time"),
    "vae_tile": (int, None, "side in pixels of the pieces of the VAE, 0 for none"),
    "stage1_tile": (int, None, "side in pixels of the tiles of stage 1, 0 for none"),
    "color_fix": (str, CHOICES["color_fix"], "colours of stage 1 on the result"),
    "padding": (str, CHOICES["padding"], "of sides to multiples of 64 pixels"),
    "short_side": (int, None, "least pixels of the smaller side on the way, 0 for no bound"),
}

# Those that change the memory, for `bir plan`.
MEMORY_SETTINGS = (
    "cfg",
    "guidance",
    "guidance_space",
    "tile",
    "overlap",
    "tile_batch",
    "vae_tile",
    "stage1_tile",
    "short_side",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only `--method diffbir` takes; those that were not given stay None."""
    group = parser.add_argument_group("DiffBIR", "only with --method diffbir")
    group.add_argument(
        "--base",
        metavar="FILE|FOLDER",
        type=Path,
        help="Stable Diffusion 2.1 base (v1, v2) or DiffBIR's zero-SNR base (v2.1): a checkpoint, "
        "the UNet's file, or a folder in the layout of diffusers",
    )
    group.add_argument("--vae", metavar="FILE", type=Path, help="if the base has none")
    group.add_argument("--text-encoder", metavar="FILE", type=Path, help="if the base has none")
    group.add_argument("--controlnet", metavar="FILE", type=Path, help="IRControlNet")
    group.add_argument(
        "--stage1",
        metavar=f"FILE|{NO_STAGE1}",
        help="network that removes the degradation: SwinIR, DiffIR, or what spandrel knows "
        f"(BSRNet, SCUNet, ...); {NO_STAGE1} for pictures that are clean already",
    )
    group.add_argument("--version", choices=tuple(VERSIONS), help=f"(default: {DEFAULT_VERSION})")
    group.add_argument(
        "--task",
        choices=(*get_args(Task), face_options.UNALIGNED_FACE),
        help="face: aligned, 512 x 512; unaligned_face: a whole photo, its background as in sr and "
        "each face on its own (default: sr)",
    )
    face_options.add_arguments(group)
    group.add_argument(
        "--upscale", metavar="FACTOR", type=float, help="output by input side (default: 4)"
    )
    for name in ("prompt", "negative"):
        group.add_argument(f"--{name}", metavar="TEXT", help="(default: the authors')")
        group.add_argument(
            f"--{name}-embedding",
            metavar="FILE",
            type=Path,
            help="instead of the text: its embedding, made by bir embed",
        )
    add_settings(group, SETTINGS)
    group.add_argument(
        "--rescale-cfg",
        action="store_true",
        default=None,
        help="let cfg grow from 1 to 1 + cfg along the sampling",
    )
    group.add_argument(
        "--offload",
        action="store_true",
        default=None,
        help="keep the networks of other stages in the host's memory, for GPUs of little memory",
    )
    group.add_argument(
        "--sampler-option",
        metavar="NAME=NUMBER",
        type=_assignment,
        action="append",
        help="eta, s_noise, s_churn, s_tmin, s_tmax or order of the sampler; may be repeated",
    )


def add_settings(group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
    """The options of these settings; those that were not given stay None."""
    for name in names:
        kind, choices, text = SETTINGS[name]
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=cast(Any, kind),
            choices=choices,
            metavar=None if choices else "NUMBER",
            help=f"{text} (default: {_defaults(name)})",
        )


def _defaults(name: str) -> str:
    """What a setting is in each version, in words."""
    values = {version: getattr(official_settings(version), name) for version in VERSIONS}
    if values[DEFAULT_VERSION] is None:
        return "from the free memory"
    if len(set(values.values())) == 1:
        return str(values[DEFAULT_VERSION])
    return ", ".join(f"{value} for {version}" for version, value in values.items())


def _assignment(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        return name, float(number if equals else "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected NAME=NUMBER such as eta=0.5, but {text} came"
        ) from error


def prepare(
    options: argparse.Namespace, device: torch.device
) -> tuple[Callable[[Tensor, Tensor | None, Callback], Tensor], float]:
    """Load everything that the options name.

    Returns:
        A function from a picture (1, 3, H, W) in [0, 1], None in the place of a mask, and a
        progress callback to the result, and output by input side.

    Raises:
        BIRError: a file that is missing, unreadable or of another kind, or impossible settings.
    """
    for name in FILES:
        if getattr(options, name) is None:
            raise BIRError(
                f"Expected --{name} for --method diffbir, but none came; give the file"
                + (f", or {NO_STAGE1}." if name == "stage1" else ".")
            )
    if options.offload and device.type == "cpu":
        raise BIRError(
            "Expected a GPU for --offload, but the CPU computes, which has no memory of its own; "
            "leave the option out or choose another --device."
        )
    # The tiles that were chosen, one line for each picture.
    logging.getLogger(stages.__name__).setLevel(logging.INFO)
    version: str = options.version or DEFAULT_VERSION
    settings = _settings(options, version)
    if SAMPLERS[settings.sampler].brownian:
        require_brownian_noise()
    needs_negative = settings.cfg != 1 or settings.rescale_cfg
    faces = face_options.load_face_networks(options, version, device)
    prompts = _embeddings(options, version, device, needs_negative)
    dtype = DTYPES[options.dtype]
    # Of networks that wait on the host, none need be on the device at first.
    place = CPU if options.offload else device
    module = _stage1(options.stage1, place)
    pipeline = DiffBIR(
        sd_unet=load_model(options.base, architecture="sd_unet", device=place, dtype=dtype),
        ir_controlnet=load_model(
            options.controlnet, architecture="ir_controlnet", device=place, dtype=dtype
        ),
        # As in the official code these stay in float32.
        sd_vae=load_model(options.vae or options.base, architecture="sd_vae", device=place),
        stage1=module,
        version=version,
        device=device,
        offload=bool(options.offload),
    )
    if faces is None:
        restorer: Callable[..., Tensor] = partial(pipeline, task=options.task or "sr")
    else:
        restorer = face_options.photo_restorer(pipeline, faces)

    upscale_by = 4.0 if options.upscale is None else options.upscale

    def restore(image: Tensor, mask: Tensor | None, callback: Callback) -> Tensor:
        return restorer(
            image,
            *prompts,
            upscale_by=upscale_by,
            settings=settings,
            seed=options.seed,
            callback=callback,
        )

    return restore, upscale_by


def _given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The settings among `names` that were given, by name."""
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _settings(options: argparse.Namespace, version: str) -> DiffBIRSettings:
    changes = _given(options, (*SETTINGS, "rescale_cfg"))
    if options.sampler_option:
        changes["sampler_options"] = dict(options.sampler_option)
    return replace(official_settings(version), **changes)


def _stage1(choice: str, device: torch.device) -> RestorationModule | None:
    return None if choice == NO_STAGE1 else load_restoration_module(choice, device=device)


def _embeddings(
    options: argparse.Namespace, version: str, device: torch.device, needs_negative: bool
) -> list[Tensor]:
    """The embedding of the prompt, and of the negative one where it is needed. The text encoder is
    loaded only for texts, and gone again before the other networks come."""
    names = ["prompt", "negative"] if needs_negative else ["prompt"]
    found: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for name, official in zip(names, find_version(version).prompts, strict=False):
        text, file = getattr(options, name), getattr(options, f"{name}_embedding")
        if text is not None and file is not None:
            raise BIRError(
                f"Expected --{name} or --{name}-embedding, but both came; leave one of them out."
            )
        if file is not None:
            found[name] = load_embedding(file)
        else:
            texts[name] = official if text is None else text
    if texts:
        source = options.text_encoder or options.base
        encoder = cast(TextEncoder, load_model(source, architecture="text_encoder", device=device))
        embeddings = encode_prompts(encoder, list(texts.values()))
        found |= {name: embeddings[index, None] for index, name in enumerate(texts)}
    return [found[name] for name in names]


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bir plan` for DiffBIR."""
    group = parser.add_argument_group("DiffBIR")
    group.add_argument("--version", choices=tuple(VERSIONS), default=DEFAULT_VERSION)
    group.add_argument("--task", choices=get_args(Task), default="sr")
    group.add_argument("--upscale", metavar="FACTOR", type=float, default=4.0, help="(default: 4)")
    group.add_argument(
        "--offload", action="store_true", help="the networks of other stages wait on the host"
    )
    add_settings(group, MEMORY_SETTINGS)


def plan(
    options: argparse.Namespace, device: torch.device, memory: int
) -> Callable[[int, int], tuple[str, MemoryPlan]]:
    """From height and width of a picture to the plan of its restoration with networks of the
    official sizes, with a title."""
    networks = official_networks(options.version, options.task, DTYPES[options.dtype])
    settings = replace(official_settings(options.version), **_given(options, MEMORY_SETTINGS))
    order = official_order(options.task, options.version)
    offloaded = ", offloaded" if options.offload else ""

    def plan_image(height: int, width: int) -> tuple[str, MemoryPlan]:
        sizes = stage1_sizes(height, width, order, options.upscale, settings.short_side)
        found = plan_diffbir(
            networks,
            sizes,
            order,
            settings,
            device=device,
            memory=memory,
            host_memory=free_memory(CPU),
            offload=options.offload,
        )
        title = (
            f"DiffBIR {options.version} {options.task}, {width}x{height} -> "
            f"{sizes.output[1]}x{sizes.output[0]}, {options.dtype}{offloaded}"
        )
        return title, found

    return plan_image
