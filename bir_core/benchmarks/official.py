"""The official networks of DiffIR and DiffBIR from a checkout of their code that the user has, with
our weights, to measure against. Nothing of that code is part of this package or needed by it.

Only the modules that define the networks are run, not what their packages import beside them.
"""

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.diffir import stage2_tensors
from ..errors import BIRError
from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.diffir import DiffIRStage2
from ..networks.diffir_config import DiffIRConfig
from ..networks.ir_controlnet import HINT_CHANNELS, IRControlNet
from ..networks.unet import SDUNet, UNetConfig

# Folders of DiffIR's checkout by the task of the network.
DIFFIR_FOLDERS = {"sr": "DiffIR-RealSR", "deblur": "DiffIR-demotionblur"}
DIFFIR_FILE = "DiffIR/archs/S2_arch.py"
DIFFBIR_FILE = "diffbir/model/controlnet.py"


class _Registry:
    """Of network classes by name, which the networks are entered in and never looked up."""

    def register(self) -> Any:
        return lambda kind: kind


# What the official files import of packages that take no part in the computation.
STAND_INS: dict[str, dict[str, Any]] = {
    "basicsr": {},
    "basicsr.utils": {},
    "basicsr.utils.registry": {"ARCH_REGISTRY": _Registry()},
    "omegaconf": {},
    "omegaconf.listconfig": {"ListConfig": type("ListConfig", (list,), {})},
}


def require_checkouts(diffir: Path | None, diffbir: Path | None) -> None:
    """Raise BIRError if a folder that was given holds no official code."""
    wanted = [(diffir, f"{folder}/{DIFFIR_FILE}", "DiffIR") for folder in DIFFIR_FOLDERS.values()]
    for checkout, file, name in (*wanted, (diffbir, DIFFBIR_FILE, "DiffBIR")):
        if checkout is not None and not Path(checkout, file).is_file():
            raise BIRError(
                f"Expected a checkout of the official {name} with {file} in it, but {checkout} has "
                "none; give the folder that git clone made."
            )


def official_diffir(checkout: Path, network: DiffIRStage2) -> nn.Module:
    """The official stage 2 of the same size, with the same weights. As its code does, it draws its
    noise by itself, from torch's own generator on the device.

    Raises:
        BIRError: a task whose official code is not known here, a package that it needs is missing,
            or the code has other weights.
    """
    config = network.config
    if config.task not in DIFFIR_FOLDERS:
        raise BIRError(
            f"The official DiffIR is measured for {' and '.join(DIFFIR_FOLDERS)}, but a network "
            f"for {config.task} came; leave --official-diffir out."
        )
    root = Path(checkout, DIFFIR_FOLDERS[config.task])
    packages = {"DiffIR": root / "DiffIR", "DiffIR.archs": root / "DiffIR" / "archs"}
    with _code("DiffIR", root, packages):
        official = importlib.import_module("DiffIR.archs.S2_arch").DiffIRS2(**_diffir_sizes(config))
    wanted = stage2_tensors(official.state_dict())
    weights = stage2_tensors(network.state_dict())
    _require_same(wanted, weights, "DiffIR")
    official.load_state_dict(weights, strict=False)
    return _settled(official, network)


def _diffir_sizes(config: DiffIRConfig) -> dict[str, Any]:
    sizes = {
        "n_encoder_res": config.n_encoder_res,
        "dim": config.dim,
        "num_blocks": list(config.num_blocks),
        "num_refinement_blocks": config.num_refinement_blocks,
        "heads": list(config.heads),
        "ffn_expansion_factor": config.ffn_expansion_factor,
        "bias": config.bias,
        "LayerNorm_type": config.layer_norm,
        "n_denoise_res": config.n_denoise_res,
        "timesteps": config.timesteps,
        "linear_start": config.linear_start,
        "linear_end": config.linear_end,
    }
    return sizes | ({"scale": config.scale} if config.task == "sr" else {})


def official_step_networks(
    checkout: Path, unet: SDUNet, control: IRControlNet
) -> tuple[nn.Module, nn.Module]:
    """DiffBIR's official UNet and ControlNet of the same sizes; they share our networks' weights in
    memory.

    Raises:
        BIRError: a package that the code needs is missing, or it has other weights.
    """
    sizes = _unet_sizes(unet.config)
    with _diffbir_code(checkout):
        module = importlib.import_module("diffbir.model.controlnet")
        networks = (
            module.ControlledUnetModel(**sizes, out_channels=unet.config.out_channels),
            module.ControlNet(**sizes, hint_channels=HINT_CHANNELS),
        )
    return _sharing(networks[0], unet), _sharing(networks[1], control)


def official_autoencoder(checkout: Path, vae: SDVAE) -> Any:
    """DiffBIR's official autoencoder, a module with `decode`; as of `official_step_networks`."""
    with _diffbir_code(checkout):
        module = importlib.import_module("diffbir.model.vae")
        network = module.AutoencoderKL(_vae_sizes(vae.config), vae.config.embed_dim)
    return _sharing(network, vae)


@contextmanager
def _diffbir_code(checkout: Path) -> Iterator[None]:
    packages = {"diffbir": checkout / "diffbir", "diffbir.model": checkout / "diffbir" / "model"}
    with _code("DiffBIR", checkout, packages), torch.device("meta"):
        yield


def _sharing(official: nn.Module, ours: nn.Module) -> nn.Module:
    weights = ours.state_dict()
    _require_same(official.state_dict(), weights, "DiffBIR")
    official.load_state_dict(weights, assign=True)
    return _settled(official, ours)


def _unet_sizes(config: UNetConfig) -> dict[str, Any]:
    return {
        "image_size": 32,  # is not used
        "in_channels": config.in_channels,
        "model_channels": config.model_channels,
        "num_res_blocks": config.num_res_blocks,
        "attention_resolutions": list(config.attention_resolutions),
        "channel_mult": list(config.channel_mult),
        "num_head_channels": config.num_head_channels,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": 1,
        "context_dim": config.context_dim,
        "legacy": False,
    }


def _vae_sizes(config: VAEConfig) -> dict[str, Any]:
    return {
        "double_z": True,
        "z_channels": config.z_channels,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": config.ch,
        "ch_mult": list(config.ch_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def _require_same(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], name: str) -> None:
    shapes = [{key: tuple(value.shape) for key, value in each.items()} for each in (theirs, ours)]
    if shapes[0] != shapes[1]:
        other = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0][0]
        raise BIRError(
            f"Expected the official {name} to have the weights of its published files, but "
            f"{other} is not the same; give a checkout of the official code as it was published."
        )


def _settled(official: nn.Module, ours: nn.Module) -> nn.Module:
    weight = next(ours.parameters())
    return official.eval().requires_grad_(False).to(weight.device, weight.dtype)


@contextmanager
def _code(name: str, root: Path, packages: Mapping[str, Path]) -> Iterator[None]:
    """Let the modules below `root` be imported, without what the packages themselves import. What
    they print goes nowhere, and afterwards no other import finds them."""
    before = dict(sys.modules)
    for package, folder in packages.items():
        sys.modules[package] = module = ModuleType(package)
        module.__path__ = [str(folder)]
    for package, content in STAND_INS.items():
        sys.modules[package] = module = ModuleType(package)
        module.__path__ = []
        vars(module).update(content)
    sys.path.insert(0, str(root))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ImportError as error:
        raise BIRError(
            f"The official {name} should be imported from {root}, but it failed ({error}); install "
            "the package that it asks for, or leave the official code out."
        ) from error
    finally:
        sys.path.remove(str(root))
        for package in set(sys.modules) - set(before):
            if _is_of(sys.modules[package], root) or package in (*packages, *STAND_INS):
                del sys.modules[package]
        sys.modules.update({key: before[key] for key in before if key in (*packages, *STAND_INS)})


def _is_of(module: ModuleType, root: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(place).is_relative_to(root) for place in places if place is not None)
