"""Say what a restoration would take of the memory, and in which pieces, before any work is done.

For DiffIR and DiffBIR with networks of the official sizes: the tiles or strips of each stage, the
memory for weights and for the work, and whether it fits a device."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from ..checkpoints import load_model
from ..diffbir import method as restore_diffbir
from ..diffbir.memory_plan import plan_diffbir
from ..diffbir.networks import DiffBIRNetworks
from ..diffbir.restoration_modules import RestorationModule
from ..diffbir.settings import DiffBIRSettings, official_settings
from ..diffbir.stage1 import stage1_sizes
from ..diffbir.versions import Task, Version, official_order
from ..diffir.memory_plan import plan_diffir
from ..errors import BIRError
from ..memory import CPU, GIGABYTE, MemoryPlan, free_memory, weight_bytes
from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.diffir import DiffIRStage2
from ..networks.ir_controlnet import IRControlNet
from ..networks.swinir import SwinIR, SwinIRConfig
from ..networks.unet import SDUNet, UNetConfig
from ..pictures.files import read_picture
from ..weights import BUILTIN_NAMES, builtin_model_path
from .options import DTYPES, add_device_arguments, choose_device, write_line

UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
# The settings that change the memory.
SETTINGS = (
    "cfg",
    "guidance",
    "guidance_space",
    "tile",
    "overlap",
    "tile_batch",
    "vae_tile",
    "stage1_tile",
    "short_side",
)
# Stage 1 of v2, which spandrel would build: name, weights, enlargement.
OF_SPANDREL = {"sr": ("BSRNet", 16_697_987, 4), "denoise": ("SCUNet", 17_946_072, 1)}
CUDA = torch.device("cuda")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir plan`."""
    parser.add_argument(
        "inputs",
        metavar="WIDTHxHEIGHT|FILE",
        nargs="+",
        help="size in pixels of the picture that comes in, or the picture",
    )
    parser.add_argument("--method", choices=("diffir", "diffbir"), help="(default: both)")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=_size,
        help="of a GPU to plan for, such as 6GB (default: what is free on --device)",
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        default="builtin-x4",
        help=f"of DiffIR: {', '.join(BUILTIN_NAMES)} or a checkpoint file (default: builtin-x4)",
    )
    group = parser.add_argument_group("DiffBIR")
    group.add_argument("--version", choices=get_args(Version), default="v2.1")
    group.add_argument("--task", choices=get_args(Task), default="sr")
    group.add_argument("--upscale", metavar="FACTOR", type=float, default=4.0, help="(default: 4)")
    group.add_argument(
        "--offload", action="store_true", help="the networks of other stages wait on the host"
    )
    restore_diffbir.add_settings(group, SETTINGS)


def run(options: argparse.Namespace) -> int:
    """Print the plans."""
    sizes = [_picture_size(text) for text in options.inputs]
    if options.memory is None:
        device = choose_device(options.device)
        memory = free_memory(device)
    else:
        device = CPU if options.device == "cpu" else CUDA
        memory = options.memory
    if options.method != "diffbir":
        model = load_model(
            builtin_model_path(options.model) or options.model,
            dtype=DTYPES[options.dtype],
            architecture="diffir_s2",
        )
        for width, height in sizes:
            _write_diffir(model, width, height, options, device, memory)
    if options.method != "diffir":
        networks = official_networks(options.version, options.task, DTYPES[options.dtype])
        settings = _settings(options)
        for width, height in sizes:
            _write_diffbir(networks, settings, width, height, options, device, memory)
    return 0


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG]i?B)", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 6GB or 512MB, but {text} came")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _picture_size(text: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT, or of a picture file."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is not None:
        width, height = int(found[1]), int(found[2])
        if min(width, height) < 1:
            raise BIRError(
                f"Expected a size of at least 1x1 pixels, but {text} came; give a larger one."
            )
        return width, height
    height, width = read_picture(Path(text)).image.shape[-2:]
    return width, height


def _settings(options: argparse.Namespace) -> DiffBIRSettings:
    given = {name: getattr(options, name) for name in SETTINGS}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(official_settings(options.version), **changes)


def official_networks(version: Version, task: Task, dtype: torch.dtype) -> DiffBIRNetworks:
    """The networks of the official sizes, without memory for their weights; UNet and IRControlNet
    in `dtype`, the others in float32."""
    with torch.device("meta"):
        sd_unet, ir_controlnet = SDUNet(UNetConfig()), IRControlNet(UNetConfig())
        sd_vae = SDVAE(VAEConfig())
        if version == "v2" and task in OF_SPANDREL:
            name, numbers, scale = OF_SPANDREL[task]
            network: nn.Module = nn.ParameterList([torch.empty(numbers)])
        else:
            name, scale, network = "SwinIR", 1, SwinIR(SwinIRConfig())
    return DiffBIRNetworks(
        sd_unet=sd_unet.to(dtype),
        ir_controlnet=ir_controlnet.to(dtype),
        sd_vae=sd_vae,
        stage1=RestorationModule(network, scale, name, network),
    )


def _write_diffir(
    model: nn.Module,
    width: int,
    height: int,
    options: argparse.Namespace,
    device: torch.device,
    memory: int,
) -> None:
    assert isinstance(model, DiffIRStage2)  # the architecture that was asked for
    config = model.config
    dtype = DTYPES[options.dtype]
    plan = plan_diffir(
        config, weight_bytes(model), height, width, dtype=dtype, device=device, memory=memory
    )
    output = f"{width * config.scale}x{height * config.scale}"
    write_line(f"DiffIR {options.model}, {width}x{height} -> {output}, {options.dtype}\n")
    _write(plan, device)


def _write_diffbir(
    networks: DiffBIRNetworks,
    settings: DiffBIRSettings,
    width: int,
    height: int,
    options: argparse.Namespace,
    device: torch.device,
    memory: int,
) -> None:
    order = official_order(options.task, options.version)
    sizes = stage1_sizes(height, width, order, options.upscale, settings.short_side)
    plan = plan_diffbir(
        networks,
        sizes,
        order,
        settings,
        device=device,
        memory=memory,
        host_memory=free_memory(CPU),
        offload=options.offload,
    )
    output = f"{sizes.output[1]}x{sizes.output[0]}"
    write_line(
        f"DiffBIR {options.version} {options.task}, {width}x{height} -> {output}, "
        f"{options.dtype}{', offloaded' if options.offload else ''}\n"
    )
    _write(plan, device)


def _write(plan: MemoryPlan, device: torch.device) -> None:
    rows: list[Sequence[str]] = [
        ("stage", "pieces", "weights GB", "work GB", "on the host GB"),
        ("---",) * 5,
        *(
            (
                stage.name,
                stage.pieces,
                f"{stage.weights / GIGABYTE:.2f}",
                f"{stage.work / GIGABYTE:.2f}",
                f"{stage.parked / GIGABYTE:.2f}",
            )
            for stage in plan.stages
        ),
    ]
    for row in rows:
        write_line("| " + " | ".join(row) + " |")
    verdict, advice = "fits", ""
    if not plan.fits:
        verdict, advice = "does not fit", "; try --dtype float16, --offload or a smaller picture"
    where = "memory" if device.type == "cpu" else "memory of the GPU"
    write_line(
        f"\n{verdict}: {plan.largest.name} needs {plan.needed / GIGABYTE:.1f} GB of the "
        f"{plan.memory / GIGABYTE:.1f} GB {where}{advice}\n"
    )
