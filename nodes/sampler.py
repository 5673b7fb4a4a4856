"""Stage 2 of DiffBIR in one node, made of what the other nodes are made of."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.diffbir.masks import Painted, control_share, latent_mask
from ..bir_core.diffbir.piece import Piece, guidance_of_piece, in_latents, seen, whole_of
from ..bir_core.diffbir.settings import CHOICES
from ..bir_core.diffusion.schedules import model_sigmas
from ..bir_core.images import (
    crop,
    from_channels_last,
    pad_to_multiple,
    split_alpha,
    to_channels_last,
)
from ..bir_core.latents import PADDED_MULTIPLE
from ..bir_core.seeds import image_seeds
from ..bir_core.tiling import latent_grid, on_canvas
from .automatic import AS_CONNECTED, AUTOMATIC, SCHEDULES, Sampling, settled
from .host import control as host_control
from .host import messages, one_image, services, tile_prompts
from .host import sampling as host_sampling
from .host.node import Node
from .host.protocols import VAE, Conditioning, ControlNet, Model
from .inputs import (
    PICTURE_SIZE,
    SHARED,
    AskedFor,
    PictureSize,
    blending_input,
    mask_input,
    noise_input,
    painted_input,
    piece_input,
    seed_input,
)
from .operations import (
    asked_for_piece,
    decoded,
    encoded,
    finished,
    fix_colors,
    guide,
    in_float32_if_need_be,
    mask_of_places,
    require_control,
    require_room_for,
    tile_model,
)


class DiffBIRSampler(Node):
    """From the stage-1 image to the restored image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRSampler",
            display_name="DiffBIR Sampler",
            category="model/sampling",
            description=(
                "Restores the result of stage 1 with Stable Diffusion 2.1 and IRControlNet: "
                "conditioning, guidance, tiles, sampling, decoding and colour fix in one. The "
                "single nodes of these names give the same and can be combined freely."
            ),
            search_aliases=[
                *("diffbir", "blind restoration", "restore photo", "photo restoration"),
                *("old photo", "repair", "face", "restore face", "upscale", "enhance", "unblur"),
                *("blurry", "sharpen", "denoise", "remove noise"),
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Stable Diffusion 2.1 base for v1 and v2, DiffBIR's zero-SNR base for "
                    "v2.1.",
                ),
                io.Conditioning.Input("positive", tooltip="Prompt to follow."),
                io.Conditioning.Input("negative", tooltip="Prompt to avoid."),
                io.ControlNet.Input("control_net", tooltip="From Load DiffBIR ControlNet."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 2.1."),
                io.Image.Input(
                    "image",
                    tooltip="From the Restoration Module. A batch is restored image by image; an "
                    "alpha channel is kept.",
                ),
                seed_input("Of the noise: image i of a batch takes seed + i."),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Number of steps. 0: automatic, as the authors for the version of the "
                    "control net: 10 for v2.1, 50 for v1 and v2.",
                ),
                io.Float.Input(
                    "cfg",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strongly the prompts count. 1: without the negative prompt. Below "
                    "0: automatic, as the authors: 8 for v2.1, 4 for v2, 1 for v1.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=[*host_sampling.sampler_names(), AUTOMATIC],
                    default=AUTOMATIC,
                    tooltip="automatic: as the authors, dpmpp_3m_sde for v2.1, ddpm for v1 and v2.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[*SCHEDULES, *host_sampling.scheduler_names(), AUTOMATIC],
                    default=AUTOMATIC,
                    tooltip="automatic: what the authors give the sampler, edm to dpmpp_3m_sde, "
                    "spaced to ddpm.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor on the control. 1: as trained; less follows the image less.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.05,
                    round=0.0001,
                    tooltip="Restoration guidance: pulls flat regions towards the stage-1 image. "
                    "0: off; 0.5 for 512 x 512 pixels, four times that for four times the pixels.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=512,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="Side in pixels of the tiles in which larger pictures are sampled. 0: "
                    "the whole picture at once, where the memory allows.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=list(CHOICES["color_fix"]),
                    default="wavelet",
                    tooltip="Gives the result the colours of the stage-1 image: wavelet as in "
                    "DiffBIR, or adain.",
                ),
                PictureSize.Input(
                    "size",
                    optional=True,
                    tooltip="From the Restoration Module: the size in pixels to return to, and the "
                    "alpha channel of its image. The latent keeps the size of the stage-1 image.",
                ),
                mask_input(),
                io.Int.Input(
                    "overlap",
                    default=256,
                    min=0,
                    max=4032,
                    step=8,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels that neighbouring tiles share; at most half a tile is used.",
                ),
                io.Combo.Input(
                    "guidance_space",
                    options=list(CHOICES["guidance_space"]),
                    default="latent",
                    optional=True,
                    advanced=True,
                    tooltip="latent: costs almost nothing. rgb: on pixels as in the paper, several "
                    "times the time and memory of a step.",
                ),
                io.Combo.Input(
                    "guidance_loss",
                    options=list(CHOICES["guidance_loss"]),
                    default="w_mse",
                    optional=True,
                    advanced=True,
                    tooltip="w_mse: flat regions are held, edges are free. mse: everything alike.",
                ),
                io.Boolean.Input(
                    "rescale_cfg",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="On: cfg grows from 1 to 1 + cfg along the sampling.",
                ),
                io.Int.Input(
                    "noise_aug",
                    default=0,
                    min=0,
                    max=999,
                    optional=True,
                    advanced=True,
                    tooltip="Timestep up to which noise is put on the condition: invents more. "
                    "v2.1 was trained with 0 to 199.",
                ),
                io.Combo.Input(
                    "start",
                    options=list(CHOICES["start"]),
                    default="noise",
                    optional=True,
                    advanced=True,
                    tooltip="What the sampling starts from: noise alone, or the image under the "
                    "noise, for v1 and v2 with samplers that add no noise on the way.",
                ),
                io.Combo.Input(
                    "sampling",
                    options=[AUTOMATIC, AS_CONNECTED],
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="What the model predicts and how its noise ends. automatic: what the "
                    "control net was trained on. as connected: what the model is set to.",
                ),
                io.Combo.Input(
                    "guidance_per",
                    options=list(CHOICES["guidance_per"]),
                    default="picture",
                    optional=True,
                    advanced=True,
                    tooltip="What the guidance is for. picture: for the size of this one, as in "
                    "the official code. 512x512: it means the same at any size.",
                ),
                blending_input("stage-1 image"),
                painted_input(),
                piece_input(),
                noise_input(),
            ],
            outputs=[
                io.Image.Output(tooltip="The restored image, without padding."),
                io.Latent.Output(
                    tooltip="The sampled latent, padded to 64 pixels; Crop to Picture knows its "
                    "size."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The settings that were taken, and what is doubtful about them.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlNet,
        vae: VAE,
        image: Tensor,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        strength: float,
        guidance: float,
        tile_size: int,
        color_fix: str,
        size: AskedFor | None = None,
        mask: Tensor | None = None,
        overlap: int = 256,
        guidance_space: str = "latent",
        guidance_loss: str = "w_mse",
        rescale_cfg: bool = False,
        noise_aug: int = 0,
        start: str = "noise",
        sampling: str = AUTOMATIC,
        guidance_per: str = "picture",
        blending: float = 0.0,
        painted: Painted = "grey",
        piece: Piece | None = None,
        noise: str = "per image",
    ) -> io.NodeOutput:
        ir_control_net = require_control(control_net, vae)
        chosen = settled(
            model,
            ir_control_net,
            sampling=sampling,
            steps=steps,
            cfg=cfg,
            sampler=sampler_name,
            scheduler=scheduler,
        )
        colours, alpha = split_alpha(from_channels_last(image.float()))
        height, width = colours.shape[-2:]
        asked = AskedFor(height, width, alpha) if size is None else size
        require_room_for(colours, 1, lambda _: (asked.height, asked.width))
        masks = mask_of_places(mask, painted, len(colours), height, width)
        sigmas = sigmas_of(chosen)
        seeds = image_seeds(seed, len(colours), noise == SHARED)
        whole = whole_of(height, width)
        tile = whole if piece is None else piece.tile(height, width)
        shown = seen(tile, height, width)
        place = None if piece is None else in_latents(tile)
        pull = guidance
        if guidance_per == "picture":
            pull = guidance_of_piece(guidance, tile, whole)
        grid = latent_grid(height, width, tile_size, min(overlap, tile_size // 2))
        of_images = [
            [
                tile_prompts.of_image(prompt, grid, index, len(colours))
                for prompt in one_image.of_image((positive, negative), index, len(colours))
            ]
            for index in range(len(colours))
        ]

        def of_image(index: int) -> tuple[Tensor, Tensor]:
            picture = colours[index : index + 1]
            own_seed = seeds[index]
            padded = pad_to_multiple(picture, PADDED_MULTIPLE)
            own_mask = None if masks is None else masks[index : index + 1]
            values = None if own_mask is None else latent_mask(own_mask, height, width)
            beginning = messages.which_image(index, len(colours))
            messages.say(f"{beginning}encoding")
            latent_of_tile = encoded(vae, tile.crop(padded), tile_size)
            condition = on_canvas(latent_of_tile, in_latents(tile), *in_latents(whole)[2:])
            begin = condition if start == "condition" else torch.zeros_like(condition)

            def sampled(model: Model, control_net: host_control.IRControlNet, wide: bool) -> Tensor:
                followed, avoided = of_images[index]
                if strength:
                    control = control_net.copy().set_encoded_hint(padded, condition, vae, strength)
                    control.noise_aug, control.seed = noise_aug, own_seed
                    control.share = None if values is None else control_share(values)
                    followed, avoided = host_control.attach_control((followed, avoided), control)
                guided, _ = guide(
                    model,
                    tile.crop(padded),
                    vae,
                    scale=pull,
                    space=guidance_space,
                    loss=guidance_loss,
                    per=guidance_per,
                    mask=None if values is None else in_latents(tile).crop(values),
                    latent=latent_of_tile,
                    tile=tile_size,
                    wide=wide,
                    place=place,
                )
                side = tile_size or (0 if place is None else max(tile.height, tile.width))
                if side:
                    shared = min(overlap, side // 2)
                    guided = tile_model(guided, side, shared, "gaussian", 0, beginning, place)
                guider = host_sampling.growing_cfg_guider(
                    guided, followed, avoided, chosen.cfg, rescale_cfg
                )
                return host_sampling.sample(guider, begin, chosen.sampler, sigmas, own_seed)

            messages.say(f"{beginning}sampling")
            latent = in_float32_if_need_be(sampled, chosen.model, ir_control_net, vae)
            messages.say(f"{beginning}decoding")
            latent = in_latents(tile).crop(latent)
            restored = crop(decoded(vae, latent, tile_size), *shown[2:])
            own_mask = None if own_mask is None else shown.crop(own_mask)
            return fix_colors(restored, shown.crop(picture), color_fix, blending, own_mask), latent

        # One after the other: each image comes out as if alone, in the memory of one.
        pictures, latents = zip(*(of_image(index) for index in range(len(colours))), strict=True)
        if piece is not None:
            asked = asked_for_piece(asked, shown, (height, width))
        restored = finished(torch.cat(pictures), asked)
        messages.say(chosen.report)
        return io.NodeOutput(
            services.to_output(to_channels_last(restored)),
            {"samples": services.to_output(torch.cat(latents)), PICTURE_SIZE: shown[2:]},
            chosen.report,
            ui=ui.PreviewText(chosen.report),
        )


def sigmas_of(chosen: Sampling) -> Tensor:
    """(steps + 1,) descending: the noise levels, by DiffBIR's schedules or ComfyUI's."""
    if chosen.scheduler in SCHEDULES:
        trained = host_sampling.trained_sigmas(chosen.model)
        return model_sigmas(chosen.scheduler, trained, chosen.steps)
    return host_sampling.stock_sigmas(chosen.model, chosen.sampler, chosen.scheduler, chosen.steps)
