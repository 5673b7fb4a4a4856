"""Run by ComfyUI's Python, without a server: the exact tiled decode against the stock nodes' ways.

Arguments: ComfyUI's folder, the pack's folder, a VAE file, height, width and tile in pixels. Writes
a line of JSON: operations with floating-point numbers, peak bytes above those before, and largest
difference of each way.
"""

import importlib.util
import json
import sys
from pathlib import Path

comfyui, pack, file = (Path(argument) for argument in sys.argv[1:4])
height, width, tile = (int(argument) for argument in sys.argv[4:7])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
)
assert spec is not None and spec.loader is not None
sys.modules["bir_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bir_pack"])

from bir_pack.bir_core.benchmarks.measuring import peak_memory_of  # noqa: E402
from bir_pack.nodes.host.vae import Tiling, decode  # noqa: E402

CPU = torch.device("cpu")
vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(file)))
generator = torch.Generator().manual_seed(0)
latent = torch.randn(1, 4, height // 8, width // 8, generator=generator)
ways = {
    "whole": lambda: vae.decode(latent),
    "exact": lambda: decode(vae, latent, Tiling(tile, parking_dtype="float32")),
    # The stock node's proportions: an overlap of an eighth of the tile.
    "stock": lambda: vae.decode_tiled(
        latent, tile_x=tile // 8, tile_y=tile // 8, overlap=max(1, tile // 64)
    ),
}
with torch.inference_mode():
    found = {}
    pictures = {}
    for name, way in ways.items():
        pictures[name], extra, _ = peak_memory_of(way, CPU)
        with FlopCounterMode(display=False) as counter:
            way()
        found[name] = {"extra": extra, "operations": counter.get_total_flops()}
    for name, picture in pictures.items():
        found[name]["difference"] = float((picture - pictures["whole"]).abs().max())
print(json.dumps(found))  # noqa: T201
