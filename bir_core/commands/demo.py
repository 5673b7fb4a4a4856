"""Degrade a photograph, restore it with the built-in x4 model, and measure and show the gain.

Without --picture it is `coffee` of scikit-image (CC0, by Rachel Michetti), which no model of ours
was trained on. The preset `simple_x4` degrades it: blur, a quarter of the size, noise, JPEG."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..checkpoints import load_model
from ..degradations import degrade, get_preset
from ..errors import BIRError
from ..images import crop, from_channels_last, resize, to_channels_last
from ..metrics import psnr, rgb_to_y, ssim
from ..options import read_options, write_line
from ..pictures.files import Picture, read_picture, write_picture
from ..restoring import restore
from ..weights import DEFAULT_MODEL

PRESET = "simple_x4"
SEED = 0
SCALE = 4
SMALLEST_SIDE = 64
DETAIL_PART = 5
MARGIN = 12
LABEL_HEIGHT = 34


@dataclass(frozen=True)
class Demo:
    """What the demo made, images (1, 3, H, W) in [0, 1].

    Attributes:
        degraded: the low-quality image, a quarter of the size.
        bicubic, restored: both ways to enlarge it.
        original: what both are compared with.
    """

    degraded: Tensor
    bicubic: Tensor
    restored: Tensor
    original: Tensor


def make_demo(photograph: Tensor, model: nn.Module) -> Demo:
    """Degrade and restore a photograph (1, 3, H, W) in [0, 1], with a fixed seed.

    Raises:
        BIRError: it has less than `SMALLEST_SIDE` pixels on a side.
    """
    height, width = (side // SCALE * SCALE for side in photograph.shape[-2:])
    if min(height, width) < SMALLEST_SIDE:
        raise BIRError(
            f"Expected a photograph of at least {SMALLEST_SIDE} pixels on each side, but "
            f"{photograph.shape[-1]}x{photograph.shape[-2]} came; choose a larger one."
        )
    generator = torch.Generator().manual_seed(SEED)
    pair = degrade(crop(photograph, height, width), get_preset(PRESET), generator=generator)
    with tqdm(desc="restoring", unit="step", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        restored = restore(pair.lq, model, callback=show)
    bicubic = resize(pair.lq, height, width).clamp(0, 1)
    return Demo(pair.lq, bicubic, restored, pair.hq)


def measure(image: Tensor, original: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM, on Y, without a border as wide as the scale, as is usual."""
    return (
        psnr(image, original, channel="y", border=SCALE).item(),
        ssim(image, original, channel="y", border=SCALE).item(),
    )


def detail_corner(image: Tensor, height: int, width: int) -> tuple[int, int]:
    """Top and left of the window with the most edges in luma.

    They are counted at the degraded size: finer grain cannot be restored by any method.
    """
    rows, columns = image.shape[-2] // SCALE, image.shape[-1] // SCALE
    luma = rgb_to_y(resize(image, rows, columns, "area"))
    change = (luma[..., 1:, 1:] - luma[..., :-1, 1:]).abs()
    change = change + (luma[..., 1:, 1:] - luma[..., 1:, :-1]).abs()
    amount = F.avg_pool2d(change, (height // SCALE - 1, width // SCALE - 1), stride=1)
    top, left = divmod(int(amount.argmax()), amount.shape[-1])
    return top * SCALE, left * SCALE


def side_by_side(demo: Demo, labels: tuple[str, str, str]) -> Tensor:
    """The comparison: bicubic, restored and original, below them the part with the most detail.

    Args:
        labels: texts above the three.

    Returns:
        (1, 3, H', W') in [0, 1].
    """
    height, width = demo.original.shape[-2:]
    rows, columns = height // DETAIL_PART, width // DETAIL_PART
    top, left = detail_corner(demo.original, rows, columns)
    size = (3 * width + 4 * MARGIN, 2 * height + LABEL_HEIGHT + 3 * MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    # Small pictures get small letters, so that the texts stay beside each other.
    font = ImageFont.load_default(max(8, min(24, width // 22)))
    images = (demo.bicubic, demo.restored, demo.original)
    for column, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = MARGIN + column * (width + MARGIN), MARGIN + LABEL_HEIGHT
        draw.text((x, MARGIN), label, "black", font)
        sheet.paste(_to_pillow(image), (x, y))
        frame = (x + left, y + top, x + left + columns - 1, y + top + rows - 1)
        draw.rectangle(frame, outline="yellow", width=2)
        detail = _to_pillow(image[..., top : top + rows, left : left + columns])
        sheet.paste(detail.resize((width, height)), (x, y + height + MARGIN))
    return from_channels_last(torch.from_numpy(np.asarray(sheet, np.float32))[None] / 255)


def _to_pillow(image: Tensor) -> Image.Image:
    samples = (to_channels_last(image)[0].clamp(0, 1) * 255).round().byte()
    return Image.fromarray(samples.numpy())


def _photograph(path: Path | None) -> Tensor:
    if path is not None:
        return read_picture(path).image
    try:
        from skimage import data
    except ImportError as error:
        raise BIRError(
            f"The demo takes its photograph from scikit-image, but it cannot be loaded ({error}); "
            "install it with `pip install scikit-image` or give --picture."
        ) from error
    coffee: Any = data.coffee  # scikit-image has no types
    return from_channels_last(torch.from_numpy(coffee()).float()[None] / 255)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `bir demo` is asked for; as its arguments."""

    output: Path
    picture: Path | None = None


read = partial(read_options, DemoOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir demo`."""
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("demo_output"), help="for the results"
    )
    parser.add_argument("--picture", metavar="FILE", type=Path, help="another photograph")


def run(options: DemoOptions) -> int:
    """Make the pictures and print the numbers."""
    if options.output.exists() and not options.output.is_dir():
        raise BIRError(
            f"Expected a folder for the results, but {options.output} is a file; "
            "choose another name with --output."
        )
    photograph = _photograph(options.picture)
    model = load_model(DEFAULT_MODEL)
    demo = make_demo(photograph, model)
    before, after = measure(demo.bicubic, demo.original), measure(demo.restored, demo.original)
    labels = (
        f"bicubic x4  {before[0]:.2f} dB  SSIM {before[1]:.3f}",
        f"restored  {after[0]:.2f} dB  SSIM {after[1]:.3f}",
        "original",
    )
    results = {
        "degraded.png": demo.degraded,
        "restored.png": demo.restored,
        "comparison.png": side_by_side(demo, labels),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, image in results.items():
        write_picture(options.output / name, Picture(image), overwrite=True)
    write_line(f"{'':10}{'PSNR':>10}{'SSIM':>8}   (luma, against the original)")
    write_line(f"{'before':10}{before[0]:7.2f} dB{before[1]:8.4f}   bicubic enlargement")
    write_line(f"{'after':10}{after[0]:7.2f} dB{after[1]:8.4f}   restored")
    for name in results:
        write_line(str(options.output / name))
    return 0
