"""Run by ComfyUI's Python, without a server: the official guided trajectories by the stock `ddpm`.

Arguments: ComfyUI's folder, the pack's folder, tests/data, the file to write the results to. The
results are tensors by name; `test_guidance_in_process.py` compares them.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

comfyui, pack, data, results_path = (Path(argument) for argument in sys.argv[1:5])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.k_diffusion.sampling  # noqa: E402
import comfy.model_sampling  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
)
assert spec is not None and spec.loader is not None
sys.modules["bir_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bir_pack"])

from bir_pack.bir_core.diffusion.guidance import region_weight  # noqa: E402
from bir_pack.bir_core.diffusion.schedules import model_sigmas  # noqa: E402
from bir_pack.bir_core.exact_vae.tiled import decode_with_gradient  # noqa: E402
from bir_pack.bir_core.networks.autoencoder import SDVAE, VAEConfig  # noqa: E402
from bir_pack.nodes.host import guidance as host_guidance  # noqa: E402
from bir_pack.nodes.host.guidance import LAST_TIMESTEP, GuidancePatch  # noqa: E402

with safe_open(data / "diffbir_guidance.safetensors", "pt") as file:
    vectors = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118
    cases = json.loads(file.metadata()["cases"])

base = (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS)
sampling = type("ModelSampling", base, {})()
model = SimpleNamespace(model_sampling=sampling, latent_format=None)
# In float64: rounding grows where the pull overshoots.
sigmas = model_sigmas("spaced", sampling.sigmas, 4).double()
image = vectors["target_img"]


class StandInDecoder(GuidancePatch):
    """Guidance whose decoder is that of the vectors."""

    def decode(self, device, latent_format):
        def decoded(latent):
            enlarged = torch.nn.functional.interpolate(latent, scale_factor=8)
            return torch.tanh(torch.einsum("oc,bchw->bohw", vectors["dec_M2"], enlarged))

        return decoded


def percent(timestep):
    return min(max(1 - timestep / LAST_TIMESTEP, 0.0), 1.0)


def predict(x, sigma, text):
    t = sampling.timestep(sigma)
    level = t.float()[:, None, None, None] / 1000
    prompt = vectors[text].mean(dim=(1, 2))[:, None, None, None]
    hint = 0.2 * vectors["c_img"] * prompt
    output = 0.1 * sampling.calculate_input(sigma, x) * (1 + level) + hint
    return sampling.calculate_denoised(sigma, output, x)


def trajectory(case):
    on_pixels = case["space"] == "rgb"
    patch = StandInDecoder(
        latent=torch.einsum(
            "oc,bchw->bohw", vectors["enc_M"], torch.nn.functional.avg_pool2d(image, 8)
        ),
        scale=case["g_scale"],
        repeats=case["repeat"],
        # The official limits are open and one higher than the timestep.
        start_percent=percent(case["g_start"] - 2),
        end_percent=percent(case["g_stop"]),
        weight=region_weight((image + 1) / 2) if case["loss"] == "w_mse" else None,
        image=image if on_pixels else None,
    )
    options = {
        "sampler_post_cfg_function": [patch],
        "transformer_options": {"sample_sigmas": sigmas},
    }

    def denoise(x, sigma, **_):
        cond, uncond = predict(x, sigma, "c_txt"), predict(x, sigma, "u_txt")
        return comfy.samplers.cfg_function(model, cond, uncond, 4.0, x, sigma, options)

    draws = iter(vectors[f"noise.{case['i']}"])
    steps = []
    with torch.inference_mode():
        result = comfy.k_diffusion.sampling.sample_ddpm(
            denoise,
            vectors["x_T"] * (1 + sigmas[0] ** 2).sqrt(),
            sigmas,
            disable=True,
            callback=lambda step: steps.append(step["x"] / (1 + step["sigma"] ** 2).sqrt()),
            noise_sampler=lambda *_: next(draws),
        )
    return torch.stack([*steps[1:], result])


def memory_for(pixels):
    """Convolutions run out of memory on larger maps, until the hook that comes back is removed."""

    def check(layer, inputs):
        if isinstance(layer, torch.nn.Conv2d) and inputs[0].shape[-2:].numel() > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    return torch.nn.modules.module.register_module_forward_pre_hook(check)


def pull_on_pixels(tile):
    """A patch for a picture of 192 x 128 pixels, and what it is called with."""
    torch.manual_seed(0)
    config = VAEConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
    vae = SimpleNamespace(first_stage_model=SDVAE(config), vae_dtype=torch.float32)
    patch = GuidancePatch(
        latent=torch.randn(1, 4, 16, 24),
        scale=1.0,
        repeats=1,
        start_percent=0.0,
        end_percent=1.0,
        image=torch.rand(1, 3, 128, 192),
        vae=vae,
        tile=tile,
    )
    args = {
        "denoised": torch.randn(1, 4, 16, 24),
        "model": SimpleNamespace(
            model_sampling=sampling, latent_format=SimpleNamespace(process_out=lambda x: x)
        ),
        "sigma": torch.tensor([1.0]),
        "model_options": {"transformer_options": {"sample_sigmas": sigmas}},
    }
    return patch, args


def short_of_memory():
    """The pull on pixels with plenty of memory, with little and with almost none."""
    patch, args = pull_on_pixels(tile=0)
    results, said = {}, {}
    plenty = 192 * 128
    with torch.inference_mode():
        for name, pixels in (
            ("plenty", plenty),
            ("little", 70 * 70),
            ("none", 100),
            ("again", plenty),
        ):
            hook = memory_for(pixels)
            try:
                results[f"memory.{name}"] = patch(args) - args["denoised"]
            except MemoryError as error:
                said[name] = str(error)
            said[f"tile, {name}"] = str(patch._limit)
            patch.clean_up(None)
            hook.remove()
    return results, said


def tried_on_a_card(fails):
    """(tile, on the host) of each try of the way through the decoder, for a device that is not the
    host, where `fails` says which of them run out of memory."""
    patch, args = pull_on_pixels(tile=128)
    tries = []

    def decode(decoder, latent, *, tile, on_host, callback):
        tries.append((tile, on_host))
        if fails(tile, on_host):
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        return decode_with_gradient(decoder, latent, tile=tile, callback=callback)

    host_guidance.CPU, host_guidance.decode_with_gradient = torch.device("meta"), decode
    try:
        with torch.inference_mode():
            patch(args)
    except MemoryError:
        pass
    finally:
        host_guidance.CPU = torch.device("cpu")
        host_guidance.decode_with_gradient = decode_with_gradient
    return json.dumps(tries)


results, said = short_of_memory()
said["tries, device full"] = tried_on_a_card(lambda tile, on_host: not on_host)
said["tries, both full"] = tried_on_a_card(lambda tile, on_host: tile > 64 or not on_host)
said["tries, nothing fits"] = tried_on_a_card(lambda tile, on_host: True)
results |= {f"trajectory.{case['i']}": trajectory(case).contiguous() for case in cases}
save_file(results, results_path, metadata=said)
