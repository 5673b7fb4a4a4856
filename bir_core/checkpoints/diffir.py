"""How to recognise a DiffIR checkpoint and read the sizes of its network from tensor shapes."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

from ..errors import BIRError
from ..networks.diffir_config import DiffIRConfig
from .keys import StateDict, count_modules

MOST_TIMESTEPS = 1000
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
# The derived tables of the schedule, which follow from `diffusion.betas`.
_TABLES = tuple(
    f"diffusion.{name}"
    for name in (
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    )
)
# The official stage 2 saves two of its modules twice.
_ALIASES = {"diffusion.model.": "denoise.", "diffusion.condition.": "condition."}


def stage2_tensors(tensors: StateDict) -> StateDict:
    """The weights of a stage 2 without the derived tables and the second copies of official files;
    a copy whose original is absent (a file that lost one of the two) takes its place."""
    kept = {name: value for name, value in tensors.items() if name not in _TABLES}
    originals = {name: _original(name) for name in kept}
    copies = {originals[name]: value for name, value in kept.items()}
    return copies | {name: value for name, value in kept.items() if originals[name] == name}


def _original(name: str) -> str:
    for alias, original in _ALIASES.items():
        if name.startswith(alias):
            return original + name.removeprefix(alias)
    return name


def diffir_config(tensors: StateDict) -> DiffIRConfig:
    """The configuration of either stage. Raises KeyError or BIRError for a damaged file."""
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
        encoder_features=tensors[f"{encoder}.E.0.weight"].shape[0],
    )
    if encoder == "E":
        return config
    n_denoise_res = count_modules(tensors, "denoise.resmlp.{}.resmlp.0.weight", start=2)
    config = replace(config, n_denoise_res=n_denoise_res)
    betas = tensors.get("diffusion.betas")
    if betas is None:
        return config
    if betas.ndim != 1 or betas.numel() > MOST_TIMESTEPS:
        raise BIRError(
            f"Expected up to {MOST_TIMESTEPS} betas of a DiffIR's schedule in diffusion.betas, but "
            f"the shape {tuple(betas.shape)} came; the file is damaged or of another network."
        )
    if not all(0 < float(beta) < 1 for beta in (betas[0], betas[-1])):
        raise BIRError(
            "Expected the schedule of a DiffIR in diffusion.betas, from 0 to 1, but "
            f"{float(betas[0]):g} and {float(betas[-1]):g} came; the file is damaged."
        )
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


DIFFIR_REQUIRED = (
    "G.patch_embed.proj.weight",
    *(
        f"G.{level}.0.{key}"
        for level in _LEVELS
        for key in ("norm1.body.weight", "attn.temperature", "ffn.project_out.weight")
    ),
)
