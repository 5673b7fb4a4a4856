"""Run by ComfyUI's Python, without a server: nodes on files that our training has written.

Arguments: ComfyUI's folder, the pack's folder, a folder with `controlnet`, `upscale_models` and
`inputs.safetensors`, the file to write the results to.
"""

import importlib.util
import sys
from pathlib import Path

comfyui, pack, models, results_path = (Path(argument) for argument in sys.argv[1:5])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_upscale_model import UpscaleModelLoader  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

for kind in ("controlnet", "upscale_models"):
    folder_paths.add_model_folder_path(kind, str(models / kind), is_default=True)
spec = importlib.util.spec_from_file_location(
    "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
)
assert spec is not None and spec.loader is not None
sys.modules["bir_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bir_pack"])
from bir_pack.nodes import control, diffir, stage1  # noqa: E402

inputs = load_file(models / "inputs.safetensors")
image = inputs["image"].movedim(1, -1)
with torch.inference_mode():
    net = control.DiffBIRControlNetLoader.execute("ir_controlnet.safetensors").result[0]
    names = ("x", "hint", "timesteps", "context")
    outputs = net.control_model(**{name: inputs[name] for name in names})
    results = {
        f"control.{index}": output
        for index, output in enumerate([*outputs["output"], *outputs["middle"]])
    }
    module = UpscaleModelLoader.execute("swinir.safetensors").result[0]
    restored = stage1.BIRRestorationModule.execute(module, image, "face", "v2.1", 1.0, 0)
    results["swinir"] = restored.result[0].movedim(-1, 1)
    for name in ("diffir_s2", "diffir_gan", "diffir_inpainting"):
        model = diffir.DiffIRLoader.execute(f"{name}.safetensors").result[0]
        mask = inputs["mask"][:, 0] if name == "diffir_inpainting" else None
        restored = diffir.DiffIRRestore.execute(model, image, 0, mask=mask)
        results[name] = restored.result[0].movedim(-1, 1)
    save_file({name: value.contiguous().clone() for name, value in results.items()}, results_path)
