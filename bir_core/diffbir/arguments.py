"""What only DiffBIR takes of `bir restore` and `bir plan`: arguments, and its options by them."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from ..command_line.options import Values, read_options
from ..diffusion.sampling import SAMPLERS
from ..errors import BIRError
from ..models import DETECTOR_FILE, PARSER_FILE
from .compiling import DEFAULT_BACKEND
from .face_options import UNALIGNED_FACE, FaceOptions
from .fidelity import of_fidelity
from .masks import PAINTED
from .method import NO_STAGE1, DiffBIROptions
from .piece import SIDE
from .settings import CHOICES, official_settings
from .versions import DEFAULT_VERSION, FACE_SWINIR, VERSIONS, Task

TASKS = (*get_args(Task), UNALIGNED_FACE)
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
    "guidance_per": (
        str,
        CHOICES["guidance_per"],
        "picture: its scale is for this size; 512x512: it means the same at any size",
    ),
    "guidance_start": (float, None, "it pulls at timesteps t where t + 1 is below this"),
    "guidance_stop": (float, None, "and t + 1 above this; -1: to the end"),
    "guidance_repeats": (int, None, "how often it pulls at each of these steps"),
    "tile": (int, None, "side in pixels of the tiles of the sampling, 0 for none"),
    "overlap": (int, None, "pixels that these tiles share"),
    "tile_batch": (int, None, "tiles that are computed at a time"),
    "vae_tile": (int, None, "side in pixels of the pieces of the VAE, 0 for none"),
    "stage1_tile": (int, None, "side in pixels of the tiles of stage 1, 0 for none"),
    "color_fix": (str, CHOICES["color_fix"], "colours of stage 1 on the result"),
    "blending": (float, None, "share of the picture of stage 1 in the result, 0 to 1"),
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

# Those that change how much is computed, for `bir inspect --cost`.
COST_SETTINGS = (
    "sampler",
    "steps",
    "cfg",
    "strength",
    "tile",
    "overlap",
    "stage1_tile",
    "short_side",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only `--method diffbir` takes; those that were not given stay None."""
    group = parser.add_argument_group(
        "DiffBIR",
        "only with --method diffbir; files that are not named are looked for in the folder of "
        "models, by the names that bir models lists",
    )
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
    group.add_argument(
        "--version",
        choices=tuple(VERSIONS),
        help="(default: as the files say, by name or header of IRControlNet's and by the base)",
    )
    group.add_argument(
        "--task",
        choices=TASKS,
        help="face: aligned, 512 x 512; unaligned_face: a whole photo, its background as in sr and "
        "each face on its own (default: sr)",
    )
    _add_face_arguments(group)
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
    group.add_argument(
        "--fidelity",
        metavar="NUMBER",
        type=float,
        help="0: invented freely, 0.5: as the authors set it, 1: faithful; stands for --strength, "
        "--guidance, --guidance-per and --blending, where these are not given",
    )
    group.add_argument(
        "--try-crop",
        metavar="X,Y[,SIDE]",
        type=_corner,
        help="restore only the piece of the result that begins at these pixels, "
        f"{SIDE} x {SIDE} if no side is given, with the noise of its place in the whole, to try "
        "settings; its corner goes to the nearest multiple of 64 pixels",
    )
    group.add_argument(
        "--painted",
        choices=PAINTED,
        help="of --mask, what white means. keep: the picture of stage 1 stays there; invent: free "
        "detail there; both restore the rest. grey: white keeps, middle grey restores, black "
        "invents (default: keep)",
    )
    _add_settings(group, SETTINGS)
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
    _add_maps_folder(group)
    group.add_argument(
        "--compile",
        metavar="BACKEND",
        nargs="?",
        const=DEFAULT_BACKEND,
        help="compile the networks of stage 2, with a backend of torch.compile (default of the "
        f"option: {DEFAULT_BACKEND}): the first step of each size takes minutes, the others less",
    )
    group.add_argument(
        "--sampler-option",
        metavar="NAME=NUMBER",
        type=_assignment,
        action="append",
        help=f"of the sampler, which has some of {', '.join(_sampler_options())}; may be repeated",
    )


def _add_settings(group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
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


def _add_maps_folder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--maps-folder",
        metavar="FOLDER",
        type=Path,
        help="where maps of the VAE wait in a file if no memory holds them; the file is gone after "
        "the run (default: that of the system for temporary files)",
    )


def _sampler_options() -> list[str]:
    """The names of the numbers of all samplers, each once."""
    return list(dict.fromkeys(name for row in SAMPLERS.values() for name in row.options))


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


def _corner(text: str) -> tuple[int, int, int]:
    try:
        left, top, side = (int(number) for number in (text + f",{SIDE}").split(",")[:3])
        if text.count(",") not in (1, 2) or min(left, top, side - 1) < 0:
            raise ValueError
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected X,Y or X,Y,SIDE in whole pixels such as 1024,512, but {text} came"
        ) from error
    return left, top, side


def _add_face_arguments(group: argparse._ArgumentGroup) -> None:
    """The options that only the task unaligned_face takes."""
    group.add_argument(
        "--face-stage1",
        metavar="FILE",
        type=Path,
        help=f"of {UNALIGNED_FACE}: what --stage1 is for the faces, such as {FACE_SWINIR}",
    )
    group.add_argument(
        "--face-weights",
        metavar="FOLDER",
        type=Path,
        help=f"of {UNALIGNED_FACE}: where facexlib's files {DETECTOR_FILE} and {PARSER_FILE} lie",
    )
    group.add_argument(
        "--face-detector",
        choices=("retinaface", "mtcnn"),
        help=f"of {UNALIGNED_FACE}: what finds the faces, facexlib's RetinaFace or MTCNN, which "
        "`bir weights faces` fetches (default: retinaface)",
    )
    group.add_argument(
        "--face-mask",
        choices=("parsed", "square"),
        help=f"of {UNALIGNED_FACE}: paste the face alone, as {PARSER_FILE} sees it, or its square "
        "(default: parsed)",
    )


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bir plan` for DiffBIR."""
    group = parser.add_argument_group("DiffBIR")
    group.add_argument("--version", choices=tuple(VERSIONS), help=f"(default: {DEFAULT_VERSION})")
    group.add_argument("--task", choices=TASKS, help="(default: sr)")
    group.add_argument("--upscale", metavar="FACTOR", type=float, help="(default: 4)")
    group.add_argument(
        "--offload", action="store_true", help="the networks of other stages wait on the host"
    )
    _add_maps_folder(group)
    _add_settings(group, MEMORY_SETTINGS)


def add_cost_arguments(group: argparse._ArgumentGroup) -> None:
    """What `bir inspect --cost` takes for a run of DiffBIR; what was not given stays None."""
    group.add_argument("--task", choices=get_args(Task), help="(default: sr)")
    group.add_argument("--upscale", metavar="FACTOR", type=float, help="(default: 4)")
    _add_settings(group, COST_SETTINGS)


def read(kind: type[DiffBIROptions], values: Values) -> DiffBIROptions:
    """The options by the values of either parser.

    Raises:
        BIRError: a fidelity outside of 0 to 1, or details of a guidance that there is not.
    """
    names = (*SETTINGS, "rescale_cfg")
    given = {name: values[name] for name in names if values.get(name) is not None}
    settings = given
    if values.get("fidelity") is not None:
        settings = asdict(of_fidelity(values["fidelity"])) | given
    # What is chosen for a picture brings guidance where it is needed.
    if not (settings.get("guidance") or values.get("auto") or values.get("old_photo")):
        _require_no_detail_of_guidance(given)
    if values.get("sampler_option"):
        settings["sampler_options"] = dict(values["sampler_option"])
    faces = read_options(FaceOptions, values)
    return read_options(kind, {**values, "settings": settings, "faces": faces})


def _require_no_detail_of_guidance(given: Iterable[str]) -> None:
    for name in given:
        if name.startswith("guidance_"):
            option = "--" + name.replace("_", "-")
            raise BIRError(
                f"{option} should come with restoration guidance, but there is none; give "
                f"--guidance as well, or leave {option} out."
            )
