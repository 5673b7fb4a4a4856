"""Restoration guidance for every sampler."""

from comfy_api.latest import io
from torch import Tensor
from torch.nn import functional as F

from ..bir_core.diffbir.masks import Painted, latent_mask
from ..bir_core.diffbir.settings import CHOICES
from ..bir_core.images import crop, from_channels_last, pad_to_multiple, split_alpha
from ..bir_core.latents import PADDED_MULTIPLE
from .host import hint, services
from .host.node import Node
from .host.protocols import VAE, Model
from .host.vae import DEFAULT_TILE
from .inputs import mask_input, painted_input, part_of_the_sampling
from .operations import guide, mask_of_places


class DiffBIRGuidance(Node):
    """Keeps what a MODEL samples close to the stage-1 image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRGuidance",
            display_name="Restoration Guidance (DiffBIR)",
            category="model/patch",
            description=(
                "Pulls every step of the sampling towards the stage-1 image: more faithful with a "
                "larger scale, more inventive with a smaller one. Flat regions are held, edges "
                "and textures are left free. Works with every sampler."
            ),
            search_aliases=["diffbir", "faithful", "fidelity", "region adaptive", "restore cfg"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to guide: Stable Diffusion 1, 2 or XL, no flow model.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="The result of stage 1: the same image as for DiffBIR Conditioning.",
                ),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Float.Input(
                    "scale",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.05,
                    round=0.0001,
                    tooltip="Strength of the pull; 0 leaves only what a mask keeps. DiffBIR "
                    "recommends 0.5 for 512 x 512 pixels. The loss is a mean over the picture, so "
                    "one of four times the pixels needs four times the scale, unless per is "
                    "512x512.",
                ),
                io.Combo.Input(
                    "space",
                    options=list(CHOICES["guidance_space"]),
                    default="latent",
                    tooltip="Where image and estimate are compared. latent: costs almost nothing. "
                    "rgb: on pixels, through the VAE's decoder and back, as in the paper: several "
                    "times the time and memory of a step.",
                ),
                io.Combo.Input(
                    "loss",
                    options=list(CHOICES["guidance_loss"]),
                    default="w_mse",
                    tooltip="w_mse: flat regions are held, edges and textures are free. mse: "
                    "everything is held alike.",
                ),
                *part_of_the_sampling("it acts"),
                io.Int.Input(
                    "repeats",
                    default=1,
                    min=1,
                    max=20,
                    optional=True,
                    advanced=True,
                    tooltip="Pulls per step: several small ones are steadier than a large one.",
                ),
                mask_input(),
                io.Int.Input(
                    "tile_size",
                    default=DEFAULT_TILE,
                    min=0,
                    max=4096,
                    step=64,
                    optional=True,
                    advanced=True,
                    tooltip="For the space rgb: side in pixels of the tiles in which larger "
                    "pictures go through the decoder and back. Equal to the whole picture at "
                    "once (0) in a fraction of the memory.",
                ),
                io.Combo.Input(
                    "per",
                    options=list(CHOICES["guidance_per"]),
                    default="picture",
                    optional=True,
                    tooltip="What the scale is for. picture: for the size of this one, as in the "
                    "official code. 512x512: it means the same at any size, 0.5 is recommended.",
                ),
                painted_input(),
            ],
            outputs=[
                io.Model.Output(),
                io.Mask.Output(
                    display_name="weight_map",
                    tooltip="How strongly each pixel is held: 1 fully, 0 not at all.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        image: Tensor,
        vae: VAE,
        scale: float,
        space: str,
        loss: str,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        repeats: int = 1,
        mask: Tensor | None = None,
        tile_size: int = DEFAULT_TILE,
        per: str = "picture",
        painted: Painted = "grey",
    ) -> io.NodeOutput:
        hint.require_vae(vae)
        colours, _ = split_alpha(from_channels_last(image.float()))
        height, width = colours.shape[-2:]
        masks = mask_of_places(mask, painted, len(colours), height, width)
        padded = pad_to_multiple(colours, PADDED_MULTIPLE)
        patched, weight = guide(
            model,
            padded,
            vae,
            scale=scale,
            space=space,
            loss=loss,
            per=per,
            start_percent=start_percent,
            end_percent=end_percent,
            repeats=repeats,
            mask=None if masks is None else latent_mask(masks, height, width),
            tile=tile_size,
        )
        factor = padded.shape[-1] // weight.shape[-1]
        shown = crop(F.interpolate(weight, scale_factor=factor), height, width)
        return io.NodeOutput(patched, services.to_output(shown[:, 0]))
