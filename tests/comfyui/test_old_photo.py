"""The template for old photographs in the real server, with the networks of the pack."""

import json
from typing import Any

import numpy as np
import torch
from comfyui.harness import PACK, Server
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bir_core.checkpoints import load_model
from bir_core.choosing import carry_out, choose
from bir_core.estimate import estimate
from bir_core.estimate.scratches import damage_mask, find_damage, load_finder
from bir_core.old_photo import find_levels
from bir_core.old_photo.filling import WIDEST, fill
from bir_core.pictures.files import read_picture
from bir_core.restoring import restore

NAME = "Restore_old_photo_scratches_fading_noise"


def scan() -> Tensor:
    """A faded, noisy print (1, 3, 240, 336) with two scratches."""
    generator = torch.Generator().manual_seed(3)
    small = torch.rand(1, 3, 30, 42, generator=generator)
    image = 0.15 + 0.65 * F.interpolate(small, (240, 336), mode="bicubic").clamp(0, 1)
    image[..., 30:200, 100:103], image[..., 150:153, 20:300] = 1.0, 0.95
    return (image + 6 / 255 * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def test_the_chain_is_that_of_the_package(server: Server) -> None:
    pixels = (scan()[0] * 255).round().byte().permute(1, 2, 0).numpy()
    path = server.base / "input" / "old_scan.png"
    Image.fromarray(pixels).save(path)
    api = (PACK / "workflows" / "api" / f"{NAME}.json").read_text(encoding="utf-8")
    prompt: dict[str, Any] = json.loads(api.replace("example.png", path.name))
    (save,) = (key for key, entry in prompt.items() if entry["class_type"] == "SaveImage")
    ((saved,),) = (server.run(prompt)[save]["images"],)
    result = read_picture(server.base / "output" / saved["filename"]).image

    image = read_picture(path).image
    mask = damage_mask(find_damage(image, load_finder()), widest=WIDEST)
    assert mask.mean() > 0.005
    filled = fill(image, mask, load_model("builtin-inpaint"))
    mended = find_levels(filled, mask).undone(filled)
    choice = choose(estimate(mended), *mended.shape[-2:], scale=1.0)
    assert not choice.is_nothing and choice.reduce == 1
    expected = restore(carry_out(mended, choice, load_model), load_model("builtin-x2"))
    assert result.shape == expected.shape == (1, 3, 480, 672)
    assert float((result - expected).abs().max()) < 3 / 255
    assert np.abs(np.asarray(result) - np.asarray(expected)).mean() < 0.6 / 255
