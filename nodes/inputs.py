"""Inputs that several nodes have, and the types of our sockets."""

from dataclasses import dataclass

from comfy_api.latest import io
from torch import Tensor

from ..bir_core.diffbir.masks import PAINTED, Painted
from ..bir_core.seeds import SEEDS
from ..bir_core.tiling import TileGrid

DiffIRModel = io.Custom("DIFFIR_MODEL")
PictureSize = io.Custom("BIR_SIZE")  # an `AskedFor`
CutPlaces = io.Custom("BIR_FACES")  # a `FacePlaces`
FiveLandmarks = io.Custom("BIR_LANDMARKS")  # a tuple of (N, 5, 2) for each picture
PieceToTry = io.Custom("BIR_PIECE")  # a `bir_core.diffbir.piece.Piece`
FaceLandmarks = io.Custom("FACE_LANDMARKS")  # of core's MediaPipe
CutTiles = io.Custom("BIR_TILES")  # a `TilesOf`
# Key of a LATENT: height and width in pixels of the picture without its padding.
PICTURE_SIZE = "bir_size"
SHARED = "shared"  # noise that is the same for all images of a batch


@dataclass(frozen=True)
class AskedFor:
    """What the finished picture is to be, which the Restoration Module knows before anything is
    resized.

    Attributes:
        height, width: in pixels.
        alpha: (B, 1, h, w) of the picture that came, None where it has none.
    """

    height: int
    width: int
    alpha: Tensor | None


@dataclass(frozen=True)
class TilesOf:
    """The pictures that tiles were cut from.

    Attributes:
        count: of the pictures.
        height, width: of each in pixels, without the padding.
        grid: of the padded pictures, in pixels.
        alpha: (B, 1, H, W) of the pictures, None where they have none.
    """

    count: int
    height: int
    width: int
    grid: TileGrid
    alpha: Tensor | None


def seed_input(tooltip: str, *, optional: bool = False) -> io.Int.Input:
    """`seed`, which stays as it is from run to run; one that is optional is folded away."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=SEEDS - 1,
        optional=optional,
        advanced=optional or None,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=tooltip,
    )


def mask_input() -> io.Mask.Input:
    """`mask`, which keeps, restores or invents, see `painted_input`."""
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="Where to keep, restore or invent, painted by Open in MaskEditor; painted says "
        "what is meant. Any size in the image's proportions.",
    )


def painted_input(default: Painted = "grey") -> io.Combo.Input:
    """`painted`, the meaning of a mask."""
    return io.Combo.Input(
        "painted",
        options=list(PAINTED),
        default=default,
        optional=True,
        tooltip="What the painted parts of the mask are. keep: the image stays there, the rest is "
        "restored. invent: free detail there, the rest is restored. grey: 1 keeps, 0.5 restores, "
        "0 invents, and so does all that is not painted.",
    )


def piece_input(*, raw_link: bool = False) -> io.Input:
    """`piece`, of Try a Crop."""
    found: io.Input = PieceToTry.Input(
        "piece",
        optional=True,
        raw_link=raw_link or None,
        tooltip="From Try a Crop: only this piece comes out, with the noise and the stage 1 of its "
        "place in the whole.",
    )
    return found


def noise_input() -> io.Combo.Input:
    """`noise`: whose seed an image of a batch takes."""
    return io.Combo.Input(
        "noise",
        options=["per image", SHARED],
        default="per image",
        optional=True,
        advanced=True,
        tooltip="In a batch. per image: image i takes seed + i. shared: all images take the seed "
        "and have the same noise, which is steadier between the frames of a film.",
    )


def clamp_input(before: str) -> io.Boolean.Input:
    """`clamp`, which is off inside a run of DiffBIR; `before` says what comes after the node."""
    return io.Boolean.Input(
        "clamp",
        default=True,
        optional=True,
        advanced=True,
        tooltip="On: numbers outside of [0, 1] are cut off, as everything that shows, saves or "
        f"changes images expects it. Off: they stay until {before}, as in the official code.",
    )


def blending_input(source: str) -> io.Float.Input:
    """`blending`; `source` says what is blended into the result."""
    return io.Float.Input(
        "blending",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        advanced=True,
        tooltip=f"Share of the {source} in the result: more is faithful and softer.",
    )


def tile_inputs(tile: str, overlap: str) -> tuple[io.Int.Input, io.Int.Input]:
    """`tile_size` and `overlap` of tiles that are never the whole picture, with their tooltips."""
    return (
        io.Int.Input("tile_size", default=512, min=64, max=4096, step=64, tooltip=tile),
        io.Int.Input("overlap", default=256, min=0, max=4032, step=8, tooltip=overlap),
    )


def part_of_the_sampling(action: str) -> tuple[io.Float.Input, io.Float.Input]:
    """`start_percent` and `end_percent`, between which something happens; `action` names it."""

    def percent(name: str, default: float, limit: str) -> io.Float.Input:
        return io.Float.Input(
            name,
            default=default,
            min=0.0,
            max=1.0,
            step=0.001,
            optional=True,
            advanced=True,
            tooltip=f"Part of the sampling, 0 to 1, {limit} which {action}.",
        )

    return percent("start_percent", 0.0, "from"), percent("end_percent", 1.0, "up to")
