"""Sampling of large pictures in tiles."""

from typing import get_args

from comfy_api.latest import io

from ..bir_core.tiling import TileWeights
from .host.node import Node
from .host.protocols import Model
from .inputs import tile_inputs
from .operations import tile_model


class DiffBIRTiledDiffusion(Node):
    """Makes a MODEL sample large pictures in overlapping tiles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRTiledDiffusion",
            display_name="Tiled Diffusion (DiffBIR)",
            category="model/patch",
            description=(
                "Lets a model sample pictures of any size in overlapping tiles, which are blended "
                "at every step. Control nets, masks and areas are cut with the tiles; a picture "
                "that fits into one tile is sampled as without this node."
            ),
            search_aliases=["tiled diffusion", "multidiffusion", "tile", "large picture"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with."),
                *tile_inputs(
                    "Side of a tile in pixels. 512 is what Stable Diffusion 1.5 and 2.1 "
                    "base were trained on, 1024 is for XL; smaller tiles need less memory and see "
                    "less of the picture.",
                    "Pixels that neighbouring tiles share, less than a tile. More makes "
                    "seams less visible and takes more time.",
                ),
                io.Combo.Input(
                    "weights",
                    options=list(get_args(TileWeights)),
                    default="gaussian",
                    optional=True,
                    advanced=True,
                    tooltip="How overlapping tiles are blended. gaussian: the centre of a tile "
                    "counts most. official: the same as in DiffBIR's code, half a latent pixel "
                    "off centre. uniform: plain average, as in DiffBIR v1.",
                ),
                io.Int.Input(
                    "tile_batch",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="Tiles that go through the model at a time: more is faster on a large "
                    "GPU. 0 chooses by the free memory. The result does not depend on it.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        tile_size: int,
        overlap: int,
        weights: TileWeights = "gaussian",
        tile_batch: int = 0,
    ) -> io.NodeOutput:
        return io.NodeOutput(tile_model(model, tile_size, overlap, weights, tile_batch))
