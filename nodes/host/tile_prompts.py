"""Prompts of single tiles: how a CONDITIONING carries them, and which of them a tile gets.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.conds
from torch import Tensor

from ...bir_core.errors import BIRError
from ...bir_core.tiling import Tile, TileGrid
from .node import spoken
from .protocols import Clip, Cond, Conditioning

# Where a conditioning says which tile it is for.
TILE = "bir_tile"
# What nodes set behind Prompts for Tiles, for all of its prompts alike.
SET_BEHIND = (
    *("area", "mask", "control", "gligen", "hooks", "model_conds", "default"),
    *("start_percent", "end_percent", "clip_start_percent"),
)


class TilePrompt(comfy.conds.CONDConstant):
    """Says that a conditioning is for one tile. Tiled sampling takes it away.

    `cond` holds the number of the tile, counted from 0, and how many prompts there are.
    """

    cond: tuple[int, int]

    @spoken
    def process_cond(self, batch_size: int, **_: object) -> "TilePrompt":
        raise BIRError(
            f"The {self.cond[1]} prompts of Prompts for Tiles should meet a model that works in "
            "tiles, but this one has none; lead it through Tiled Diffusion (DiffBIR)."
        )


def encode(clip: Clip | None, texts: Sequence[str]) -> list[Conditioning]:
    """The CONDITIONING of each text; equal texts are encoded once."""
    if clip is None:
        raise BIRError(
            "Prompts for Tiles should have a text encoder for its texts, but none came; connect "
            "the CLIP of the checkpoint."
        )
    encoded = {
        text: clip.encode_from_tokens_scheduled(clip.tokenize(text))
        for text in dict.fromkeys(texts)
    }
    return [encoded[text] for text in texts]


def of_tiles(prompts: Sequence[Conditioning]) -> Conditioning:
    """Prompts in the order of the tiles as one CONDITIONING, an entry for each. A single prompt
    stays as it is, for the whole picture.

    Raises:
        BIRError: no prompt, or one that is not plain.
    """
    if len(prompts) == 1:
        return prompts[0]
    if not prompts:
        raise BIRError(
            "Prompts for Tiles should get at least one prompt, but none came; write a line for "
            "each tile, or connect prompts."
        )
    entries = []
    for index, prompt in enumerate(prompts):
        if len(prompt) != 1 or any(name in prompt[0][1] for name in SET_BEHIND):
            raise BIRError(
                f"Prompts for Tiles should get plain prompts, but number {index + 1} has a region, "
                "a time, a control net or several parts; set these behind the node, where they "
                "hold for all tiles."
            )
        embedding, options = prompt[0]
        place = TilePrompt((index, len(prompts)))
        entries.append([embedding, {**options, "model_conds": {TILE: place}}])
    return entries


def place_of(options: Mapping[str, Any]) -> tuple[int, int] | None:
    """The number of the tile that an entry of a conditioning is for, and how many prompts there
    are; None for the whole picture."""
    told = options.get("model_conds", {}).get(TILE)
    place: tuple[int, int] | None = None if told is None else told.cond
    return place


def require_number(places: Sequence[tuple[int, int] | None], grid: TileGrid, images: int) -> None:
    """Raise BIRError unless the prompts are one for each tile, or one for each tile of each of the
    `images` of a batch.

    Args:
        places: of all conditionings.
    """
    for count in {place[1] for place in places if place is not None}:
        if count not in (grid.count, images * grid.count):
            batch = f", or {images * grid.count} for {images} images" if images > 1 else ""
            raise BIRError(
                f"Prompts for Tiles should have a prompt for each tile of the picture, which is "
                f"sampled in {grid}{batch}, but {count} came; give as many, or a single one. Split "
                "Into Tiles with the same tile_size and overlap shows the tiles."
            )


def of_image(conditioning: Conditioning, grid: TileGrid, index: int, images: int) -> Conditioning:
    """The CONDITIONING of one image of a batch, which is sampled alone."""
    places = [place_of(options) for _, options in conditioning]
    require_number(places, grid, images)
    chosen: Conditioning = []
    for place, (embedding, options) in zip(places, conditioning, strict=True):
        if place is None or (place[1] == grid.count and grid.count > 1):
            chosen.append([embedding, options])
        elif place[0] // grid.count == index:
            own = {name: told for name, told in options["model_conds"].items() if name != TILE}
            if grid.count > 1:
                own[TILE] = TilePrompt((place[0] % grid.count, grid.count))
            chosen.append([embedding, {**options, "model_conds": own}])
    return chosen


def prompted(
    conds: Sequence[list[Cond] | None], grid: TileGrid, batch: int, cuts: Sequence[Tile]
) -> list[list[Cond] | None]:
    """The conditionings of one call of the network on parts of the latent; each part is told what
    the tile of the grid is told that is nearest to it.

    Args:
        batch: images; the samples of the call lie part by part.
    """
    numbers = [grid.nearest(cut) for cut in cuts]
    return [None if each is None else of_call(each, grid, numbers, batch) for each in conds]


def of_call(conds: Sequence[Cond], grid: TileGrid, chosen: Sequence[int], batch: int) -> list[Cond]:
    """The conditionings for some tiles of a batch: those for the whole picture as they are, and the
    prompts of the tiles put together, so that every sample gets its own.

    Args:
        chosen: numbers of the tiles, in the order of the call.
        batch: images; the samples of the call lie tile by tile.
    """
    found = []
    of_places: dict[tuple[int, int], list[Cond]] = {}
    for cond in conds:
        place = place_of(cond)
        if place is None:
            found.append(cond)
        else:
            of_places.setdefault(place, []).append(cond)
    for count in {count for _, count in of_places}:
        # One prompt serves a tile of all images, or each image has its own.
        images = range(1 if count == grid.count else batch)
        numbers = [image * grid.count + tile for tile in chosen for image in images]
        parts = [of_places[number, count] for number in numbers]
        if len({len(part) for part in parts}) > 1:
            raise BIRError(
                "All tiles should have as many prompts, but an area of the other prompt has made "
                "them uneven; give both prompts the same areas, or take masks."
            )
        found += [_together(row, batch // len(images)) for row in zip(*parts, strict=True)]
    return found


def _together(row: Sequence[Cond], repeat: int) -> Cond:
    """One conditioning of several that differ in their prompts only, each for `repeat` samples."""
    told = {name: value for name, value in row[0]["model_conds"].items() if name != TILE}
    for name, value in told.items():
        # Maps of the latent belong to the picture.
        if len(row) > 1 and isinstance(value.cond, Tensor) and value.cond.ndim < 4:
            of_samples = [cond["model_conds"][name].process_cond(batch_size=repeat) for cond in row]
            told[name] = value._copy_with(of_samples[0].concat(of_samples[1:]))
    return {**row[0], "model_conds": told}
