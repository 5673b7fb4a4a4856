"""Degrade a photograph, restore it with the built-in x4 model, and measure and show the gain.

Without --picture it is `coffee` of scikit-image (CC0, by Rachel Michetti), which no model of ours
was trained on. The preset `simple_x4` degrades it: blur, a quarter of the size, noise, JPEG."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints import load_model
from ..command_line.options import read_options, write_line
from ..degradations import degrade, get_preset
from ..errors import BIRError
from ..images import crop, from_channels_last, resize
from ..metrics import psnr, ssim
from ..pictures.files import Picture, read_picture, write_picture
from ..pictures.sheets import Panel, detail_window, sheet
from ..restoring import restore
from ..weights import DEFAULT_MODEL

PRESET = "simple_x4"
SEED = 0
SCALE = 4
SMALLEST_SIDE = 64


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


def side_by_side(demo: Demo, labels: tuple[str, str, str]) -> Tensor:
    """The comparison: bicubic, restored and original, below them the part with the most detail.

    Args:
        labels: texts above the three.

    Returns:
        (1, 3, H', W') in [0, 1].
    """
    images = (demo.bicubic, demo.restored, demo.original)
    panels = [Panel(image, label) for image, label in zip(images, labels, strict=True)]
    return sheet(panels, detail_window(demo.original), demo.original.shape[-1])


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
