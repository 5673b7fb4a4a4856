"""Measure models on pictures whose originals are at hand: PSNR and SSIM on luma and on RGB.

Pairs come from a folder of clean pictures and a degradation with a fixed seed for each picture,
or from two folders. The baseline is the bicubic enlargement, or the input itself where the size
stays."""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..atomic_files import complete_file
from ..checkpoints import load_model
from ..degradations import degrade, get_preset, preset_names
from ..errors import BIRError
from ..images import resize
from ..metrics import psnr, ssim
from ..networks.diffir import DiffIRStage2
from ..picture_files import list_pictures, read_picture, require_free
from ..restore import restore
from ..weights import BUILTIN_NAMES, builtin_model_path
from .options import DTYPES, add_device_arguments, choose_device, seed, write_line

METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir evaluate`."""
    parser.add_argument("hq", metavar="HQ", type=Path, help="folder of clean pictures")
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help=f"{', '.join(BUILTIN_NAMES)} or a checkpoint file; may be repeated "
        "(default: builtin-x4)",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--lq", metavar="FOLDER", type=Path, help="low-quality pictures named like those of HQ"
    )
    given.add_argument(
        "--degradation",
        metavar="NAME",
        help=f"{', '.join(preset_names())} (default: simple_x4 or simple_x1, after the model)",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        help="of the first picture; the next has the next (default: 0)",
    )
    parser.add_argument(
        "--border",
        type=int,
        default=0,
        help="pixels to leave out on each side; the papers take 4 for x4 (default: 0)",
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="also write the table to a file ending in .md, .csv or .json; may be repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


@dataclass(frozen=True)
class Row:
    """The measures of one restored picture."""

    model: str
    picture: str
    values: dict[str, float]


def run(options: argparse.Namespace) -> int:
    """Measure; the table goes to stdout as Markdown.

    Raises:
        BIRError: no pictures, a picture without its partner, an unfit model or output.
    """
    for path in options.output:
        _require_table_name(path)
        require_free(path, overwrite=options.overwrite)
    pictures = list_pictures(options.hq)
    if options.lq is not None:
        list_pictures(options.lq)
    device = choose_device(options.device)
    models = {}
    for name in options.model or ["builtin-x4"]:
        source = builtin_model_path(name) or name
        model = load_model(
            source, device=device, dtype=DTYPES[options.dtype], architecture="diffir_s2"
        )
        models[str(name)] = _require_task(model, str(name))
    scales = {model.config.scale for model in models.values()}
    if len(scales) > 1:
        raise BIRError(
            f"Expected models of one scale, but {sorted(scales)} came; evaluate them one by one."
        )
    rows: list[Row] = []
    bar = tqdm(pictures, unit="picture", disable=None)
    for index, path in enumerate(bar):
        rows += _measure(path, index, scales.copy().pop(), models, options, device)
    rows = list(_with_means(rows))
    write_line(as_markdown(rows))
    for path in options.output:
        _write(path, rows)
    return 0


def _require_task(model: nn.Module, name: str) -> DiffIRStage2:
    assert isinstance(model, DiffIRStage2)  # load_model refuses every other architecture
    if model.config.task == "inpainting":
        raise BIRError(
            f"Expected a model for super-resolution, cleaning or deblurring, but {name} is for "
            "inpainting, which needs masks; choose another model."
        )
    return model


def _measure(
    path: Path,
    index: int,
    scale: int,
    models: dict[str, DiffIRStage2],
    options: argparse.Namespace,
    device: torch.device,
) -> list[Row]:
    lq, hq = _pair(path, index, scale, options)
    lq = lq.to(device)
    enlarged = {"bicubic": resize(lq, *hq.shape[-2:]).clamp(0, 1)}
    restored = {"input": lq} if scale == 1 else enlarged
    for name, model in models.items():
        restored[name] = restore(lq, model, seed=options.seed + index)
    return [
        Row(name, path.name, _values(image.cpu(), hq, options.border))
        for name, image in restored.items()
    ]


def _values(restored: Tensor, hq: Tensor, border: int) -> dict[str, float]:
    # What is measured is the picture that would be saved: 8 bits.
    restored = (restored * 255).round() / 255
    return {
        "psnr_y": float(psnr(restored, hq, channel="y", border=border)),
        "ssim_y": float(ssim(restored, hq, channel="y", border=border)),
        "psnr_rgb": float(psnr(restored, hq, channel="rgb", border=border)),
        "ssim_rgb": float(ssim(restored, hq, channel="rgb", border=border)),
    }


def _pair(path: Path, index: int, scale: int, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    hq = read_picture(path).image
    if options.lq is None:
        preset = get_preset(options.degradation or f"simple_x{scale}")
        generator = torch.Generator().manual_seed(options.seed + index)
        degraded = degrade(hq, preset, generator=generator, scale=scale)
        return degraded.lq, degraded.hq
    found = [other for other in list_pictures(options.lq) if other.stem == path.stem]
    if len(found) != 1:
        raise BIRError(
            f"Expected one picture named {path.stem} in {options.lq}, but found {len(found)}; "
            "give both pictures of a pair the same name."
        )
    lq = read_picture(found[0]).image
    height, width = lq.shape[-2] * scale, lq.shape[-1] * scale
    if tuple(hq.shape[-2:]) != (height, width):
        raise BIRError(
            f"Expected {path} to be {width}x{height}, {scale} times {found[0].name}, but it is "
            f"{hq.shape[-1]}x{hq.shape[-2]}; choose a model of another scale or cut the picture."
        )
    return lq, hq


def _with_means(rows: list[Row]) -> Iterator[Row]:
    yield from rows
    for model in dict.fromkeys(row.model for row in rows):
        own = [row.values for row in rows if row.model == model]
        yield Row(model, "mean", {key: sum(v[key] for v in own) / len(own) for key in METRICS})


def as_markdown(rows: list[Row]) -> str:
    """A table with a line for each picture and model, means last; PSNR in dB."""
    lines = [
        "| picture | model | PSNR Y | SSIM Y | PSNR RGB | SSIM RGB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        v = row.values
        lines.append(
            f"| {row.picture} | {row.model} | {v['psnr_y']:.2f} | {v['ssim_y']:.4f} "
            f"| {v['psnr_rgb']:.2f} | {v['ssim_rgb']:.4f} |"
        )
    return "\n".join(lines)


def as_csv(rows: list[Row]) -> str:
    """The same with all digits, comma-separated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "model", *METRICS])
    for row in rows:
        writer.writerow([row.picture, row.model, *(repr(row.values[key]) for key in METRICS)])
    return text.getvalue()


def as_json(rows: list[Row]) -> str:
    """The same as a list of objects."""
    records = [{"picture": row.picture, "model": row.model, **row.values} for row in rows]
    return json.dumps(records, indent=2) + "\n"


_WRITERS = {".md": lambda rows: as_markdown(rows) + "\n", ".csv": as_csv, ".json": as_json}


def _require_table_name(path: Path) -> None:
    if path.suffix.lower() not in _WRITERS:
        raise BIRError(
            f"Expected a table name that ends in {', '.join(_WRITERS)}, but {path} came; "
            "change the ending."
        )


def _write(path: Path, rows: list[Row]) -> None:
    try:
        with complete_file(path) as temporary:
            temporary.write_text(_WRITERS[path.suffix.lower()](rows), encoding="utf-8")
    except OSError as error:
        raise BIRError(
            f"Expected to write the table {path}, but it failed ({error.strerror or error}); "
            "check the folder and the free space."
        ) from error
