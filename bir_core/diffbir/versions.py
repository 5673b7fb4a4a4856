"""The versions of DiffBIR, one row each: all that one of them has of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..diffusion.denoisers import Parameterization
from ..errors import BIRError

Task = Literal["sr", "denoise", "face"]
# "enlarge_first": to the output size, then to a short side of 512, then the network (SwinIR).
# "network_enlarges": the network sees the original, its output is brought to size (BSRNet).
# "restore_first": to the output size, then the network, then to a short side of 512 (SCUNet).
Order = Literal["enlarge_first", "network_enlarges", "restore_first"]


@dataclass(frozen=True)
class OfficialModule:
    """What the official code takes for stage 1.

    Attributes:
        name: of its architecture.
        order: of its work and the resizing.
        scale: output side divided by input side.
        weights: how many numbers they are, of a network that spandrel would build; else 0.
    """

    name: str
    order: Order
    scale: int = 1
    weights: int = 0


SWINIR = OfficialModule("SwinIR", "enlarge_first")
BSRNET = OfficialModule("BSRNet", "network_enlarges", scale=4, weights=16_697_987)
SCUNET = OfficialModule("SCUNet", "restore_first", weights=17_946_072)


@dataclass(frozen=True)
class OfficialFiles:
    """The names of the authors' files for a task, rows of `models.KNOWN_FILES`."""

    base: str
    controlnet: str
    stage1: str


@dataclass(frozen=True, kw_only=True)
class DiffBIRVersion:
    """A row of the table.

    Attributes:
        base: the name of the file that the authors take for the base.
        controlnets, stage1_files: those of their IRControlNets and restoration modules, by task.
        parameterization: what the base predicts.
        zero_snr: whether the base was trained down to pure noise.
        modules: stage 1 by task; SwinIR where none is named.
        settings: of `DiffBIRSettings`, where the authors' differ from the defaults.
        prompts: the authors' positive and negative one.
        whole_photos: whether the authors have a pipeline for faces in whole photos.
        file_names: parts of the names, in small letters, that its IRControlNet goes by.
    """

    base: str = "v2-1_512-ema-pruned.ckpt"
    controlnets: Mapping[Task, str] = field(default_factory=dict)
    stage1_files: Mapping[Task, str] = field(default_factory=dict)
    parameterization: Parameterization = "eps"
    zero_snr: bool = False
    modules: Mapping[Task, OfficialModule] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: tuple[str, str] = ("", "")
    whole_photos: bool = True
    file_names: tuple[str, ...]


FACE_SWINIR = "face_swinir_v1.ckpt"
VERSIONS = {
    "v1": DiffBIRVersion(
        controlnets={"sr": "v1_general.pth", "denoise": "v1_general.pth", "face": "v1_face.pth"},
        stage1_files={
            "sr": "general_swinir_v1.ckpt",
            "denoise": "general_swinir_v1.ckpt",
            "face": FACE_SWINIR,
        },
        settings={"sampler": "spaced", "steps": 50, "cfg": 1.0},
        whole_photos=False,
        file_names=("v1",),
    ),
    "v2": DiffBIRVersion(
        controlnets=dict.fromkeys(get_args(Task), "v2.pth"),
        stage1_files={
            "sr": "BSRNet.pth",
            "denoise": "scunet_color_real_psnr.pth",
            "face": FACE_SWINIR,
        },
        modules={"sr": BSRNET, "denoise": SCUNET},
        settings={"sampler": "spaced", "steps": 50, "cfg": 4.0},
        prompts=("", "low quality, blurry, low-resolution, noisy, unsharp, weird textures"),
        file_names=("v2",),
    ),
    "v2.1": DiffBIRVersion(
        base="sd2.1-base-zsnr-laionaes5.ckpt",
        controlnets=dict.fromkeys(get_args(Task), "DiffBIR_v2.1.pt"),
        stage1_files={
            "sr": "realesrgan_s4_swinir_100k.pth",
            "denoise": "realesrgan_s4_swinir_100k.pth",
            "face": FACE_SWINIR,
        },
        parameterization="v",
        zero_snr=True,
        prompts=(
            "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper "
            "detailed photo - realistic maximum detail, 32k, Color Grading, ultra HD, extreme "
            "meticulous detailing, skin pore detailing, hyper sharpness, perfect without "
            "deformations.",
            "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, "
            "CG Style, 3D render, unreal engine, blurring, dirty, messy, worst quality, low "
            "quality, frames, watermark, signature, jpeg artifacts, deformed, lowres, "
            "over-smooth.",
        ),
        file_names=("v2.1", "v2_1", "v2-1", "v21"),
    ),
}
DEFAULT_VERSION = "v2.1"


def find_version(name: str) -> DiffBIRVersion:
    """The row of a version.

    Raises:
        BIRError: no such version.
    """
    if name not in VERSIONS:
        raise BIRError(
            f"Expected a version of DiffBIR ({', '.join(VERSIONS)}), but {name!r} came; choose one "
            "of these."
        )
    return VERSIONS[name]


def official_module(task: Task, version: str) -> OfficialModule:
    """The restoration module that the official code uses for a task of a version."""
    return find_version(version).modules.get(task, SWINIR)


def official_order(task: Task, version: str) -> Order:
    """What the official code does: by the module it uses for a task of a version."""
    return official_module(task, version).order


def official_files(task: Task, version: str) -> OfficialFiles:
    """The names of the files that the authors use for a task of a version.

    Raises:
        BIRError: none are known.
    """
    row = find_version(version)
    if task not in row.controlnets or task not in row.stage1_files:
        raise BIRError(
            f"Expected names of published files for {task} of DiffBIR {version}, but none are "
            "known; give the files by --base, --controlnet and --stage1."
        )
    return OfficialFiles(row.base, row.controlnets[task], row.stage1_files[task])


def version_name_of_file(name: str) -> str | None:
    """The name of the version of an IRControlNet by that of its file, since the networks of all
    versions are alike; None if the name does not say."""
    parts = [(part, version) for version, row in VERSIONS.items() for part in row.file_names]
    found = [(part, version) for part, version in parts if part in name.lower()]
    # The longest part: "v2" is in the names of v2.1 too.
    return max(found, key=lambda each: len(each[0]))[1] if found else None


def version_of_file(name: str) -> DiffBIRVersion | None:
    """The row of the version, as `version_name_of_file`."""
    version = version_name_of_file(name)
    return None if version is None else VERSIONS[version]
