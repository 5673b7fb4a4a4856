"""Every workflow gives the picture that the package gives: with the settings of its file, colour
fix and all, in fewer steps and in smaller pieces of a smaller picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rrdbnet
import torch
from comfyui.diffbir_graph import Array
from comfyui.diffbir_models import random_weights, save
from comfyui.harness import Prompt, Server, node
from comfyui.test_diffbir_standalone import draws_of_ddpm
from comfyui.test_workflows import TEMPLATES, load_prompt, runnable
from comfyui.vae_models import write_vae
from PIL import Image
from tolerances import WHOLE_RUN
from torch import Tensor

import bir_core.diffbir.stage2
from bir_core import load_model, restore
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.restoration_modules import load_restoration_module
from bir_core.diffbir.settings import official_settings
from bir_core.diffusion.schedules import SamplingSchedule
from bir_core.images import attach_alpha, extend_opaque, to_channels_last
from bir_core.pictures.files import read_picture
from bir_core.weights import FOLDER as BUILT_IN_FOLDER

Networks = dict[str, torch.nn.Module]
WIDTH, HEIGHT = 24, 20
# Stage 1 enlarges beyond the size asked for, so that the last resizing counts; then there are
# tiles of 64 pixels.
SHORT_SIDE, TILE, STEPS = 96, 64, 2
SMALLER: dict[str, dict[str, Any]] = {
    "BIRRestorationModule": {"short_side": SHORT_SIDE},
    "DiffBIRSampler": {"steps": STEPS, "tile_size": TILE, "overlap": TILE // 2},
    "DiffBIRTiledDiffusion": {"tile_size": TILE, "overlap": TILE // 2},
    "BIRVAEDecodeTiled": {"tile_size": TILE},
    "KSampler": {"steps": STEPS},
}
# The pull is divided by the number of latent pixels: of 128 x 128 pixels, and of 512 x 512.
GUIDANCE = (128 / 512) ** 2


@pytest.fixture(scope="module")
def same_server(diffbir_server: Server) -> Server:
    """With a VAE of Stable Diffusion's layout, and a BSRNet whose result leaves [0, 1]."""
    models = diffbir_server.base / "models"
    write_vae(models)
    bsrnet = random_weights(rrdbnet.shapes(nf=64, nb=1, gc=32), 0)
    save(models / "upscale_models" / "bsrnet.safetensors", bsrnet)
    return diffbir_server


def prompt_of(template: Path, picture: str, transparent: bool = False) -> Prompt:
    """The workflow on small models and pictures, every SaveImage replaced by one of all bits.

    Args:
        transparent: what Load Image tells as a mask is the alpha channel again.
    """
    original = load_prompt(template)
    prompt = runnable(original, picture)
    for key, entry in prompt.items():
        kind, inputs = entry["class_type"], entry["inputs"]
        inputs |= SMALLER.get(kind, {})
        if original.get(key, {}).get("inputs", {}).get("model_name") == "BSRNet.pth":
            inputs["model_name"] = "bsrnet.safetensors"
        if kind == "DiffBIRSampler":
            inputs["guidance"] *= GUIDANCE
        elif kind == "DiffBIRGuidance":
            inputs["scale"] *= GUIDANCE
        elif kind == "SaveImage":
            prompt[key] = node("TestSaveTensor", image=inputs["images"], file=f"{key}.npy")
    if "vae" in prompt:
        prompt["vae"] = node("VAELoader", vae_name="sd.safetensors")
    if transparent:
        (load,) = (key for key, entry in prompt.items() if entry["class_type"] == "LoadImage")
        for entry in prompt.values():
            for name, value in entry["inputs"].items():
                if value == [load, 0]:
                    entry["inputs"][name] = ["joined", 0]
        prompt["joined"] = node("JoinImageWithAlpha", image=[load, 0], alpha=[load, 1])
    return prompt


def write_photograph(path: Path, look: str) -> None:
    """With strong colours, or none, or hidden ones; with a hole where one is to be filled."""
    photograph = np.random.default_rng(7).integers(0, 256, (HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    picture = Image.fromarray(photograph).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    if look == "grey":
        picture = picture.convert("L").convert("RGB")
    hole = Image.new("L", (WIDTH, HEIGHT), 255)
    hole.paste(0, (5, 6, 14, 13))
    if "Inpaint" in path.stem:
        picture.putalpha(hole)
    if look == "transparent":
        shape = Image.new("L", (WIDTH, HEIGHT), 0)
        shape.paste(255, (4, 5, 19, 16))
        picture.putalpha(shape.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, (0, 0, 22, 18)))
    picture.save(path)


def of_kind(prompt: Prompt, kind: str) -> list[dict[str, Any]]:
    return [entry["inputs"] for entry in prompt.values() if entry["class_type"] == kind]


def with_one_network(prompt: Prompt, models: Path, path: Path) -> Tensor:
    """What `bir_core.restore` makes of the picture."""
    picture = read_picture(path)
    if path.stem.startswith("transparent"):
        picture = replace(picture, image=extend_opaque(picture.image, picture.alpha), alpha=None)
    for loader in of_kind(prompt, "DiffIRLoader"):
        folder = "diffir" if loader["model_name"] == "inpainting.safetensors" else "upscale_models"
        model = load_model(models / folder / loader["model_name"])
        mask = None if picture.alpha is None else 1 - picture.alpha
        return restore(picture.image, model, mask=mask)
    (name,) = [
        *(loader["model_name"] for loader in of_kind(prompt, "UpscaleModelLoader")),
        *(photo["method.model"] for photo in of_kind(prompt, "BIRRestorePhoto")),
    ]
    return restore(picture.image, load_model(BUILT_IN_FOLDER / name))


def sgm_uniform(plan: str, alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    """ComfyUI's sgm_uniform: evenly spaced, not whole timesteps of a table of log sigmas."""
    abar = alphas_cumprod.double().clone()
    abar[-1] = abar[-1].clamp(min=4.8973451890853435e-08)  # ComfyUI's, in the place of 0
    table = ((1 - abar) / abar).sqrt().log()
    position = torch.linspace(999, 0, steps + 1, dtype=torch.float64)[:-1]
    levels = torch.lerp(table[position.floor().long()], table[position.ceil().long()], position % 1)
    nearest = (levels[:, None] - table).abs().argmin(1)
    walked = torch.cat([1 / (1 + levels.exp() ** 2), abar.new_ones(1)])
    return SamplingSchedule(torch.cat([nearest, nearest.new_zeros(1)]), walked)


def with_diffbir(
    prompt: Prompt, sampler: dict[str, Any], networks: Networks, models: Path, path: Path
) -> Tensor:
    """What `bir_core.DiffBIR` makes of the picture by default, but for what is smaller here."""
    picture = read_picture(path)
    (control,) = of_kind(prompt, "DiffBIRControlNetLoader")
    version = "v2" if control["control_net_name"] == "mini_v2.safetensors" else "v2.1"
    stages = of_kind(prompt, "BIRRestorationModule")
    if stages:
        (stage,) = stages
        (loader,) = of_kind(prompt, "UpscaleModelLoader")
        stage1 = load_restoration_module(models / "upscale_models" / loader["model_name"])
        image = extend_opaque(picture.image, picture.alpha)
        task, upscale_by = stage["task"], stage["upscale_by"]
    else:
        image, stage1, task, upscale_by = with_one_network(prompt, models, path), None, "sr", 1.0
    settings = replace(
        official_settings(version),
        steps=STEPS,
        tile=TILE,
        overlap=TILE // 2,
        vae_tile=TILE,
        short_side=SHORT_SIDE if stages else 0,
        guidance=sampler["guidance"],
    )
    texts = [entry["value"] for entry in of_kind(prompt, "TestZeroConditioning")]
    embedding = torch.linspace(-1, 1, 77 * 1024).reshape(1, 77, 1024)
    return DiffBIR(**networks, stage1=stage1, version=version)(
        image,
        *(embedding * value for value in texts),
        task=task,
        upscale_by=upscale_by,
        settings=settings,
        seed=sampler["seed"],
        noise=draws_of_ddpm(sampler["seed"]) if version == "v2" else None,
    )


# The package has no single call for these: several restorations, faces in a whole photo, words for
# each tile, other networks. Pieces, masks and old photographs have tests of their own.
MORE_THAN_ONE = (
    "Compare_two_methods_with_numbers",
    "First_run_degrade_restore_compare",
    "Folder_of_photos_names_kept",
    "Group_photo_restore_faces",
    "Keep_restore_invent_by_mask_DiffBIR",
    "Prompt_for_every_tile_DiffBIR",
    "Restore_old_photo_scratches_fading_noise",
    "SDXL_tile_upscale_exact_decode",
    "Try_settings_on_a_crop_DiffBIR",
)
ONE = [path for path in TEMPLATES if path.stem not in MORE_THAN_ONE]
STEPS_OF_DIFFBIR = "Restore_old_photo_DiffBIR_in_single_steps"
# Of the others the same nodes keep grey grey.
GREY = (
    *("Restore_old_photo_DiffBIR", STEPS_OF_DIFFBIR),
    *("Inpaint_photo_scratches_and_holes_DiffIR", "Enlarge_photo"),
)
# Single steps, stage 1 before the sampler, and a network by itself.
TRANSPARENT = (
    *("Restore_old_photo_DiffBIR", "Restore_old_photo_DiffBIR_v2", STEPS_OF_DIFFBIR),
    "Enlarge_photo_DiffIR",
)
CASES = [pytest.param(path, "colour", id=path.stem) for path in ONE]
CASES += [pytest.param(p, "grey", id=f"{p.stem}-grey") for p in ONE if p.stem in GREY]
CASES += [
    pytest.param(p, "transparent", id=f"{p.stem}-transparent") for p in ONE if p.stem in TRANSPARENT
]


@pytest.mark.parametrize(("template", "look"), CASES)
def test_server_and_package_give_the_same_picture(
    same_server: Server,
    networks: Networks,
    template: Path,
    look: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = same_server.base / "input" / f"{look}_{template.stem}.png"
    write_photograph(path, look)
    prompt = prompt_of(template, path.name, look == "transparent")
    same_server.run(prompt)
    models = same_server.base / "models"
    for key, save_node in prompt.items():
        if save_node["class_type"] != "TestSaveTensor":
            continue
        theirs: Array = np.load(same_server.base / "output" / f"{key}.npy")
        source = prompt[save_node["inputs"]["image"][0]]
        if source["class_type"] == "DiffBIRSampler":
            ours = with_diffbir(prompt, source["inputs"], networks, models, path)
        elif of_kind(prompt, "KSampler"):
            monkeypatch.setattr(bir_core.diffbir.stage2, "sampling_schedule", sgm_uniform)
            (sampler,) = of_kind(prompt, "KSampler")
            (guidance,) = of_kind(prompt, "DiffBIRGuidance")
            inputs = {"seed": sampler["seed"], "guidance": guidance["scale"]}
            ours = with_diffbir(prompt, inputs, networks, models, path)
        else:
            ours = with_one_network(prompt, models, path)
        if look == "transparent":
            ours = attach_alpha(ours, read_picture(path).alpha)
        expected = to_channels_last(ours).numpy()
        assert theirs.shape == expected.shape
        assert expected.std() > 0.05
        assert np.abs(theirs - expected).max() < WHOLE_RUN
        if look == "grey":
            assert np.array_equal(theirs, theirs[..., :1].repeat(3, -1))
