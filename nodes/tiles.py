"""The tiles of tiled diffusion as data: cut out, joined, and a prompt for each."""

from typing import get_args

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.errors import BIRError
from ..bir_core.images import (
    attach_alpha,
    crop,
    from_channels_last,
    pad_to_multiple,
    split_alpha,
    to_channels_last,
)
from ..bir_core.latents import PADDED_MULTIPLE
from ..bir_core.tiling import TileWeights, join_tiles, latent_grid, split_tiles
from .host import services, tile_prompts
from .host.node import Node
from .host.protocols import Clip, Conditioning
from .inputs import CutTiles, TilesOf, tile_inputs


class BIRTilePrompts(Node):
    """Prompts in the order of tiles to one CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRTilePrompts",
            display_name="Prompts for Tiles",
            category="model/conditioning/transform",
            description=(
                "Gives each tile of Tiled Diffusion (DiffBIR) or DiffBIR Sampler a prompt of its "
                "own, row by row: a line for each, or texts or conditionings from other nodes, "
                "such as captions of Split Into Tiles. A single prompt is for all tiles."
            ),
            search_aliases=[
                *("tile prompt", "regional prompt", "caption tiles", "tiled captions"),
                *("multidiffusion", "prompt per tile"),
            ],
            is_input_list=True,
            inputs=[
                io.String.Input(
                    "lines",
                    default="",
                    multiline=True,
                    tooltip="A prompt in each line, one for each tile: from left to right, then "
                    "the next row. An empty line is an empty prompt.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Text encoder of the model, for texts."
                ),
                io.MultiType.Input(
                    "prompts",
                    types=[io.String, io.Conditioning],
                    optional=True,
                    tooltip="Instead of lines: a list of texts, such as a captioner makes of the "
                    "single tiles of Split Into Tiles, or of conditionings, in the same order. "
                    "For a batch a prompt for each tile, or for each tile of each image.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    tooltip="For the sampler, or first for DiffBIR Conditioning, Apply ControlNet, "
                    "masks; every tile follows its own prompt."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        lines: list[str],
        clip: list[Clip] | None = None,
        prompts: list[str | Conditioning] | None = None,
    ) -> io.NodeOutput:
        written = [line for text in lines for line in text.splitlines()]
        if prompts and any(line.strip() for line in written):
            raise BIRError(
                "Prompts for Tiles should get lines or prompts, but both came; empty the lines, or "
                "disconnect prompts."
            )
        given = prompts or written
        texts = [each for each in given if isinstance(each, str)]
        encoded = iter(tile_prompts.encode(clip[0] if clip else None, texts) if texts else [])
        chosen = [next(encoded) if isinstance(each, str) else each for each in given]
        return io.NodeOutput(tile_prompts.of_tiles(chosen))


class BIRSplitTiles(Node):
    """Pictures to the tiles in which tiled diffusion samples them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRSplitTiles",
            display_name="Split Into Tiles",
            category="image/transform",
            description=(
                "Cuts pictures into the overlapping tiles in which Tiled Diffusion (DiffBIR) and "
                "DiffBIR Sampler work, for captions, for upscalers, or to look at. Join Tiles puts "
                "them together again."
            ),
            search_aliases=["tile", "split image", "cut into tiles", "grid", "caption tiles"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="One or a batch. For prompts the image that the sampler gets, from the "
                    "Restoration Module.",
                ),
                *tile_inputs(
                    "Side of a tile in pixels, the same as in the sampler's tiles.",
                    "Pixels that neighbouring tiles share, the same as in the sampler's "
                    "tiles; more than half a tile is for Tiled Diffusion (DiffBIR) only.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="tiles",
                    tooltip="All tiles as a batch, row by row; those of the next image follow.",
                ),
                io.Image.Output(
                    display_name="single_tiles",
                    is_output_list=True,
                    tooltip="The same as a list, for nodes that take an image at a time, such as "
                    "captioners.",
                ),
                CutTiles.Output(
                    display_name="places", tooltip="Where each came from, for Join Tiles."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many tiles, and in which order."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, tile_size: int, overlap: int) -> io.NodeOutput:
        pictures, alpha = split_alpha(from_channels_last(image.float()))
        height, width = pictures.shape[-2:]
        grid = latent_grid(height, width, tile_size, overlap).in_pixels()
        pieces = split_tiles(pad_to_multiple(pictures, PADDED_MULTIPLE), grid)
        batch = services.to_output(to_channels_last(pieces))
        of_each = f" for each of {len(pictures)} images" if len(pictures) > 1 else ""
        report = f"{grid}{of_each}"
        return io.NodeOutput(
            batch,
            list(torch.split(batch, 1)),
            TilesOf(len(pictures), height, width, grid, alpha),
            report,
            ui=ui.PreviewText(report),
        )


class BIRJoinTiles(Node):
    """Tiles, changed or enlarged, back to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRJoinTiles",
            display_name="Join Tiles",
            category="image/transform",
            description=(
                "Puts the tiles of Split Into Tiles together again, blended where they overlap. "
                "Tiles that were enlarged by 2, 3, 4 ... give pictures enlarged as much."
            ),
            search_aliases=["tile", "merge tiles", "untile", "stitch", "combine tiles"],
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "tiles",
                    tooltip="All tiles in the order of Split Into Tiles, as a batch or a list; all "
                    "of their size, or enlarged by the same whole number.",
                ),
                CutTiles.Input("places", tooltip="From Split Into Tiles."),
                io.Combo.Input(
                    "weights",
                    options=list(get_args(TileWeights)),
                    default="gaussian",
                    optional=True,
                    advanced=True,
                    tooltip="How overlapping tiles are blended, as in Tiled Diffusion (DiffBIR). "
                    "gaussian: the centre of a tile counts most. official: half a pixel off "
                    "centre. uniform: plain average.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The pictures, without padding, with their alpha.")],
        )

    @classmethod
    def execute(
        cls,
        tiles: list[Tensor],
        places: list[TilesOf],
        weights: list[TileWeights] | None = None,
    ) -> io.NodeOutput:
        if len(places) > 1:
            raise BIRError(
                "Join Tiles should get the tiles of one batch of pictures, but places of "
                f"{len(places)} came; give Split Into Tiles a batch and not a list."
            )
        cut = places[0]
        batches = [split_alpha(from_channels_last(each.float()))[0] for each in tiles]
        chosen = weights[0] if weights else "gaussian"
        joined = join_tiles(batches, cut.grid, cut.count, chosen)
        scale = joined.shape[-1] // cut.grid.width
        picture = crop(joined, cut.height * scale, cut.width * scale).clamp(0, 1)
        return io.NodeOutput(services.to_output(to_channels_last(attach_alpha(picture, cut.alpha))))
