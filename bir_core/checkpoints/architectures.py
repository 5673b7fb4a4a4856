"""Which network a checkpoint holds: one table, and the way from a file to a model.

Sizes come from tensor shapes, so no configuration file is needed beside the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BIRError
from ..networks.diffir import OFFICIAL_CONFIGS, DiffIRConfig, DiffIRStage1, DiffIRStage2
from .files import read_checkpoint
from .keys import StateDict, count_modules, unwrap, without_diffir_duplicates


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint is.

    Attributes:
        architecture: `diffir_s1` or `diffir_s2`.
        variant: a published variant (`realsr_x4`, also of the SRGAN files, which hold the same
            network; `deblur`, `inpainting`, ...) or `custom`.
        task: `sr`, `deblur` or `inpainting`.
        scale: output size divided by input size.
        config: all sizes of the network.
        parameters: their number, each counted once.
        dtype: of the weights in the file.
    """

    architecture: str
    variant: str
    task: str
    scale: int
    config: DiffIRConfig
    parameters: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Architecture:
    """A row of the table. A file is of this architecture if it holds all `required` keys."""

    name: str
    description: str
    required: tuple[str, ...]
    canonical: Callable[[StateDict], StateDict]
    config: Callable[[StateDict], DiffIRConfig]
    build: Callable[..., nn.Module]


@dataclass(frozen=True)
class ForeignFile:
    """A kind of file that people load by mistake, with the place where it belongs."""

    key_part: str
    sentence: str


_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def _diffir_config(tensors: StateDict) -> DiffIRConfig:
    embed = tensors["G.patch_embed.proj.weight"]
    dim, folded = embed.shape[:2]
    counts = tuple(count_modules(tensors, f"G.{level}.{{}}.norm1.body.weight") for level in _LEVELS)
    heads = tuple(tensors[f"G.{level}.0.attn.temperature"].shape[0] for level in _LEVELS)
    hidden = [tensors[f"G.{level}.0.ffn.project_out.weight"].shape[1] for level in _LEVELS]
    if "G.tail.1.weight" in tensors:
        task, scale = "sr", {3: 4, 12: 2, 48: 1}[folded]
    else:
        task, scale = {3: "deblur", 4: "inpainting"}[folded], 1
    encoder = "E" if "E.E.0.weight" in tensors else "condition"
    config = DiffIRConfig(
        task=task,  # type: ignore[arg-type]  # a literal from the table above
        scale=scale,
        dim=dim,
        num_blocks=counts,  # type: ignore[arg-type]  # four by construction
        num_refinement_blocks=count_modules(tensors, "G.refinement.{}.norm1.body.weight"),
        heads=heads,  # type: ignore[arg-type]
        ffn_expansion_factor=_expansion_factor(dim, hidden),
        bias="G.encoder_level1.0.attn.qkv.bias" in tensors,
        layer_norm=("WithBias" if "G.encoder_level1.0.norm1.body.bias" in tensors else "BiasFree"),
        n_encoder_res=count_modules(tensors, f"{encoder}.E.{{}}.body.0.weight", start=2),
    )
    if encoder == "E":
        return config
    n_denoise_res = count_modules(tensors, "denoise.resmlp.{}.resmlp.0.weight", start=2)
    config = replace(config, n_denoise_res=n_denoise_res)
    betas = tensors.get("diffusion.betas")
    if betas is None:
        return config
    return replace(
        config,
        timesteps=betas.numel(),
        linear_start=round(float(betas[0]), 6),
        linear_end=round(float(betas[-1]), 6),
    )


def _expansion_factor(dim: int, hidden: list[int]) -> float:
    """The factor with the fewest decimals for which int(width * factor) gives every hidden size."""
    widths = [dim << level for level in range(len(hidden))]
    low = max(Fraction(size, width) for size, width in zip(hidden, widths, strict=True))
    high = min(Fraction(size + 1, width) for size, width in zip(hidden, widths, strict=True))
    for decimals in range(7):
        factor: float = ceil(low * 10**decimals) / 10**decimals
        if factor < high and [int(width * factor) for width in widths] == hidden:
            return factor
    raise BIRError(
        "Expected feed-forward sizes in one proportion to the widths of a DiffIR, but "
        f"{hidden} came for widths {widths}; this file is of a network that is not known here."
    )


_DIFFIR_REQUIRED = (
    "G.patch_embed.proj.weight",
    *(
        f"G.{level}.0.{key}"
        for level in _LEVELS
        for key in ("norm1.body.weight", "attn.temperature", "ffn.project_out.weight")
    ),
)
ARCHITECTURES = (
    Architecture(
        name="diffir_s2",
        description="DiffIR stage 2",
        required=(*_DIFFIR_REQUIRED, "condition.E.0.weight", "denoise.resmlp.0.weight"),
        canonical=without_diffir_duplicates,
        config=_diffir_config,
        build=DiffIRStage2,
    ),
    Architecture(
        name="diffir_s1",
        description="DiffIR stage 1",
        required=(*_DIFFIR_REQUIRED, "E.E.0.weight"),
        canonical=dict,
        config=_diffir_config,
        build=DiffIRStage1,
    ),
)
FOREIGN_FILES = (
    ForeignFile(
        "model.diffusion_model.",
        "it looks like a full Stable Diffusion checkpoint, which belongs in Load Checkpoint",
    ),
    ForeignFile(
        "input_hint_block.", "it looks like a ControlNet, which belongs in Load ControlNet"
    ),
    ForeignFile("zero_convs.", "it looks like a ControlNet, which belongs in a ControlNet loader"),
    ForeignFile("rdb1.conv1", "it looks like an ESRGAN, which belongs in Load Upscale Model"),
    ForeignFile(
        "relative_position_bias_table",
        "it looks like a SwinIR or a similar network, which belongs in Load Upscale Model",
    ),
    ForeignFile("conv9.weight", "it looks like the discriminator of a GAN, which restores nothing"),
    ForeignFile("lora_", "it looks like a LoRA, which belongs in Load LoRA"),
)


def _detect(source: str | Path | Mapping[str, Any]) -> tuple[Architecture, StateDict]:
    content = read_checkpoint(source) if isinstance(source, str | Path) else source
    unwrapped = unwrap(content)
    for architecture in ARCHITECTURES:
        tensors = architecture.canonical(unwrapped)
        if all(key in tensors for key in architecture.required):
            return architecture, tensors
    name = source if isinstance(source, str | Path) else "the state dict"
    known = ", ".join(row.description for row in ARCHITECTURES)
    guess = next(
        (row.sentence for row in FOREIGN_FILES if any(row.key_part in key for key in unwrapped)),
        f"its first keys are {list(unwrapped)[:5]}" if unwrapped else "it holds no tensors",
    )
    raise BIRError(f"Expected one of {known} in {name}, but {guess}; choose another file.")


def _info(architecture: Architecture, tensors: StateDict) -> ModelInfo:
    try:
        config = architecture.config(tensors)
    except KeyError as error:
        raise BIRError(
            f"Expected a {architecture.description} file, but its layer {error} is of an unknown "
            "size or absent; the file is damaged or of another network."
        ) from error
    variant = next((name for name, known in OFFICIAL_CONFIGS.items() if known == config), None)
    return ModelInfo(
        architecture=architecture.name,
        variant=variant or "custom",
        task=config.task,
        scale=config.scale,
        config=config,
        parameters=sum(
            value.numel() for name, value in tensors.items() if name != "diffusion.betas"
        ),
        dtype=tensors["G.patch_embed.proj.weight"].dtype,
    )


def inspect(source: str | Path | Mapping[str, Any]) -> ModelInfo:
    """Say what a checkpoint is: a path, or the dictionary read from one, in any known wrapper.

    Raises:
        BIRError: unreadable (see `read_checkpoint`) or of no known architecture.
    """
    return _info(*_detect(source))


def load_model(
    source: str | Path | Mapping[str, Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    architecture: str | None = None,
    operations: Any = nn,
) -> nn.Module:
    """Build the network that a checkpoint holds, ready to run.

    Args:
        source: a path, or the dictionary read from one, in any known wrapper.
        device: where the weights go.
        dtype: what the weights become; None is float32, also from a file stored in half precision.
        architecture: refuse every other one (`diffir_s2`, ...).
        operations: the namespace of the layer classes, `torch.nn` or one that a host brings.

    Returns:
        The network in eval mode, without gradients; its attribute `info` is the `ModelInfo`.

    Raises:
        BIRError: as `inspect`, or another architecture than asked for, or NaN in the weights.
    """
    row, tensors = _detect(source)
    name = source if isinstance(source, str | Path) else "the state dict"
    if architecture is not None and row.name != architecture:
        wanted = next(other for other in ARCHITECTURES if other.name == architecture)
        reason = (
            ", which needs the high-quality picture as well and serves training only"
            if row.name == "diffir_s1"
            else ""
        )
        raise BIRError(
            f"Expected a {wanted.description} file, but {name} is a {row.description} file"
            f"{reason}; choose the {wanted.description} file of the same release."
        )
    info = _info(row, tensors)
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BIRError(
                f"Expected finite weights in {name}, but {key} holds NaN or infinity; "
                "the training that made it diverged or the file is damaged: choose another file."
            )
    with torch.device("meta"):
        model = row.build(info.config, operations=operations)
    own = model.state_dict()
    _require_same_shapes(own, tensors, f"{name} ({row.description})")
    weights = {
        key: tensors.get(key, value).to(device, dtype or torch.float32)
        for key, value in own.items()
    }
    model.load_state_dict(weights, strict=True, assign=True)
    model.eval().requires_grad_(False)
    model.info = info  # type: ignore[assignment]  # torch types attributes as tensors or modules
    return model


def _require_same_shapes(own: Mapping[str, Tensor], tensors: StateDict, what: str) -> None:
    """Every weight there with its shape, nothing left over. `diffusion.betas` may be absent: the
    configuration's schedule takes its place."""
    absent = [key for key in own if key not in tensors and key != "diffusion.betas"]
    surplus = [key for key in tensors if key not in own]
    differing = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in tensors and own[key].shape != tensors[key].shape
    ]
    for problem, keys in (("lacks", absent), ("has besides", surplus), ("has", differing)):
        if keys:
            raise BIRError(
                f"Expected the weights of one network in {what}, but it {problem} "
                f"{', '.join(keys[:3])}{' and more' if len(keys) > 3 else ''}; "
                "the file is damaged or of a changed network."
            )
