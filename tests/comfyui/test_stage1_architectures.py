"""The official restoration modules of stage 1 at their real sizes, with random weights, through the
stock Load Upscale Model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rrdbnet
import scunet
import torch
from comfyui.diffbir_models import Weights, random_weights
from comfyui.harness import Server
from comfyui.test_diffbir_stage1 import picture_of, stage1
from parity import fill_by_rule_w

from bir_core.diffbir.restoration_modules import load_restoration_module
from bir_core.diffbir.stage1 import restore_stage1, stage1_sizes
from bir_core.diffbir.versions import official_order
from bir_core.networks.swinir import SwinIR, SwinIRConfig


def calm(weights: Weights, last: str) -> Weights:
    """With outputs mostly within [0, 1]."""
    weights[f"{last}.weight"] *= 0.1
    if f"{last}.bias" in weights:
        weights[f"{last}.bias"] += 0.5
    return weights


def bsrnet() -> Weights:
    return calm(random_weights(rrdbnet.shapes(nf=64, nb=23, gc=32), 0), "conv_last")


def scunet_psnr() -> Weights:
    weights = random_weights(scunet.shapes(), 0)
    weights["m_tail.0.weight"] *= 0.001  # the sums of 28 random blocks are large
    return weights


def swinir() -> Weights:
    network = SwinIR(SwinIRConfig()).requires_grad_(False)
    fill_by_rule_w(network, 0)
    return calm(network.state_dict() | network.published_tables(), "conv_last")


@pytest.mark.parametrize(
    ("file", "weights", "parameters", "choices"),
    [
        ("BSRNet.pth", bsrnet, 16_697_987, {"task": "sr", "version": "v2"}),
        (
            "scunet_color_real_psnr.pth",
            scunet_psnr,
            17_946_072,
            {"task": "denoise", "version": "v2"},
        ),
        ("realesrgan_s4_swinir_100k.pth", swinir, 15_792_587, {"task": "sr", "version": "v2.1"}),
    ],
)
def test_official_sizes(
    diffbir_server: Server,
    tmp_path: Path,
    file: str,
    weights: Callable[[], Weights],
    parameters: int,
    choices: dict[str, Any],
) -> None:
    image = np.random.default_rng(1).random((1, 24, 40, 3), dtype=np.float32)
    path = diffbir_server.base / "models" / "upscale_models" / file
    made = weights()
    tables = ("relative_position_index", "attn_mask")
    assert sum(made[key].numel() for key in made if not key.endswith(tables)) == parameters
    torch.save(made, path)
    try:
        ours = picture_of(
            diffbir_server, stage1(diffbir_server, image, file, upscale_by=2.0, **choices)
        )
        module = load_restoration_module(path)
    finally:
        path.unlink()  # pytest keeps its folders
    order = official_order(choices["task"], choices["version"])
    sizes = stage1_sizes(24, 40, order, 2.0, 0)
    expected = restore_stage1(
        torch.from_numpy(image).movedim(-1, 1), module.restore, order, sizes, scale=module.scale
    )
    assert ours.shape == (1, 48, 80, 3)
    assert ours.std() > 0.02
    # The random SCUNet sums up to thousands, and their rounding with them.
    np.testing.assert_allclose(ours, expected.movedim(1, -1).numpy(), atol=1e-3)
