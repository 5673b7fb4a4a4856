"""Files that our training writes open in the nodes and give there what they give in the package."""

from pathlib import Path

import torch
from comfyui.harness import PACK
from diffbir_models import TINY_SWINIR, filled, save_base
from progress import run
from safetensors.torch import load_file, save_file
from training_pictures import write_pictures

from bir_core import load_model, restore
from bir_core.checkpoints import save_checkpoint
from bir_core.networks.swinir import SwinIR
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles


def train_all(folder: Path) -> dict[str, Path]:
    """Every kind of model that has a node, after two iterations of its smoke recipe."""
    write_pictures(folder / "pictures")
    save_base(folder / "base.ckpt")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "module.safetensors")

    def train(recipe: str, files: StartFiles | None = None) -> Path:
        return run_recipe(
            load_recipe(recipe, ("iterations=2", "validation.every=0")),
            data=folder / "pictures",
            output=folder / recipe,
            files=files,
            device="cpu",
        )

    second = StartFiles(base=folder / "base.ckpt", restoration_module=folder / "module.safetensors")
    first = train("smoke_s1")
    diffir = train("smoke_s2", StartFiles(stage1=first))
    inpainting = StartFiles(stage1=train("smoke_inpainting_s1"))
    return {
        "upscale_models/swinir": train("smoke_swinir"),
        "upscale_models/diffir_gan": train(
            "smoke_gan", StartFiles(stage1=first, start_from=diffir)
        ),
        "upscale_models/diffir_s2": diffir,
        "upscale_models/diffir_inpainting": train("smoke_inpainting_s2", inpainting),
        "controlnet/ir_controlnet": train("smoke_ir_controlnet", second),
    }


def test_trained_files_open_in_the_nodes(comfyui: tuple[Path, str], tmp_path: Path) -> None:
    folder, python = comfyui
    models = tmp_path / "models"
    trained = {}
    for name, file in train_all(tmp_path).items():
        trained[Path(name).name] = load_model(file)
        place = models / f"{name}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    draws = torch.Generator().manual_seed(0)
    inputs = {
        "image": torch.rand(1, 3, 64, 64, generator=draws),
        "mask": (torch.rand(1, 1, 64, 64, generator=draws) < 0.3).float(),
        "x": torch.randn(1, 4, 8, 8, generator=draws),
        "hint": torch.randn(1, 4, 8, 8, generator=draws),
        "timesteps": torch.tensor([500.0]),
        "context": torch.randn(1, 77, 32, generator=draws),
    }
    save_file(inputs, models / "inputs.safetensors")
    script = Path(__file__).with_name("trained_in_process.py")
    results = tmp_path / "results.safetensors"
    done = run([python, script, folder, PACK, models, results], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(results)
    image, mask = inputs.pop("image"), inputs.pop("mask")
    expected = {
        "swinir": trained["swinir"](image).clamp(0, 1),
        "diffir_s2": restore(image, trained["diffir_s2"], seed=0),
        "diffir_gan": restore(image, trained["diffir_gan"], seed=0),
        "diffir_inpainting": restore(image, trained["diffir_inpainting"], mask=mask, seed=0),
    }
    control = trained["ir_controlnet"](**inputs)
    assert all(residual.any() for residual in control)
    expected |= {f"control.{index}": residual for index, residual in enumerate(control)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
