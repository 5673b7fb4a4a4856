"""The files of the model folders that hold what a list offers, by their content.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import functools
import os

import folder_paths

from ...bir_core.checkpoints import inspect
from ...bir_core.checkpoints.loading import networks_of
from ...bir_core.errors import BIRError

# Files whose names and sizes are the same are not read again; more than anybody's folders hold.
MOST_FILES = 4096
RESTORERS = {"compact", "diffir_s2", "swinir"}


def restorers() -> list[str]:
    """Of Load Upscale Model: networks that restore a picture by themselves. What is not known here
    may be one of the many that Load Upscale Model knows."""
    return [
        name
        for name in folder_paths.get_filename_list("upscale_models")
        if (found := _networks("upscale_models", name)) is not None
        and (not found or found & RESTORERS)
    ]


def control_nets() -> list[str]:
    """IRControlNets."""
    return _holding("controlnet", {"ir_controlnet"})


def bases() -> list[str]:
    """Checkpoints with a UNet of Stable Diffusion 2 and its VAE."""
    return _holding("checkpoints", {"sd_unet", "sd_vae"})


def damage_finders() -> list[str]:
    """Networks that find damage of a picture's surface."""
    return _holding("detection", {"damage_finder"})


def _holding(folder: str, wanted: set[str]) -> list[str]:
    names = folder_paths.get_filename_list(folder)
    return [name for name in names if wanted <= (_networks(folder, name) or frozenset())]


def _networks(folder: str, name: str) -> frozenset[str] | None:
    """Names of the networks in a file that fit this pack; None for a file that cannot be read."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _networks_of_content(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=MOST_FILES)
def _networks_of_content(path: str, changed: int, size: int) -> frozenset[str] | None:
    try:
        names = {row.name for row in networks_of(path)}
        if "diffir_s2" in names and inspect(path, architecture="diffir_s2").task == "inpainting":
            return None  # it needs a mask
    except BIRError:
        return None
    return frozenset(names)
