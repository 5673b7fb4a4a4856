"""Nodes that load IRControlNet and condition on the result of stage 1."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.checkpoints import inspect, load_model
from ..bir_core.checkpoints.origin import Origin
from ..bir_core.diffbir.masks import Painted, control_share, latent_mask
from ..bir_core.diffbir.settings import CHOICES
from ..bir_core.diffbir.versions import VERSIONS
from ..bir_core.images import PadMode, from_channels_last, pad_to_multiple, split_alpha
from ..bir_core.latents import PADDED_MULTIPLE
from ..bir_core.models import known_file, names_for
from ..bir_core.networks.unet import UNetConfig
from .automatic import BY_NAME, TRAINED_ON, base_needed, loaded, set_base, version_of_choice
from .host import control as host_control
from .host import control_loader as host_control_loader
from .host import hint, messages, services
from .host.node import Node
from .host.protocols import VAE, Conditioning, ControlNet, Model
from .inputs import PICTURE_SIZE, mask_input, painted_input, part_of_the_sampling, seed_input
from .operations import fault_of_file, fingerprint_of_file, mask_of_places, require_control

NO_MODEL = "connect the base model to DiffBIR Conditioning, which sets it for the control net."


class DiffBIRControlNetLoader(Node):
    """A checkpoint file to a CONTROL_NET."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRControlNetLoader",
            display_name="Load DiffBIR ControlNet",
            category="model/loaders",
            description=(
                "Loads IRControlNet, the network that makes Stable Diffusion 2.1 restore a "
                "picture: files of DiffBIR v1, v2 and v2.1, and your own. For DiffBIR "
                "Conditioning or Apply ControlNet."
            ),
            search_aliases=["diffbir", "ircontrolnet", "restoration", "controlnet loader"],
            inputs=[
                io.Combo.Input(
                    "control_net_name",
                    options=host_control_loader.control_names(),
                    tooltip=f"A file of models/controlnet: {', '.join(names_for('controlnet'))}, "
                    "or one of your own training.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=["default", *host_control_loader.FP8],
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip="How the weights are stored. default: as the device computes best; "
                    "fp8: half the memory of fp16, with small deviations.",
                ),
                io.Combo.Input(
                    "trained_on",
                    options=[BY_NAME, *TRAINED_ON, *VERSIONS],
                    default=BY_NAME,
                    optional=True,
                    advanced=True,
                    tooltip="The version, which says the base model that the network was trained "
                    "on: v1 and v2 eps with the plain schedule, v2.1 v-prediction with zero "
                    "terminal SNR. Of published files only the name says it. What stands on "
                    "automatic follows it.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Encodes the condition image where Apply ControlNet has no VAE.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(),
                io.String.Output(
                    display_name="report",
                    tooltip="Which version of DiffBIR it is taken for; of a published file, its "
                    "licence too.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        control_net_name: str,
        weight_dtype: str = "default",
        trained_on: str = BY_NAME,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        path = host_control_loader.control_path(control_net_name)
        info = inspect(path, architecture="ir_controlnet")
        assert isinstance(info.config, UNetConfig)
        network = load_model(path, dtype=info.dtype, architecture="ir_controlnet")
        origin = network.origin
        assert isinstance(origin, Origin)
        control = host_control_loader.build_control_net(
            info.config,
            network.state_dict(),
            weight_dtype=weight_dtype,
            version=version_of_choice(trained_on, origin),
            vae=vae,
        )
        known = known_file(control_net_name)
        report = loaded(control) + ("" if known is None else f" {known.description}")
        messages.say(report)
        return io.NodeOutput(control, report, ui=ui.PreviewText(report))

    @classmethod
    def validate_inputs(cls, control_net_name: str | None) -> bool | str:
        return fault_of_file(control_net_name, host_control_loader.control_path, "ir_controlnet")

    @classmethod
    def fingerprint_inputs(cls, control_net_name: str | None, **_: object) -> object:
        return fingerprint_of_file(control_net_name, host_control_loader.control_path)


class DiffBIRConditioning(Node):
    """Prompts and the stage-1 image to conditionings and the latent to sample."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRConditioning",
            display_name="DiffBIR Conditioning",
            category="model/conditioning/controlnet",
            description=(
                "Conditions a sampler on the result of stage 1: pads the image to multiples of "
                "64 pixels, encodes it once and gives the latent of the right size. Crop to "
                "Picture removes the padding after the VAE."
            ),
            search_aliases=["diffbir", "apply controlnet", "restoration conditioning"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Prompt to follow."),
                io.Conditioning.Input("negative", tooltip="Prompt to avoid."),
                io.ControlNet.Input("control_net", tooltip="From Load DiffBIR ControlNet."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 2.1."),
                io.Image.Input(
                    "image",
                    tooltip="The result of stage 1, any size; the trained one has a short side of "
                    "512 pixels or more. A batch is restored picture by picture.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor on the control. 1: as trained; less follows the image less.",
                ),
                *part_of_the_sampling("the control acts"),
                io.Int.Input(
                    "noise_aug",
                    default=0,
                    min=0,
                    max=999,
                    optional=True,
                    advanced=True,
                    tooltip="Timestep up to which noise is put on the condition: more invents "
                    "more and follows the image less. 0: none. v2.1 was trained with 0 to 199, v1 "
                    "and v2 with none.",
                ),
                seed_input("Of noise_aug only: image i of a batch takes seed + i.", optional=True),
                io.Combo.Input(
                    "start",
                    options=list(CHOICES["start"]),
                    default="noise",
                    optional=True,
                    advanced=True,
                    tooltip="What the latent holds. noise: nothing, the sampler starts from noise "
                    "alone. condition: the image, for v1 and v2 with samplers that add no noise "
                    "on the way; sample it with denoise 1.",
                ),
                io.Combo.Input(
                    "padding",
                    options=list(CHOICES["padding"]),
                    default="reflect",
                    optional=True,
                    advanced=True,
                    tooltip="What lies right of and below the image up to a multiple of 64 "
                    "pixels. reflect: its mirror image; symmetric: the same with the last pixel "
                    "twice; black: as in the official code.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The base model, which comes out set to what the control net was "
                    "trained on: for the sampler.",
                ),
                mask_input(),
                painted_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="For the sampler; Crop to Picture reads the size from it.",
                ),
                io.Model.Output(
                    display_name="model", tooltip="The model that came in, set for the control net."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What the model is set to, and what is doubtful about it.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlNet,
        vae: VAE,
        image: Tensor,
        strength: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        noise_aug: int = 0,
        seed: int = 0,
        start: str = "noise",
        padding: PadMode = "reflect",
        model: Model | None = None,
        mask: Tensor | None = None,
        painted: Painted = "grey",
    ) -> io.NodeOutput:
        ir_control_net = require_control(control_net, vae)
        if model is None:
            set_model, report = services.blocked(NO_MODEL), base_needed(ir_control_net)
        else:
            based = set_base(model, ir_control_net)
            set_model, report = based.model, based.report
        colours, _ = split_alpha(from_channels_last(image.float()))
        height, width = colours.shape[-2:]
        places = mask_of_places(mask, painted, len(colours), height, width)
        padded = pad_to_multiple(colours, PADDED_MULTIPLE, padding)
        latent = hint.encode(vae, padded)
        if strength:
            control = ir_control_net.copy().set_encoded_hint(
                padded, latent, vae, strength, (start_percent, end_percent)
            )
            control.noise_aug, control.seed = noise_aug, seed
            if places is not None:
                control.share = control_share(latent_mask(places, height, width))
            positive, negative = host_control.attach_control((positive, negative), control)
        samples = latent if start == "condition" else torch.zeros_like(latent)
        messages.say(report)
        return io.NodeOutput(
            positive,
            negative,
            {"samples": samples, PICTURE_SIZE: (height, width)},
            set_model,
            report,
            ui=ui.PreviewText(report),
        )
