"""Run by ComfyUI's Python, without a server: the nodes on small random networks beyond Stable
Diffusion 2.1, and SUPIR, control nets and adapters in tiles.

Arguments: ComfyUI's folder, the pack's folder, the file to write the results to. The results are
tensors by name; `test_beyond_in_process.py` compares them.
"""

import functools
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

comfyui, pack, results_path = (Path(argument) for argument in sys.argv[1:4])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.cldm.cldm  # noqa: E402
import comfy.controlnet  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.hunyuan_video import vae as hunyuan_image  # noqa: E402
from comfy.ldm.modules.diffusionmodules.model import Decoder  # noqa: E402
from comfy.ldm.modules.temporal_ae import VideoDecoder  # noqa: E402
from comfy.ldm.supir import supir_modules  # noqa: E402
from comfy.t2i_adapter.adapter import Adapter  # noqa: E402
from comfy_extras import nodes_model_patch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
)
assert spec is not None and spec.loader is not None
sys.modules["bir_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bir_pack"])

from bir_pack.bir_core.errors import BIRError  # noqa: E402
from bir_pack.nodes import operations  # noqa: E402
from bir_pack.nodes.host.tiling import require_tileable  # noqa: E402
from bir_pack.nodes.host.vae import decode_whole, exact_operations  # noqa: E402

torch.set_num_threads(1)  # more would wait for each other: the networks are tiny
CPU = torch.device("cpu")
OPS = comfy.ops.disable_weight_init
WIDTH, CONTEXT = 64, 64
UNET = {
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 1, 1],
    "transformer_depth": [0, 0, 1, 1, 1, 1],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "dtype": torch.float32,
}
SDXL = {"use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 1280,
    "context_in_dim": CONTEXT,
    "hidden_size": WIDTH,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
    "dtype": torch.float32,
}
SAMPLED = {
    "sd15": (comfy.supported_models.SD15, {"use_linear_in_transformer": False}, "EPS"),
    "sdxl": (comfy.supported_models.SDXL, SDXL, "EPS"),
    "sdxl v": (comfy.supported_models.SDXL, SDXL, "V_PREDICTION"),
    "sdxl edm": (comfy.supported_models.SDXL, SDXL, "EDM"),
}


def random(network):
    """The network with weights by a fixed rule, so that outputs keep the size of inputs."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        draw = torch.randn(value.shape, generator=generator)
        wide = value.ndim > 1
        value.data = draw / value[0].numel() ** 0.5 if wide else 0.1 * draw + ("weight" in name)
    return network.eval().requires_grad_(False)


def patcher(network):
    return comfy.model_patcher.CoreModelPatcher(network, load_device=CPU, offload_device=CPU)


@functools.cache
def model(name):
    """A MODEL, to be cloned."""
    if name == "flux":
        built = comfy.supported_models.Flux(FLUX)
        return patcher(random(comfy.model_base.Flux(built, device=CPU)))
    config, sizes, kind = SAMPLED[name]
    built = config({**UNET, **sizes})
    family = comfy.model_base.SDXL if "sdxl" in name else comfy.model_base.BaseModel
    return patcher(random(family(built, model_type=comfy.model_base.ModelType[kind], device=CPU)))


class LocalVAE:
    """Latents that are means of 8 x 8 pixels, so that those of a tile are its own."""

    latent_channels, vae_dtype, device, output_device = 4, torch.float32, CPU, CPU
    first_stage_model = nn.Identity()

    def spacial_compression_encode(self):
        return 8

    def encode(self, pixels):
        small = nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latent):
        return nn.functional.interpolate(latent[:, :3], scale_factor=8).movedim(1, -1)


vae = LocalVAE()
generator = torch.Generator().manual_seed(1)
height, width, tile = 64, 128, 64  # pixels: two tiles without overlap
image = torch.rand(2, 3, height, width, generator=generator)
noise = torch.randn(2, 4, height // 8, width // 8, generator=generator)
text = torch.randn(2, 1, 77, CONTEXT, generator=generator)
pooled = torch.randn(1, 1280, generator=generator)


class SUPIR(nn.Module):
    """As `supir_modules.SUPIR`, narrow."""

    def __init__(self):
        super().__init__()
        self.control_model = supir_modules.GLVControl(
            model_channels=WIDTH,
            channel_mult=(1, 1, 1),
            transformer_depth=(1, 1, 1),
            context_dim=CONTEXT,
            operations=OPS,
        )
        concatenated = [WIDTH] * 9 + [0]
        self.project_modules = nn.ModuleList(
            supir_modules.ZeroSFT(WIDTH, WIDTH, concat_channels=more, operations=OPS)
            for more in concatenated
        )
        for index in (6, 3):
            attention = supir_modules.ZeroCrossAttn(WIDTH, WIDTH, operations=OPS)
            self.project_modules.insert(index, attention)


supir = patcher(random(SUPIR()))
settings = {**UNET, **SDXL, "hint_channels": 3, "num_head_channels": 64, "operations": OPS}
del settings["out_channels"], settings["transformer_depth_output"]
CONTROL_NETS = {
    "control net": comfy.controlnet.ControlNet(
        random(comfy.cldm.cldm.ControlNet(**settings)), load_device=CPU
    ),
    "adapter": comfy.controlnet.T2IAdapter(
        random(Adapter(cin=768, channels=[WIDTH] * 4, nums_rb=1, ksize=1, sk=True, use_conv=False)),
        *(3, 8, "nearest-exact", CPU),
    ),
}


def with_supir(found, picture, restore_cfg):
    (applied,) = nodes_model_patch.SUPIRApply.execute(
        model=found,
        model_patch=supir,
        vae=vae,
        image=picture.movedim(1, -1),
        strength_start=1.0,
        strength_end=0.5,
        restore_cfg=restore_cfg,
        restore_cfg_s_tmin=0.05,
    ).args
    return applied


def sampled(kind, name, picture, start, tiled=None, guidance=0.0, steps=2):
    """A latent from the noise `start`.

    Args:
        kind: what sees the picture.
        tiled: tiles at a time; None for the whole.
    """
    found = model(name)
    if "supir" in kind:
        found = with_supir(found, picture, 4.0 if "restore" in kind else 0.0)
    if guidance:
        found, _ = operations.guide(
            found, picture, vae, scale=guidance, loss="mse", per="512x512", end_percent=0.9
        )
    if tiled is not None:
        found = operations.tile_model(found, tile, 0, "gaussian", tiled)
    size = {"width": 1024, "height": 1024, "target_width": 1024, "target_height": 1024}
    told = {"pooled_output": pooled, **size}
    if kind in CONTROL_NETS:
        control = CONTROL_NETS[kind].copy().set_cond_hint(picture, strength=0.7)
        told |= {"control": control, "control_apply_to_uncond": True}
    conds = [[[each, dict(told)]] for each in text]
    if kind == "area":  # another prompt in the last columns
        area = (height // 8, tile // 8, 0, start.shape[-1] - tile // 8)
        conds[0].append([text[1] - text[0], {**told, "area": area, "strength": 1.0}])
    return comfy.sample.sample(
        found, start, steps, 3.0, "euler", "normal", *conds, torch.zeros_like(start), seed=0
    )


def pieces(tensor):
    return tensor.chunk(width // tile, dim=-1)


def tiles(kind, name, start, guidance=0.0):
    """Latents in tiles without overlap, in which each is sampled as it would be alone, with its
    part of everything: the tiles alone, one and two of them at a time, the first image of the batch
    alone, and another picture."""

    def run(picture, start, tiled, kind=kind):
        return sampled(kind, name, picture, start, tiled, guidance)

    left, right = zip(pieces(image), pieces(start), strict=True)
    alone = [run(*left, None, "plain" if kind == "area" else kind), run(*right, None)]
    whole = [run(image, start, 1), run(image, start, 2)]
    first = torch.cat([run(image[:1], start[:1], 2), whole[0][1:]])
    return torch.stack([torch.cat(alone, -1), *whole, first, run(1 - image, start, 2)])


def guided(name):
    """From the noise with guidances of growing scale, and the latent that they pull to."""
    pulled = [sampled("plain", name, image, noise, None, scale) for scale in (0.0, 0.02, 0.05)]
    target = vae.encode(image.movedim(1, -1))
    return torch.stack([*pulled, target])


results = {}
said = {}


def note(name, action):
    try:
        action()
    except (BIRError, ValueError) as error:  # a node tells it as the latter
        said[name] = str(error)


def flow():
    sampling = comfy.model_base.model_sampling(
        SimpleNamespace(sampling_settings={}), comfy.model_base.ModelType.FLOW
    )
    found = model("sdxl").clone()
    found.add_object_patch("model_sampling", sampling)
    operations.guide(found, image, vae, scale=0.5)


def whole_picture():
    patch = object.__new__(nodes_model_patch.ZImageControlPatch)
    require_tileable([], {"transformer_options": {"patches": {"double_block": [patch]}}})


def decoders():
    """Which of ComfyUI's decoders whose modules have the names of Stable Diffusion's are cut."""
    sizes = {"ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1, "z_channels": 4, "out_ch": 3}
    image_sizes = {**sizes, "attn_resolutions": [], "in_channels": 3, "resolution": 64}
    video_sizes = {"video_kernel_size": [3, 1, 1], "alpha": 0.0}
    networks = {
        "sd": Decoder(**image_sizes),
        "flux": Decoder(**{**image_sizes, "z_channels": 16}),
        "svd": VideoDecoder(**image_sizes, **video_sizes),
        "hunyuan image": hunyuan_image.Decoder(4, 3, [32, 32], 1, 2),
    }
    for name, decoder in networks.items():
        holder = SimpleNamespace(first_stage_model=SimpleNamespace(decoder=decoder))
        said[f"decoder, {name}"] = str(exact_operations(holder, "decoder") is not None)


with torch.inference_mode():
    for kind, name in {
        "plain": "sd15",
        "area": "sdxl",
        "control net": "sdxl",
        "adapter": "sdxl",
        "supir": "sdxl v",
    }.items():
        results[f"tiles.{kind}"] = tiles(kind, name, noise)
    results["tiles.guided"] = tiles("supir with restore_cfg", "sdxl", noise, guidance=0.02)
    results["tiles.flux"] = tiles("plain", "flux", noise.repeat(1, 4, 1, 1))
    results["one tile"] = torch.stack(
        [sampled("supir", "sdxl", image[..., :tile], noise[..., : tile // 8], t) for t in (None, 1)]
    )
    for name in SAMPLED:
        results[f"guided.{name}"] = guided(name)
    decoders()
    note("flow", flow)
    note("whole picture", whole_picture)
    note("other size", lambda: sampled("supir", "sdxl", image[..., :64, :64], noise, 1))
    vae.decode = lambda latent: torch.rand(2, 3, 8, 8, 3)  # as a VAE for video
    results["frames"] = decode_whole(vae, torch.zeros(2, 16, 3, 1, 1))
tensors = {name: value.contiguous().clone() for name, value in results.items()}
save_file(tensors, results_path, metadata=said)
