"""Settings on a piece of the picture before the long run."""

from comfy_api.latest import io
from torch import Tensor

from ..bir_core.diffbir.piece import SIDE, piece_around
from ..bir_core.images import from_channels_last
from ..bir_core.tiling import Tile
from .host.node import Node
from .inputs import PieceToTry


class BIRTryCrop(Node):
    """A box on a picture to the piece that DiffBIR Sampler restores alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRTryCrop",
            display_name="Try a Crop",
            category="image/restoration",
            description=(
                "Chooses a piece of a photograph, so that DiffBIR Sampler or Restore Photo "
                "restores nothing but this: to try settings before the long run, with the noise "
                "that the place has in the whole picture."
            ),
            search_aliases=["preview", "test crop", "region", "quick try", "diffbir"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The photograph on which the box is drawn, straight from Load Image.",
                ),
                io.Int.Input(
                    "side",
                    default=SIDE,
                    min=64,
                    max=4096,
                    step=64,
                    tooltip="Of the piece, a square, in pixels of the result. 512 is a tile of the "
                    "sampling; smaller pieces see less around them.",
                ),
                io.BoundingBox.Input(
                    "place",
                    component="ImageCrop",
                    default={"x": 0, "y": 0, "width": 128, "height": 128},
                    tooltip="A box on the photograph, in its pixels: its middle is the middle of "
                    "the piece. It can be drawn under Nodes 2.0.",
                ),
            ],
            outputs=[
                PieceToTry.Output(
                    display_name="piece",
                    tooltip="For DiffBIR Sampler, Restore Photo and Crop to Picture. Disconnect it "
                    "for the whole picture.",
                )
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, side: int, place: dict[str, int]) -> io.NodeOutput:
        height, width = from_channels_last(image).shape[-2:]
        box = Tile(place["y"], place["x"], place["height"], place["width"])
        return io.NodeOutput(piece_around(box, height, width, side))
