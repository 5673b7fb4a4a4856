"""ComfyUI's services for the nodes: model files, weights on the device, progress, cancel.

The files `host*.py` are the only ones that use parts of ComfyUI without a promise of stability.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from torch import Tensor, nn

from ...bir_core.errors import BIRError, shown
from ...bir_core.weights import FOLDER as BUILT_IN_FOLDER
from .messages import say, which_image
from .protocols import Patcher

# Files that no stock node can load have a folder of their own; the first folder with a name wins.
MODEL_FOLDERS = ("diffir", "upscale_models")


# An output of a node of a graph, as a prompt has it: [id, place]; and a graph that a node becomes.
Link = list[Any]
Graph = GraphBuilder


def register_model_folders() -> None:
    """Make `models/diffir` a model folder, beside the ones that the user's configuration names, and
    offer the built-in models to Load Upscale Model."""
    own = os.path.join(folder_paths.models_dir, "diffir")
    configured = folder_paths.folder_names_and_paths.get("diffir", ([], set()))[0]
    paths = [*configured, own] if own not in configured else configured
    folder_paths.folder_names_and_paths["diffir"] = (paths, folder_paths.supported_pt_extensions)
    # Behind the user's own folders: the first file of a name wins.
    folder_paths.add_model_folder_path("upscale_models", str(BUILT_IN_FOLDER))


def model_names() -> list[str]:
    """Files that may hold a DiffIR, as they stand in the model folders; not the built-in ones."""
    names = {
        name
        for folder in MODEL_FOLDERS
        for name in folder_paths.get_filename_list(folder)
        if folder_paths.get_full_path(folder, name) != str(BUILT_IN_FOLDER / name)
    }
    return sorted(names)


def model_path(name: str) -> str:
    """The file of a name that `model_names` gave."""
    for folder in MODEL_FOLDERS:
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return path
    raise BIRError(
        f"Expected the model file {shown(name)} in models/{' or models/'.join(MODEL_FOLDERS)}, "
        "but it is in neither; put it there or choose another one."
    )


def detection_file(name: str) -> Path:
    """A file of the folder `models/detection` or one below it, whether it is there or not."""
    names = folder_paths.get_filename_list("detection")
    found = next((each for each in names if Path(each).name == name), name)
    path = folder_paths.get_full_path("detection", found)
    return Path(folder_paths.get_folder_paths("detection")[0], name) if path is None else Path(path)


def input_folders() -> list[str]:
    """The folders below ComfyUI's input folder, as a list offers them."""
    names: list[str] = folder_paths.get_input_subfolders()
    return names


def input_folder(name: str) -> Path:
    """The folder of a name that `input_folders` gave."""
    place = Path(folder_paths.get_input_directory())
    if not folder_paths.is_within_directory(str(place), str(place / name)):
        raise BIRError(
            f"Expected a folder below ComfyUI's input folder, but {shown(name)} leads out of it; "
            "choose one of the list."
        )
    return place / name


def fingerprint(path: str | Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class ManagedModel:
    """A network whose weights ComfyUI moves between the devices."""

    patcher: Patcher

    @property
    def network(self) -> nn.Module:
        return self.patcher.model

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.patcher.load_device

    def load(self, memory_required: float) -> None:
        """Bring all weights to the device, with `memory_required` bytes to spare there."""
        comfy.model_management.load_models_gpu(
            [self.patcher], memory_required=memory_required, force_full_load=True
        )


def manage(network: nn.Module) -> ManagedModel:
    """Hand a network on the CPU to ComfyUI's memory management."""
    # Looked up at call time: ComfyUI replaces the class when its dynamic memory is on.
    patcher = comfy.model_patcher.CoreModelPatcher(
        network,
        load_device=computing_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return ManagedModel(patcher)


def raise_if_cancelled(done: int = 0, total: int = 0) -> None:
    """A progress callback that ends the work once the user has pressed cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def batch_progress(batch: int, piece: str = "") -> Callable[[int], Callable[[int, int], None]]:
    """A progress bar over `batch` images: the callback of image `index` moves it, and cancels.

    Args:
        piece: what the callback counts, to be told in words; nothing is told without it.
    """
    bar = comfy.utils.ProgressBar(batch)

    def of_image(index: int) -> Callable[[int, int], None]:
        def callback(done: int, total: int) -> None:
            raise_if_cancelled()
            bar.update_absolute(index * total + done, batch * total)
            if piece:
                say(f"{which_image(index, batch)}{piece} {done} of {total}")

        return callback

    return of_image


def blocked(reason: str) -> ExecutionBlocker:
    """An output that is not there: a node that wants it ends with the reason, the others go on."""
    return ExecutionBlocker(reason)


def to_output(image: Tensor) -> Tensor:
    """A finished IMAGE or MASK where the next node expects it: contiguous float32."""
    return image.to(comfy.model_management.intermediate_device()).float().contiguous()


def load_patcher(patcher: Patcher, memory_required: float) -> None:
    """Bring a model of ComfyUI to its device, with `memory_required` bytes to spare there."""
    comfy.model_management.load_models_gpu([patcher], memory_required=memory_required)


def computing_device() -> torch.device:
    """Where ComfyUI computes."""
    device: torch.device = comfy.model_management.get_torch_device()
    return device


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device, the CPU included."""
    return float(comfy.model_management.get_free_memory(device))


def total_memory(device: torch.device) -> float:
    """Bytes of a device, free or not."""
    return float(comfy.model_management.get_total_memory(device))


def device_of(device: torch.device) -> AbstractContextManager[None]:
    """What runs inside it has `device` as its current device, where there are several."""
    return comfy.model_management.cuda_device_context(device)
