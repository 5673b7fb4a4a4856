"""Run by ComfyUI's Python, without a server: what ComfyUI makes of our control net and schedule.

Arguments: ComfyUI's folder, the pack's folder, tests/data, the file to write the results to. The
results are tensors by name; `test_diffbir_in_process.py` compares them.
"""

import importlib.util
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

comfyui, pack, data, results_path = (Path(argument) for argument in sys.argv[1:5])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(comfyui))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.k_diffusion.sampling  # noqa: E402
import comfy.memory_management  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_sampling  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

Results = dict[str, Tensor]


def import_pack() -> ModuleType:
    """The pack under the name of a package, as ComfyUI imports it."""
    spec = importlib.util.spec_from_file_location(
        "bir_pack", pack / "__init__.py", submodule_search_locations=[str(pack)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bir_pack"] = module
    spec.loader.exec_module(module)
    return module


import_pack()
from bir_pack.bir_core.diffusion.schedules import model_sigmas  # noqa: E402
from bir_pack.bir_core.errors import BIRError  # noqa: E402
from bir_pack.bir_core.networks.ir_controlnet import IRControlNet  # noqa: E402
from bir_pack.bir_core.networks.unet import UNetConfig  # noqa: E402
from bir_pack.nodes import operations  # noqa: E402
from bir_pack.nodes.host import control as host_control  # noqa: E402
from bir_pack.nodes.host import control_loader as host_control_loader  # noqa: E402
from bir_pack.nodes.host import sampling as host_sampling  # noqa: E402


def vectors(name: str) -> tuple[Results, dict[str, str]]:
    with safe_open(data / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def config_of(official: str) -> UNetConfig:
    settings = json.loads(official)
    names = ("model_channels", "num_res_blocks", "num_head_channels", "context_dim")
    return UNetConfig(
        channel_mult=tuple(settings["channel_mult"]),
        attention_resolutions=tuple(sorted(settings["attention_resolutions"])),
        **{name: settings[name] for name in names},
    )


def rule_w(network: torch.nn.Module, base: int) -> None:
    state = network.state_dict()
    for index, name in enumerate(sorted(state)):
        value = state[name]
        z = torch.randn(tuple(value.shape), generator=torch.Generator().manual_seed(base + index))
        if value.ndim >= 2:
            z = z / (value.numel() / value.shape[0]) ** 0.5
        else:
            z = 0.1 * z + (1 if name.endswith(".weight") else 0)
        value.copy_(z)


def control_outputs() -> Results:
    """The 13 outputs of the official vectors through ComfyUI's network with our split weights."""
    results = {}
    for name in ("small4", "tiny"):
        tensors, metadata = vectors(f"diffbir_controlnet_{name}")
        config = config_of(metadata["config_controlnet"])
        network = IRControlNet(config)
        rule_w(network, int(metadata["rule_base_controlnet"]))
        control = host_control_loader.build_control_net(config, network.state_dict())
        outputs = control.control_model(
            x=tensors["x"],
            hint=tensors["hint"],
            timesteps=tensors["timesteps"],
            context=tensors["context"],
        )
        for index, output in enumerate([*outputs["output"], *outputs["middle"]]):
            results[f"control.{name}.{index}"] = output
    return results


def weight_types() -> Results:
    """How the weights are stored, with ComfyUI's dynamic memory, which makes layers late, and
    without it."""
    results = {}
    for dynamic in (False, True):
        comfy.memory_management.aimdo_enabled = dynamic
        for name in ("default", "fp8_e4m3fn"):
            state = control_net(weight_dtype=name).control_model.state_dict()
            kinds = {value.dtype for value in state.values()}
            results[f"type.{dynamic}.{name}"] = torch.tensor([kind.itemsize for kind in kinds])
            results[f"weight.{dynamic}.{name}"] = state["time_embed.0.weight"].float()
    comfy.memory_management.aimdo_enabled = False
    return results


def computed_in_float32() -> Results:
    """A control net that computes in float16, as on a GPU, and its copy in float32."""
    management = comfy.model_management
    comfy.cli_args.args.fp16_unet, stock = True, management.unet_manual_cast
    management.unet_manual_cast = lambda *_: None
    half = control_net()
    comfy.cli_args.args.fp16_unet, management.unet_manual_cast = False, stock
    wide = half.in_float32()
    generator = torch.Generator().manual_seed(0)
    x, hint = torch.randn(2, 1, 4, 8, 8, generator=generator)
    context = torch.randn(1, 77, 1024, generator=generator)
    results = {}
    for name, net in {"half": half, "wide": wide, "half again": half}.items():
        management.load_models_gpu(net.get_models())
        inputs = (each.to(net.computing_type) for each in (x, hint, context))
        x_in, hint_in, context_in = inputs
        output = net.control_model(
            x=x_in, hint=hint_in, timesteps=torch.tensor([500.0]), context=context_in
        )
        results[f"float32.{name}"] = output["middle"][0]
    exact = control_net()
    weights = half.control_model.state_dict()
    exact.control_model.load_state_dict({name: value.float() for name, value in weights.items()})
    output = exact.control_model(x=x, hint=hint, timesteps=torch.tensor([500.0]), context=context)
    results["float32.exact"] = output["middle"][0]
    return results


class SampledModel:
    """What ComfyUI hands to its samplers: the guider, and the way to the model's sampling."""

    def __init__(self, guider: host_sampling.GrowingCFGGuider, sampling: object) -> None:
        self.guider = guider
        self.inner_model = SimpleNamespace(
            inner_model=SimpleNamespace(model_sampling=sampling),
            model_patcher=SimpleNamespace(get_model_object=lambda name: sampling),
        )

    def __call__(self, x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        return self.guider.predict_noise(x, sigma)


def stock_sampler(case: dict, draws: Iterator[Tensor]) -> Callable[..., Tensor]:
    """ComfyUI's sampler for a case of the vectors."""
    sampling = comfy.k_diffusion.sampling
    functions = {
        "spaced": sampling.sample_ddpm,
        "edm_euler": sampling.sample_euler,
        "edm_euler_a": sampling.sample_euler_ancestral,
        "edm_heun": sampling.sample_heun,
        "edm_dpm++_2m": sampling.sample_dpmpp_2m,
        "edm_dpm++_2m_sde": sampling.sample_dpmpp_2m_sde,
        "edm_dpm++_3m_sde": sampling.sample_dpmpp_3m_sde,
    }
    function = functions[case["sampler"]]
    known = inspect.signature(function).parameters
    options = {name: value for name, value in case["extra"].items() if name in known}
    if "noise_sampler" in known:
        options["noise_sampler"] = lambda sigma, sigma_next: next(draws)
    return partial(function, disable=True, **options)


def sampled_trajectories() -> Results:
    """The official samplers' cases on the stand-in network: our schedules and guider, with
    ComfyUI's samplers and its eps and v parameterisations."""
    tensors, metadata = vectors("diffbir_samplers")
    kinds = {"eps": comfy.model_sampling.EPS, "v": comfy.model_sampling.V_PREDICTION}
    results = {}
    for case in json.loads(metadata["cases"]):
        spaced = case["sampler"] == "spaced"
        # ComfyUI has no sampler for the first two; noise that is added between two levels asks for
        # timesteps between them, which ComfyUI has and the official code has not.
        if case["sampler"] in ("ddim", "dpm++_m2") or case["extra"].get("s_churn"):
            continue
        index = case["i"]
        base = (comfy.model_sampling.ModelSamplingDiscrete, kinds[case["param"]])
        sampling = type("ModelSampling", base, {})(zsnr=case["schedule"] != "plain")
        model = SimpleNamespace(get_model_object=lambda name, found=sampling: found)
        plan = "spaced" if spaced else "edm"
        sigmas = model_sigmas(plan, host_sampling.trained_sigmas(model), case["steps"])

        def sampling_function(inner, x, sigma, uncond, cond, cfg, **_):
            t = inner.model_sampling.timestep(sigma)
            level = t.float()[:, None, None, None] / 1000
            scaled = 0.1 * inner.model_sampling.calculate_input(sigma, x) * (1 + level)
            of_cond, of_uncond = (
                scaled + 0.2 * tensors["c_img"] * text.mean(dim=(1, 2))[:, None, None, None]
                for text in (cond, uncond)
            )
            output = of_uncond + cfg * (of_cond - of_uncond)
            return inner.model_sampling.calculate_denoised(sigma, output, x)

        comfy.samplers.sampling_function = sampling_function
        patcher = SimpleNamespace(model_options={})
        guider = host_sampling.GrowingCFGGuider(patcher, case["cfg_scale"], case["rescale_cfg"])
        guider.inner_model = SimpleNamespace(model_sampling=sampling)
        guider.conds = {"positive": tensors["c_txt"], "negative": tensors["u_txt"]}
        steps: list[Tensor] = []
        result = stock_sampler(case, iter(tensors.get(f"noise.{index}", ())))(
            SampledModel(guider, sampling),
            tensors["x_T"] * (1 + sigmas[0] ** 2).sqrt(),
            sigmas,
            callback=lambda step, steps=steps: steps.append(
                step["x"] / (1 + step["sigma"] ** 2).sqrt()
            ),
        )
        if spaced:
            results[f"trajectory.{index}"] = torch.stack([*steps[1:], result])
        else:
            results[f"edm.{index}"] = result
    return results


def control_net(**options: object) -> host_control.IRControlNet:
    config = UNetConfig(
        model_channels=32,
        channel_mult=(1,),
        num_res_blocks=1,
        attention_resolutions=(1,),
        num_head_channels=16,
        context_dim=1024,
    )
    network = IRControlNet(config)
    rule_w(network, 0)
    return host_control_loader.build_control_net(config, network.state_dict(), **options)


class CountingVAE:
    """Latents that say where in the image they come from; counts how often it encodes."""

    latent_channels = 4
    vae_dtype = torch.float32

    def __init__(self, channels: int = 4) -> None:
        self.latent_channels, self.calls = channels, 0

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small, small[:, :1]], dim=1)


def base_model(config: type, unet: dict[str, object], height: int, width: int) -> SimpleNamespace:
    """What a control net sees of the model that it is to steer."""
    base = (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS)
    model_config = config.__new__(config)
    model_config.unet_config = {**config.unet_config, **unet}
    return SimpleNamespace(
        model_config=model_config,
        model_sampling=type("ModelSampling", base, {})(),
        latent_shapes=[torch.Size((1, 4, height, width))],
    )


def sd21(height: int, width: int) -> SimpleNamespace:
    sizes = {"model_channels": 32, "channel_mult": [1], "num_res_blocks": [1]}
    return base_model(comfy.supported_models.SD20, sizes, height, width)


def hints() -> Results:
    """Which part of the condition the network gets: whole, areas, tiles, tiles within areas."""
    vae = CountingVAE()
    image = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    applied = control_net().copy().set_cond_hint(image, vae=vae)
    clone = applied.deepclone_multigpu(torch.device("cpu"))
    nets = {"net": applied, "clone": clone}
    results = {}
    for name, net in nets.items():
        assert type(net) is host_control.IRControlNet
        for _ in range(2):  # once for each prompt
            net.pre_run(sd21(8, 16), lambda percent: 1000 * (1 - percent))
        calls = {
            "whole": (torch.zeros(4, 4, 8, 16), {}, 2, {}),
            "areas": (torch.zeros(4, 4, 4, 8), {host_control.AREA: [(0, 0), (4, 8)]}, 2, {}),
            "tiles": (
                torch.zeros(8, 4, 8, 8),
                {},
                2,
                {host_control.WINDOW: [(0, 0, 8, 16), (0, 8, 8, 16)]},
            ),
            "tile_of_area": (
                torch.zeros(2, 4, 2, 2),
                {host_control.AREA: [(1, 2)]},
                1,
                {host_control.WINDOW: [(4, 8, 8, 16)]},
            ),
        }
        for case, arguments in calls.items():
            results[f"hint.{name}.{case}"] = net.part_of_call(net.condition, *arguments)
    results["hint.full"] = applied.condition
    results["encodings"] = torch.tensor(vae.calls)
    memory = [net.inference_memory_requirements(torch.float32) for net in nets.values()]
    results["memory"] = torch.tensor(memory)
    for net in nets.values():
        net.cleanup()
        assert net.condition is None
        net.pre_run(sd21(8, 16), lambda percent: 1000 * (1 - percent))
    results["encodings_after_cleanup"] = torch.tensor(vae.calls)
    return results


def sentences() -> dict[str, str]:
    """What is said of wrong base models and VAEs."""
    image = torch.rand(1, 3, 64, 64)
    said = {}

    def note(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except (BIRError, ValueError) as error:
            said[name] = str(error)

    def steer(model: SimpleNamespace) -> None:
        net = control_net().copy().set_cond_hint(image, vae=CountingVAE())
        net.pre_run(model, lambda percent: 1000 * (1 - percent))

    models = comfy.supported_models
    wider = sd21(8, 8)
    wider.model_config.unet_config["model_channels"] = 320
    note("sdxl", lambda: steer(base_model(models.SDXL, {}, 8, 8)))
    note("sd15", lambda: steer(base_model(models.SD15, {}, 8, 8)))
    note("flux", lambda: steer(base_model(models.Flux, {}, 8, 8)))
    note("wider", lambda: steer(wider))
    note("sd21", lambda: steer(sd21(8, 8)))
    note("vae", lambda: control_net(vae=CountingVAE(16)))
    note("no_vae", lambda: control_net().copy().set_cond_hint(image))

    def short_of_memory(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    operations.COLOR_FIXES["short"] = short_of_memory
    note("color", lambda: operations.fix_colors(image, image, "short"))
    return said


def logged_of_attention() -> dict[str, str]:
    """What the log says of ComfyUI's attention on a CPU, by whether it is torch's."""
    host = comfy.model_management
    net = control_net().copy().set_cond_hint(torch.rand(1, 3, 64, 64), vae=CountingVAE())
    said = {}
    for torch_attention in (False, True):
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record, lines=lines: lines.append(record.getMessage())
        host_control.logger.addHandler(handler)
        host_control.logger.setLevel(logging.INFO)
        host.ENABLE_PYTORCH_ATTENTION = torch_attention
        for _ in range(2):  # once for each prompt
            net.pre_run(sd21(8, 8), lambda percent: 1000 * (1 - percent))
        net.cleanup()
        host_control.logger.removeHandler(handler)
        said[f"attention {torch_attention}"] = "\n".join(lines)
    return said


with torch.inference_mode():
    found = control_outputs() | weight_types() | computed_in_float32()
    found |= sampled_trajectories() | hints()
    tensors = {name: value.contiguous().clone() for name, value in found.items()}
    save_file(tensors, results_path, metadata=sentences() | logged_of_attention())
