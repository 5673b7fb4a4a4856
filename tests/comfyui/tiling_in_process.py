"""Run by ComfyUI's Python, without a server: what tiled sampling asks of ComfyUI.

Arguments: ComfyUI's folder, the pack's folder. Writes a line of JSON; `test_tiling_in_process.py`
reads it.
"""

import importlib.util
import json
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

comfyui, pack = (Path(argument) for argument in sys.argv[1:3])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.controlnet  # noqa: E402
import torch  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
)
assert spec is not None and spec.loader is not None
sys.modules["bir_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bir_pack"])

from bir_pack.bir_core.networks.ir_controlnet import IRControlNet  # noqa: E402
from bir_pack.bir_core.networks.unet import UNetConfig  # noqa: E402
from bir_pack.bir_core.tiling import Tile  # noqa: E402
from bir_pack.nodes.host import control_loader as host_control_loader  # noqa: E402
from bir_pack.nodes.host.tiling import TilingPatch  # noqa: E402

found = {}
config = UNetConfig(
    model_channels=32,
    channel_mult=(1,),
    num_res_blocks=1,
    attention_resolutions=(1,),
    num_head_channels=16,
    context_dim=1024,
)
own = host_control_loader.build_control_net(config, IRControlNet(config).state_dict())
own.hint = SimpleNamespace(image=torch.zeros(1, 3, 512, 1024))
patch = TilingPatch(tile=16, overlap=8, weights="gaussian", tile_batch=3)


def prepared(model, noise_shape, conds):
    found["noise shape"] = noise_shape
    found["memory in tiles"] = own.inference_memory_requirements(torch.float32)


patch.reserve(prepared, None, [2, 4, 64, 128], {"positive": [{"control": own}], "negative": []})
found["memory of the whole"] = own.inference_memory_requirements(torch.float32)


class Stock(comfy.controlnet.ControlBase):
    """A control net of another kind, on two devices."""


stock, clone = Stock(), Stock()
stock.cond_hint_original = torch.arange(8 * 16 * 64.0).reshape(1, 1, 64, 128)
clone.cond_hint_original = stock.cond_hint_original
stock.multigpu_clones = {"cuda:1": clone}
own.previous_controlnet = stock
chosen = (Tile(0, 8, 8, 8),)
part = patch.control(own, (8, 16), chosen, 1)
found["own part"] = [type(part).__name__, part is own, part.hint is own.hint]
expected = stock.cond_hint_original[..., 64:]
on_other_device = part.previous_controlnet.multigpu_clones["cuda:1"]
found["cropped"] = [
    torch.equal(each.cond_hint_original, expected)
    for each in (part.previous_controlnet, on_other_device)
]
found["same again"] = patch.control(own, (8, 16), chosen, 1) is part
found["original untouched"] = own.previous_controlnet is stock
own.previous_controlnet = None
found["alone"] = patch.control(own, (8, 16), chosen, 1) is own
patch.clean_up(None)

cond = {"uuid": uuid.uuid4(), "model_conds": {}}
places = ((Tile(0, 0, 8, 8),), (Tile(0, 8, 8, 8),), (Tile(0, 0, 8, 8),))
found["names"] = [str(patch.crop_conds([cond], (8, 16), each, 1)[0]["uuid"]) for each in places]

batches = []
OPTIONS = {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.0])}}


def runs_out_above_1(model, conds, pieces, timestep, options):
    batches.append(len(pieces))
    if len(pieces) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return [pieces.clone()]


x = torch.rand(1, 4, 32, 32)
(fused,) = patch(runs_out_above_1, None, [[]], x, torch.ones(1), OPTIONS)
found["batches"] = list(batches)
found["identity"] = float((fused - x).abs().max())
patch(runs_out_above_1, None, [[]], x, torch.ones(1), OPTIONS)
found["next step"] = batches[10:12]


def always_runs_out(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


for name, call in {
    "out of memory": lambda: patch(always_runs_out, None, [[]], x, torch.ones(1), OPTIONS),
    "gligen": lambda: patch(
        runs_out_above_1, None, [[{"gligen": 1, "model_conds": {}}]], x, torch.ones(1), {}
    ),
    "twice": lambda: patch(
        lambda *given: TilingPatch(8, 4, "gaussian", 1)(runs_out_above_1, *given),
        *(None, [[]], x, torch.ones(1), OPTIONS),
    ),
    "video": lambda: patch(runs_out_above_1, None, [[]], x[None], torch.ones(1), OPTIONS),
}.items():
    try:
        call()
    except (ValueError, MemoryError) as error:
        found[name] = str(error)
sys.stdout.write(json.dumps(found) + "\n")
