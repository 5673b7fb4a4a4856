"""What is used of ComfyUI's objects, with its types.

ComfyUI is not there when the types are checked, and one socket carries objects of several of its
classes. So a type says here what such an object has to have, by ComfyUI's names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, overload
from uuid import UUID

import torch
from torch import Tensor, nn

# CONDITIONING: entries of an embedding and a dictionary of options.
Conditioning = list[list[Any]]
# An entry of one in its sampling: a dictionary with the embedding among the options.
Cond = dict[str, Any]
# What a control net adds to the maps of a U-Net's input, middle and output blocks.
Control = dict[str, list[Tensor | None]]


class LatentFormat(Protocol):
    """Between the latents of a VAE and those of a model, (B, C, h, w)."""

    spacial_downscale_ratio: int  # pixels to a side of one pixel of the latent

    def process_in(self, latent: Tensor) -> Tensor: ...

    def process_out(self, latent: Tensor) -> Tensor: ...


class ModelSampling(Protocol):
    """The noise levels of a model, (T,) ascending, and what they make of its input."""

    sigmas: Tensor
    sigma_max: Tensor

    def timestep(self, sigma: Tensor) -> Tensor: ...

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor: ...

    def calculate_denoised(
        self, sigma: Tensor, model_output: Tensor, model_input: Tensor
    ) -> Tensor: ...


class ModelConfig(Protocol):
    """Which model it is, and the sizes of its U-Net."""

    unet_config: Mapping[str, Any]


class DiffusionModel(Protocol):
    """The network that a MODEL moves and patches, with all that its sampling needs to know."""

    model_config: ModelConfig
    model_sampling: ModelSampling
    latent_format: LatentFormat
    current_patcher: "Model"
    diffusion_model: Callable[..., Tensor]
    latent_shapes: Sequence[Sequence[int]]

    def get_dtype_inference(self) -> torch.dtype: ...

    def get_dtype(self) -> torch.dtype: ...

    def memory_required(self, input_shape: Sequence[int]) -> float: ...


class Patcher(Protocol):
    """Moves the weights of a network between the devices."""

    model: nn.Module
    load_device: torch.device
    force_cast_weights: bool
    patches_uuid: UUID

    def clone(self) -> "Patcher": ...


class Model(Protocol):
    """A MODEL: the patcher of a diffusion model. A clone shares its weights, not its patches."""

    model: DiffusionModel
    load_device: torch.device

    def clone(self) -> "Model": ...

    @overload
    def get_model_object(self, name: Literal["latent_format"]) -> LatentFormat: ...

    @overload
    def get_model_object(self, name: Literal["model_sampling"]) -> ModelSampling: ...

    @overload
    def get_model_object(self, name: Literal["manual_cast_dtype"]) -> torch.dtype | None: ...

    def add_object_patch(self, name: str, obj: object) -> None: ...

    def set_model_compute_dtype(self, dtype: torch.dtype) -> None: ...

    def get_free_memory(self, device: torch.device) -> float: ...

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Callable[[dict[str, Any]], Tensor]
    ) -> None: ...

    def add_callback_with_key(
        self, call_type: str, key: str, callback: Callable[..., None]
    ) -> None: ...

    def add_wrapper_with_key(
        self, wrapper_type: str, key: str, wrapper: Callable[..., object]
    ) -> None: ...

    def get_additional_models_with_key(self, key: str) -> list[Patcher]: ...

    def set_additional_models(self, key: str, models: list[Patcher]) -> None: ...


class VAE(Protocol):
    """A VAE: images (B, H, W, 3) in [0, 1] to latents (B, C, h, w) without latent scale, and back;
    its network has images (B, 3, H, W) in [-1, 1]."""

    first_stage_model: nn.Module
    patcher: Patcher
    device: torch.device
    output_device: torch.device
    vae_dtype: torch.dtype
    latent_channels: int
    process_output: Callable[[Tensor], Tensor]

    def encode(self, pixel_samples: Tensor) -> Tensor: ...

    def decode(self, samples_in: Tensor) -> Tensor: ...

    def process_input(self, image: Tensor, /) -> Tensor: ...

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor: ...

    def spacial_compression_encode(self) -> int: ...


class Clip(Protocol):
    """A CLIP: a text encoder with its tokenizer."""

    def tokenize(self, text: str) -> Any: ...

    def encode_from_tokens_scheduled(self, tokens: Any) -> Conditioning: ...


class ControlNet(Protocol):
    """A CONTROL_NET, with the hint (B, C, H, W) that it was applied with, and the one before it."""

    previous_controlnet: "ControlNet | None"
    multigpu_clones: dict[torch.device, "ControlNet"]
    vae: VAE | None
    compression_ratio: int
    upscale_algorithm: str
    cond_hint_original: Tensor
    cond_hint: Tensor | None
    extra_concat_orig: list[Tensor]

    def copy(self) -> "ControlNet": ...

    def set_previous_controlnet(self, controlnet: "ControlNet | None") -> object: ...

    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: Mapping[str, Any],
        batched_number: int,
        transformer_options: Mapping[str, Any],
    ) -> Control | None: ...


class ModelCond(Protocol):
    """Something that a model is told beside the latent, most often a tensor."""

    cond: Any

    def _copy_with(self, cond: Any) -> "ModelCond": ...


class Guider(Protocol):
    """A GUIDER: a MODEL with its conditionings, ready to sample."""

    model_patcher: Model

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: object,
        sigmas: Tensor,
        *,
        callback: Callable[..., None],
        disable_pbar: bool,
        seed: int,
    ) -> Tensor: ...


class Architecture(Protocol):
    """What kind of network spandrel has loaded."""

    id: str
    name: str


class UpscaleModel(Protocol):
    """An UPSCALE_MODEL: a network of spandrel's for images (B, C, H, W) in [0, 1]."""

    input_channels: int
    output_channels: int
    scale: int
    architecture: Architecture
    size_requirements: Any  # with minimum and multiple_of, in pixels
    model: nn.Module
    patcher: Patcher

    def __call__(self, image: Tensor, /) -> Tensor: ...
