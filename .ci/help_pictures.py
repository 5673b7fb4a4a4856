"""Make the photographs of the help pages anew, by what the nodes call.

python .ci/help_pictures.py MTCNN_FOLDER

MTCNN_FOLDER is what `bir weights faces` wrote. The photographs are scikit-image's `coffee` (CC0, by
Rachel Michetti) and `astronaut` (public domain, by NASA).
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from bir_core.checkpoints import load_model
from bir_core.choosing import carry_out, choose
from bir_core.degradations import degrade, get_preset
from bir_core.diffbir.color_fix import wavelet_color_fix
from bir_core.diffusion.guidance import region_weight
from bir_core.estimate import estimate
from bir_core.estimate.scratches import (
    GROW,
    THRESHOLD,
    damage_mask,
    find_damage,
    load_finder,
    shown_damage,
)
from bir_core.evaluation.one_picture import difference_map
from bir_core.faces.alignment import face_matrix, inverted
from bir_core.faces.cutting import FacePlace, cut_faces, paste_faces
from bir_core.faces.networks import read_mtcnn
from bir_core.images import from_channels_last, luma, resize, to_channels_last
from bir_core.metrics import psnr
from bir_core.old_photo import find_levels, mend
from bir_core.restoring import restore

DOCS = Path(__file__).resolve().parents[1] / "nodes" / "web" / "docs"
WIDTH = 564  # twice that of the help panel
LABEL, GAP = 30, 6
Panel = tuple[str, Tensor]


def photograph(name: str) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return from_channels_last(torch.from_numpy(getattr(data, name)()).float()[None] / 255)


def part(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return image[..., top : top + height, left : left + width]


def damaged(image: Tensor, preset: str) -> Tensor:
    return degrade(image, get_preset(preset), generator=torch.Generator().manual_seed(0)).lq


def restored(image: Tensor, model: str) -> Tensor:
    return restore(image, load_model(model)).clamp(0, 1)


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    return resize(image, like.shape[-2], like.shape[-1]).clamp(0, 1)


def write(name: str, *panels: Panel) -> None:
    """Panels beside each other, each below its label."""
    width = (WIDTH - GAP * (len(panels) - 1)) // len(panels)
    pictures = []
    for _, image in panels:
        pixels = (to_channels_last(image)[0] * 255).round().byte().numpy()
        picture = Image.fromarray(pixels)
        pictures.append(picture.resize((width, width * picture.height // picture.width)))
    row = Image.new("RGB", (WIDTH, LABEL + max(each.height for each in pictures)), "white")
    draw = ImageDraw.Draw(row)
    for place, ((label, _), picture) in enumerate(zip(panels, pictures, strict=True)):
        left = place * (width + GAP)
        draw.text((left + 4, 3), label, "black", ImageFont.load_default(20))
        row.paste(picture, (left, LABEL))
    row.save(DOCS / f"{name}.jpg", quality=70, optimize=True)


def outlined(image: Tensor, lines: list[Tensor], dots: Tensor | None = None) -> Tensor:
    """With closed lines (N, 2) and dots (N, 2) in pixels."""
    picture = Image.fromarray((to_channels_last(image)[0] * 255).round().byte().numpy())
    draw = ImageDraw.Draw(picture)
    for line in lines:
        corners = [tuple(corner) for corner in line.tolist()]
        draw.line([*corners, corners[0]], fill="yellow", width=3)
    for x, y in [] if dots is None else dots.tolist():
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="cyan")
    return from_channels_last(torch.from_numpy(np.array(picture)).float()[None] / 255)


def photographs() -> None:
    """Those of nodes that restore, damage and measure."""
    coffee = photograph("coffee")
    small, noisy = damaged(coffee, "simple_x4"), damaged(coffee, "simple_x1")
    large = restored(small, "builtin-x4-sharp")
    cup = (60, 250, 200, 240)
    before, after, original = (part(x, *cup) for x in (enlarged(small, coffee), large, coffee))
    write("BIRRestorePhoto", ("small, noisy", before), ("bir_x4_sharp", after))
    by_diffir = part(restored(small, "builtin-diffir-x4"), *cup)
    write("DiffIRRestore", ("input", before), ("DiffIR x4 (small)", by_diffir))
    cleaned = restored(noisy, "builtin-x1")
    write("BIRRestorationModule", ("image", part(noisy, *cup)), ("bir_x1", part(cleaned, *cup)))
    hard = enlarged(damaged(coffee, "realesrgan_x4"), coffee)
    write(
        "BIRDegrade",
        ("original", original),
        ("simple_x4", before),
        ("realesrgan_x4", part(hard, *cup)),
    )
    write(
        "BIRMeasure",
        (f"image {psnr(after, original, channel='y').item():.1f} dB", after),
        ("reference", original),
        ("difference x 4", difference_map(after, original, 4.0)),
    )
    tinted = (large * large.new_tensor([0.8, 1.0, 1.15]).reshape(1, 3, 1, 1)).clamp(0, 1)
    fixed = wavelet_color_fix(tinted, enlarged(small, coffee)).clamp(0, 1)
    write(
        "BIRColorFix",
        ("image", part(tinted, *cup)),
        ("reference", before),
        ("wavelet", part(fixed, *cup)),
    )
    weight = region_weight(cleaned).expand(-1, 3, -1, -1)
    write("DiffBIRGuidance", ("stage 1", part(cleaned, *cup)), ("weight", part(weight, *cup)))


def scratches() -> None:
    """That of the node that finds them."""
    preset, cracked = get_preset("foreign_old_photo"), torch.Generator().manual_seed(3)
    scan = part(degrade(photograph("astronaut"), preset, generator=cracked).lq, 0, 60, 360, 360)
    mask = damage_mask(find_damage(scan, load_finder()), THRESHOLD, GROW)
    write("BIRFindScratches", ("scan", scan), ("preview", shown_damage(scan, mask)))


def fading() -> None:
    """That of the node that undoes it."""
    seen = part(photograph("astronaut"), 0, 60, 360, 360)
    tone = torch.tensor([0.79, 1.0, 1.36]).view(3, 1, 1)
    scan = 0.2 + 0.6 * luma(seen).expand_as(seen) ** tone
    write("BIRUndoFading", ("image", scan), ("IMAGE", find_levels(scan).undone(scan)))


def old_photo() -> None:
    """That of the README: a scan, and what `bir restore --old-photo` makes of it."""
    preset, drawn = get_preset("foreign_old_photo"), torch.Generator().manual_seed(3)
    scan = degrade(photograph("coffee"), preset, generator=drawn).lq
    load = cache(load_model)
    mended = mend(scan, load).image
    choice = choose(estimate(mended), *mended.shape[-2:])
    write("old_photo", ("scan", scan), ("--old-photo", carry_out(mended, choice, load)))


def faces(weights: Path) -> None:
    """Those of the nodes for faces."""
    keys = ("pnet", "rnet", "onet")
    network = read_mtcnn({key: weights / "bir" / f"mtcnn_{key}.safetensors" for key in keys})
    whole = photograph("astronaut")
    boxes, _, landmarks = network(whole, confidence=0.9)
    x0, y0, x1, y1 = boxes[0][:4].tolist()
    box = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    view = (0, 60, 260, 300)
    seen = part(outlined(whole, [box], landmarks[0]), *view)
    write("BIRDetectFaces", ("image", part(whole, *view)), ("landmarks, bboxes", seen))
    matrix = face_matrix(landmarks[0])
    corners = torch.tensor([[0, 0, 1], [512, 0, 1], [512, 512, 1], [0, 512, 1]]).double()
    square = corners @ inverted(matrix).T
    face, places = cut_faces(whole, [FacePlace(0, matrix)])
    write(
        "BIRCutFaces", ("image", part(outlined(whole, [square]), 0, 60, 300, 300)), ("faces", face)
    )
    noisy = damaged(whole, "simple_x1")
    noisy_face, places = cut_faces(noisy, places.places)
    pasted = paste_faces(noisy, restored(noisy_face, "builtin-x1"), places)
    write(
        "BIRPasteFaces", ("image", part(noisy, *view)), ("one face restored", part(pasted, *view))
    )


if __name__ == "__main__":
    photographs()
    scratches()
    fading()
    old_photo()
    faces(Path(sys.argv[1]))
