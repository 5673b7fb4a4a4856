"""The quick path: one node that becomes the nodes of a whole restoration."""

from dataclasses import asdict
from typing import Any, get_args

from comfy_api.latest import io

from ..bir_core.diffbir.fidelity import of_fidelity
from ..bir_core.diffbir.masks import Painted
from ..bir_core.diffbir.versions import Task, find_version
from ..bir_core.errors import BIRError
from ..bir_core.weights import DEFAULT_MODEL, builtin_model_path
from .automatic import likely_version
from .host import fitting_files
from .host.control_loader import control_path
from .host.node import Node
from .host.services import Graph, Link
from .inputs import painted_input, piece_input, seed_input
from .operations import fingerprint_of_file

NETWORK, DIFFBIR = "one network", "DiffBIR"
# The entry of a list without files, and what is said when it is queued.
NOTHING = "no file found"


class BIRRestorePhoto(Node):
    """A picture to the restored picture, by expansion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRRestorePhoto",
            display_name="Restore Photo",
            category="image/restoration",
            description=(
                "Restores and enlarges a photograph with one network, or with DiffBIR, which also "
                "invents detail. It becomes the stock loaders and the nodes of this pack, with "
                "the settings of the authors; take those for all that it does not ask."
            ),
            search_aliases=[
                *("restore photo", "photo restoration", "old photo", "repair", "enhance"),
                *("upscale", "enlarge", "remove noise", "denoise", "unblur", "sharpen"),
                *("jpeg artifacts", "restore face", "diffbir", "quick"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    raw_link=True,
                    tooltip="The photograph, any size. A batch is restored picture by picture; an "
                    "alpha channel is kept.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option(NETWORK, _inputs_of_one_network()),
                        io.DynamicCombo.Option(DIFFBIR, _inputs_of_diffbir()),
                    ],
                    tooltip="one network: seconds, invents little. DiffBIR: minutes and a GPU, "
                    "invents what was lost.",
                ),
                io.Float.Input(
                    "enlarge_by",
                    default=4.0,
                    min=1.0,
                    max=8.0,
                    step=0.25,
                    tooltip="Sides of the result by those of the image; 1 keeps the size.",
                ),
                io.Float.Input(
                    "fidelity",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How close the result stays to the photograph. 0.5: as the authors set "
                    "it. Above: guided by the cleaned picture and blended with it (one network: "
                    "with the enlarged photograph). Below: DiffBIR invents more.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    raw_link=True,
                    tooltip="Painted on the photograph by Open in MaskEditor; painted says what is "
                    "meant.",
                ),
                painted_input("keep"),
                piece_input(raw_link=True),
            ],
            outputs=[io.Image.Output(tooltip="The restored photograph.")],
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, method: dict[str, Any], **_: object) -> object:
        # Of the loaders that it becomes, ours sees a file that was written anew.
        name = method.get("control_net", NOTHING)
        return 0 if name == NOTHING else fingerprint_of_file(name, control_path)

    @classmethod
    def execute(
        cls,
        image: Link,
        method: dict[str, Any],
        enlarge_by: float,
        fidelity: float,
        mask: Link | None = None,
        painted: Painted = "keep",
        piece: Link | None = None,
    ) -> io.NodeOutput:
        kind = method["method"]
        if NOTHING in method.values():
            raise BIRError(
                f"The method {kind} should have a file for each of its lists, but one of them "
                "found none; put the files into the folders that the help page names, and press R."
            )
        graph = Graph()
        expand = _one_network if kind == NETWORK else _diffbir
        # What no node is given is left out, so that a graph without a mask is the same as ever.
        masked = {} if mask is None else {"mask": mask, "painted": painted}
        tried = {} if piece is None else {"piece": piece}
        result = expand(graph, image, method, enlarge_by, fidelity, masked, tried)
        return io.NodeOutput(result, expand=graph.finalize())


def _inputs_of_one_network() -> list[io.Input]:
    return [_restorers("model", "A file of models/upscale_models, or a built-in one.")]


def _inputs_of_diffbir() -> list[io.Input]:
    return [
        _list(
            "control_net",
            fitting_files.control_nets(),
            "DiffBIR's IRControlNet, from models/controlnet.",
        ),
        _list(
            "checkpoint",
            fitting_files.bases(),
            "Stable Diffusion 2.1 base, from models/checkpoints; for v2.1 the zero-SNR base of the "
            "authors.",
        ),
        _restorers(
            "restoration_module",
            "Cleans before the diffusion: SwinIR for v1, v2.1 and faces, BSRNet or SCUNet for v2, "
            "or any other of the list.",
        ),
        io.Combo.Input(
            "task",
            options=list(get_args(Task)),
            tooltip="sr: enlarge; denoise: clean; face: an aligned face.",
        ),
        seed_input("Of the noise: image i of a batch takes seed + i."),
    ]


def _restorers(name: str, tooltip: str) -> io.Combo.Input:
    built_in = builtin_model_path(DEFAULT_MODEL)
    assert built_in is not None  # the name of a built-in model
    return _list(name, fitting_files.restorers(), tooltip, built_in.name)


def _list(name: str, files: list[str], tooltip: str, default: str | None = None) -> io.Combo.Input:
    """A list of files that fit."""
    return io.Combo.Input(name, options=files or [NOTHING], default=default, tooltip=tooltip)


def _one_network(
    graph: Graph,
    image: Link,
    method: dict[str, Any],
    enlarge_by: float,
    fidelity: float,
    masked: dict[str, Any],
    tried: dict[str, Any],
) -> Link:
    model = graph.node("UpscaleModelLoader", model_name=method["model"])
    # In the order of v2: the network sees the photograph as it is, and its result is brought to
    # size.
    cleaned = graph.node(
        "BIRRestorationModule",
        upscale_model=model.out(0),
        image=image,
        task="sr",
        version="v2",
        upscale_by=enlarge_by,
        short_side=0,
    )
    result = graph.node("BIRCrop", image=cleaned.out(0), size=cleaned.out(1))
    share = of_fidelity(fidelity).blending
    if share or masked:
        enlarged = graph.node("BIRCrop", image=image, size=cleaned.out(1))
        if masked:
            result = graph.node(
                "BIRColorFix",
                image=result.out(0),
                reference=enlarged.out(0),
                method="none",
                blending=share,
                **masked,
            )
        else:
            result = graph.node(
                "ImageBlend",
                image1=result.out(0),
                image2=enlarged.out(0),
                blend_factor=share,
                blend_mode="normal",
            )
    if tried:
        result = graph.node("BIRCrop", image=result.out(0), **tried)
    return result.out(0)


def _diffbir(
    graph: Graph,
    image: Link,
    method: dict[str, Any],
    enlarge_by: float,
    fidelity: float,
    masked: dict[str, Any],
    tried: dict[str, Any],
) -> Link:
    base = graph.node("CheckpointLoaderSimple", ckpt_name=method["checkpoint"])
    control = graph.node("DiffBIRControlNetLoader", control_net_name=method["control_net"])
    module = graph.node("UpscaleModelLoader", model_name=method["restoration_module"])
    version = find_version(likely_version(control_path(method["control_net"])))
    positive, negative = (
        graph.node("CLIPTextEncode", clip=base.out(1), text=text) for text in version.prompts
    )
    cleaned = graph.node(
        "BIRRestorationModule",
        upscale_model=module.out(0),
        image=image,
        task=method["task"],
        version="automatic",
        upscale_by=enlarge_by,
        control_net=control.out(0),
    )
    sampled = graph.node(
        "DiffBIRSampler",
        model=base.out(0),
        positive=positive.out(0),
        negative=negative.out(0),
        control_net=control.out(0),
        vae=base.out(2),
        image=cleaned.out(0),
        seed=method["seed"],
        steps=0,
        cfg=-1.0,
        sampler_name="automatic",
        scheduler="automatic",
        **asdict(of_fidelity(fidelity)),
        tile_size=512,
        color_fix="wavelet",
        size=cleaned.out(1),
        **masked,
        **tried,
    )
    return sampled.out(0)
