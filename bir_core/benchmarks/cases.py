"""What `bir bench` measures: the rows of its table as cases, and the sides of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..errors import BIRError
from ..latents import PADDED_MULTIPLE
from ..networks.autoencoder import VAEConfig
from ..networks.diffir_config import OFFICIAL_CONFIGS
from ..networks.unet import UNetConfig
from ..weights import BUILTIN_NAMES
from .builtin import builtin_side
from .comparing import Measured, Side, compare
from .diffbir import Stage2, decode_sides, encode_sides, step_sides
from .diffir import diffir_sides, require_size
from .start import compare_starts

Kind = Literal["diffir", "streamed", "step", "decode", "encode", "builtin", "start"]
OF_DIFFBIR = {"step": "DiffBIR step", "decode": "VAE decode", "encode": "VAE encode"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Work that one or several sides do.

    Attributes:
        kind: which sides there are; "streamed" is the streamed DiffIR alone.
        name: of DiffIR's official size, or of the built-in model.
        height, width: of the input in pixels; of DiffBIR and its VAE, of the picture.
        tile: of DiffBIR and its VAE, in pixels; a step without one has no sides with tiles.
        strip: rows of the streamed DiffIR; None for its own choice.
        repeats: timed runs; None for those of the conditions.
    """

    kind: Kind
    name: str = ""
    height: int = 0
    width: int = 0
    tile: int | None = None
    strip: int | None = None
    repeats: int | None = None

    def __post_init__(self) -> None:
        if self.kind in ("diffir", "streamed"):
            require_size(self.name, OFFICIAL_CONFIGS[self.name], self.height, self.width)
        elif self.kind in OF_DIFFBIR and (
            min(self.height, self.width) < 1
            or self.height % PADDED_MULTIPLE
            or self.width % PADDED_MULTIPLE
        ):
            raise BIRError(
                f"Expected a size whose sides divide by {PADDED_MULTIPLE} for DiffBIR, but "
                f"{self.height}x{self.width} came; choose such a size."
            )

    @property
    def work(self) -> str:
        """In words."""
        if self.kind in ("diffir", "streamed"):
            return f"DiffIR {self.name}"
        return self.name if self.kind == "builtin" else OF_DIFFBIR.get(self.kind, "cold start")

    @property
    def input(self) -> str:
        """The size, in words."""
        return f"{self.height}x{self.width}" if self.height else ""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all cases share.

    Attributes:
        device: "cpu", "cuda" or "mps".
        dtype: of the networks, a name in torch.
        threads: of the CPU; None leaves torch's choice.
        repeats: timed runs of each side.
        compile: backend of torch.compile for one more side of a DiffBIR step; None for none.
        official_diffir, official_diffbir: checkouts of the official code, whose networks are the
            first side then. They know float32 only.
    """

    device: str
    dtype: str = "float32"
    threads: int | None = None
    repeats: int = 3
    compile: str | None = None
    official_diffir: str | None = None
    official_diffbir: str | None = None


def measure(
    case: Case,
    conditions: Conditions,
    unet: UNetConfig | None = None,
    vae: VAEConfig | None = None,
) -> list[Measured]:
    """Carry out a case in this process.

    Args:
        unet, vae: other sizes of DiffBIR's networks than the official ones.

    Raises:
        BIRError: official code that cannot be used, or a network that cannot be compiled.
    """
    if conditions.threads is not None:
        torch.set_num_threads(conditions.threads)
    repeats = case.repeats or conditions.repeats
    if case.kind == "start":
        return compare_starts(conditions.device, repeats)
    device = torch.device(conditions.device)
    return compare(_sides(case, conditions, device, unet, vae), device, repeats)


def _sides(
    case: Case,
    conditions: Conditions,
    device: torch.device,
    unet: UNetConfig | None,
    vae: VAEConfig | None,
) -> Sequence[Side]:
    dtype: torch.dtype = getattr(torch, conditions.dtype)
    if case.kind == "builtin":
        return [builtin_side(case.name, case.height, case.width, device, dtype)]
    if case.kind in ("diffir", "streamed"):
        return diffir_sides(
            OFFICIAL_CONFIGS[case.name],
            case.height,
            case.width,
            device,
            dtype,
            strip=case.strip,
            plain=case.kind == "diffir",
            official=_checkout(conditions.official_diffir, case, dtype),
        )
    stage2 = Stage2(case.height, case.width, device, unet, vae, dtype)
    official = _checkout(conditions.official_diffbir, case, dtype)
    if case.kind == "step":
        return step_sides(stage2, case.tile, official, conditions.compile)
    assert case.tile is not None
    if case.kind == "encode":
        return encode_sides(stage2, case.tile)
    return decode_sides(stage2, case.tile, official)


def _checkout(folder: str | None, case: Case, dtype: torch.dtype) -> Path | None:
    """Where the official code is that takes part, if it does."""
    if folder is None or case.kind in ("streamed", "encode") or dtype != torch.float32:
        return None
    return Path(folder)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of all rows: sides of square pictures in pixels, the tiles with them.

    Attributes:
        deblur, realsr, builtin: inputs of each.
        step: of a DiffBIR step in all its forms, and its tile.
        large_steps: of further steps, as they are.
        decode, encode: of the VAE, and its tile.
    """

    deblur: tuple[int, ...]
    realsr: tuple[int, ...]
    builtin: tuple[int, ...]
    step: tuple[int, int]
    large_steps: tuple[int, ...]
    decode: tuple[tuple[int, ...], int]
    encode: tuple[int, int]


QUICK = Sizes(
    deblur=(64, 96, 128),
    realsr=(16, 32, 48),
    builtin=(64,),
    step=(128, 64),
    large_steps=(),
    decode=((128,), 64),
    encode=(128, 64),
)
ON_CPU = Sizes(
    deblur=(128, 256, 384, 512),
    realsr=(64, 128, 192, 256),
    builtin=(128, 256, 512),
    step=(256, 128),
    large_steps=(512,),
    decode=((320, 384, 512), 256),
    encode=(256, 128),
)
ON_GPU = Sizes(
    deblur=(256, 384, 512, 1024, 2048),
    realsr=(128, 256, 512, 1024),
    builtin=(256, 512, 1024),
    step=(512, 256),
    large_steps=(1024, 2048),
    decode=((512, 1024, 2048), 256),
    encode=(512, 256),
)


def all_cases(sizes: Sizes) -> list[Case]:
    """A case for each group of rows of the table."""

    def square(kind: Kind, side: int, tile: int | None = None, name: str = "") -> Case:
        return Case(kind=kind, name=name, height=side, width=side, tile=tile)

    decoded, tile = sizes.decode
    return [
        *(square("diffir", side, name="deblur") for side in sizes.deblur),
        *(square("diffir", side, name="realsr_x4") for side in sizes.realsr),
        square("step", *sizes.step),
        *(square("step", side) for side in sizes.large_steps),
        *(square("decode", side, tile) for side in decoded),
        square("encode", *sizes.encode),
        *(square("builtin", side, name=name) for name in BUILTIN_NAMES for side in sizes.builtin),
        Case(kind="start"),
    ]
