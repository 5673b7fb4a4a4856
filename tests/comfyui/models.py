"""Small random networks for the server's model folders, and files that are none."""

import os
from pathlib import Path
from typing import Any

import torch
from parity import fill_by_rule

from bir_core.checkpoints import save_checkpoint
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

SMALL = {
    "dim": 8,
    "num_blocks": (1, 1, 1, 1),
    "heads": (1, 2, 2, 2),
    "n_encoder_res": 1,
}
CONFIGS = {
    "sr_x4": DiffIRConfig(
        task="sr", scale=4, layer_norm="BiasFree", num_refinement_blocks=1, **SMALL
    ),
    "sr_x2": DiffIRConfig(
        task="sr", scale=2, layer_norm="BiasFree", num_refinement_blocks=1, **SMALL
    ),
    "sr_x1": DiffIRConfig(
        task="sr", scale=1, layer_norm="BiasFree", num_refinement_blocks=1, **SMALL
    ),
    "deblur": DiffIRConfig(task="deblur", num_refinement_blocks=1, **SMALL),
    "inpainting": DiffIRConfig(task="inpainting", num_refinement_blocks=0, **SMALL),
}


def random_model(config: DiffIRConfig, seed: int) -> DiffIRStage2:
    """A network of random weights that follows its prior, with outputs mostly within [0, 1]."""
    model = DiffIRStage2(config).eval().requires_grad_(False)
    fill_by_rule(model, 1000 * seed)
    head = model.G.tail[1] if config.task == "sr" else model.G.output
    head.weight.mul_(0.1)
    return model


def write_models(models: Path) -> None:
    """Small random networks under names that say what they are, and files that are no network."""
    for seed, (name, config) in enumerate(CONFIGS.items()):
        folder = "diffir" if config.task == "inpainting" else "upscale_models"
        save_checkpoint(random_model(config, seed), models / folder / f"{name}.safetensors")
    upscale_models = models / "upscale_models"
    stage1 = DiffIRStage1(CONFIGS["sr_x4"])
    save_checkpoint(stage1, upscale_models / "stage1.safetensors")
    whole = (upscale_models / "sr_x4.safetensors").read_bytes()
    (upscale_models / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (upscale_models / "empty.pth").write_bytes(b"")
    torch.save({"body.0.rdb1.conv1.weight": torch.zeros(1)}, upscale_models / "esrgan.pth")
    torch.save({"state_dict": _Code()}, upscale_models / "code.pth")
    broken = random_model(CONFIGS["deblur"], 0)
    broken.G.output.weight[0, 0, 0, 0] = float("nan")
    save_checkpoint(broken, upscale_models / "nan.safetensors")
    (upscale_models / "page.pth").write_text("<!DOCTYPE html><html></html>")


class _Code:
    """Pickled, it asks the reader to call a function."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed-by-a-checkpoint",)
