"""How good a restoration is, in numbers and pictures."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.evaluation.one_picture import (
    NUMBERS,
    Measured,
    difference_map,
    lpips_if_there,
    measure,
)
from ..bir_core.images import from_channels_last, resize, split_alpha, to_channels_last
from ..bir_core.pictures.sheets import Panel, detail_window, sheet, usual_column
from .host import services
from .host.node import Node
from .operations import of_batch

NOTHING_TO_COMPARE = (
    "Measure Restoration (BIR) should have a reference or a low-quality picture to show the "
    "difference to, but neither is connected; connect one of them."
)


class BIRMeasure(Node):
    """An image, and what it is compared with, to numbers, a map and a sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRMeasure",
            display_name="Measure Restoration (BIR)",
            category="image/restoration",
            description=(
                "Measures a restored image: PSNR, SSIM and LPIPS against the original, drift of "
                "colours, seams of tiles, and whether it agrees with the picture that it was made "
                "from. Shows where it differs, and all pictures on a sheet."
            ),
            search_aliases=[
                *("psnr", "ssim", "lpips", "compare", "compare images", "measure", "quality"),
                *("metrics", "difference", "seams", "before after", "evaluate"),
            ],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The restored image. Each of a batch is measured alone."
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="The original, of the size of the image: for PSNR, SSIM, LPIPS and "
                    "colours. One for the whole batch, or one per image.",
                ),
                io.Image.Input(
                    "low_quality",
                    optional=True,
                    tooltip="What the image was restored from, of any size: for the consistency, "
                    "and for colours without a reference. One for the batch, or one per image.",
                ),
                io.Int.Input(
                    "border",
                    default=0,
                    min=0,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels that PSNR and SSIM leave out on each side. The papers on "
                    "enlarging take 4 for x4.",
                ),
                io.Int.Input(
                    "tile",
                    default=512,
                    min=0,
                    max=16384,
                    optional=True,
                    advanced=True,
                    tooltip="Side of the tiles whose seams are looked for, in pixels of the image. "
                    "0: none.",
                ),
                io.Int.Input(
                    "overlap",
                    default=256,
                    min=0,
                    max=8192,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels that these tiles share.",
                ),
                io.Float.Input(
                    "gain",
                    default=4.0,
                    min=0.1,
                    max=255.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Factor on the difference in its map: with 4, white is a difference of "
                    "a quarter of the range and more.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="Every number, or why it is not there."
                ),
                io.Image.Output(
                    display_name="difference",
                    tooltip="Where the image differs from the reference, without one from the "
                    "enlarged low-quality picture: the largest difference of the channels.",
                ),
                io.Image.Output(
                    display_name="sheet",
                    tooltip="The pictures beside each other, each with the same detail and its "
                    "numbers.",
                ),
                *(
                    io.Float.Output(
                        display_name=name,
                        tooltip=f"{number.title}, of a batch the mean: {number.meaning}.",
                    )
                    for name, number in NUMBERS.items()
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        reference: Tensor | None = None,
        low_quality: Tensor | None = None,
        border: int = 0,
        tile: int = 512,
        overlap: int = 256,
        gain: float = 4.0,
    ) -> io.NodeOutput:
        images = _colours(image)
        references = _of_batch(reference, len(images), "reference")
        low_qualities = _of_batch(low_quality, len(images), "low-quality picture")
        lpips = lpips_if_there()
        progress = services.batch_progress(len(images))
        measured, differences, sheets = [], [], []
        for index in range(len(images)):
            one = images[index : index + 1]
            hq, lq = references[index], low_qualities[index]
            found = measure(
                one, reference=hq, lq=lq, lpips=lpips, border=border, tile=tile, overlap=overlap
            )
            measured.append(found)
            panels = [Panel(one, "image", found.short())]
            shown = None if lq is None else resize(lq, one.shape[-2], one.shape[-1]).clamp(0, 1)
            if shown is not None:
                of_lq = measure(
                    shown, reference=hq, lpips=lpips, border=border, tile=tile, overlap=overlap
                )
                panels.insert(0, Panel(shown, "low quality", of_lq.short()))
            if hq is not None:
                panels.append(Panel(hq, "reference"))
            model = shown if hq is None else hq
            if model is not None:
                differences.append(difference_map(one, model, gain))
                panels.append(Panel(differences[-1], f"difference x {gain:g}"))
            detail = detail_window(one if hq is None else hq)
            sheets.append(sheet(panels, detail, usual_column(one)))
            progress(index)(1, 1)
        report = _report(measured)
        return io.NodeOutput(
            report,
            _pictures(differences) if differences else services.blocked(NOTHING_TO_COMPARE),
            _pictures(sheets),
            *(_mean(measured, name) for name in NUMBERS),
            ui=ui.PreviewText(report),
        )


def _colours(image: Tensor) -> Tensor:
    return split_alpha(from_channels_last(image.float().cpu()))[0]


def _of_batch(given: Tensor | None, batch: int, what: str) -> list[Tensor | None]:
    """For each image of a batch what it is compared with, (1, 3, H, W), or None."""
    if given is None:
        return [None] * batch
    return [one[None] for one in of_batch(_colours(given), batch, what)]


def _pictures(pictures: list[Tensor]) -> Tensor:
    return services.to_output(to_channels_last(torch.cat(pictures)))


def _report(measured: list[Measured]) -> str:
    if len(measured) == 1:
        return measured[0].text()
    return "\n\n".join(f"image {index}:\n{found.text()}" for index, found in enumerate(measured))


def _mean(measured: list[Measured], name: str) -> object:
    """The mean of a number, or an output that says why there is none."""
    values = [found.values[name] for found in measured if name in found.values]
    if values:
        return sum(values) / len(values)
    title, reason = NUMBERS[name].title, measured[0].absent[name]
    return services.blocked(
        f"Measure Restoration (BIR) should give {title}, but it was not measured: {reason}; see "
        "its report."
    )
