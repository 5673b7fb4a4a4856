"""A small picture through each kind of network, and the numbers that say whether it is sane.

A trial knows nothing of the weights' authors: it fails where numbers are not finite, and doubts
what trained weights do not do. The pictures are drawn by formula, so that reports can be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffbir.prompts import END_TOKEN, START_TOKEN
from ..diffbir.restoration_modules import RestorationModule
from ..diffbir.which_version import LATENT_SIDE, ask_unet
from ..diffir.restore import restore
from ..diffusion.schedules import TRAINED_STEPS
from ..errors import BIRError
from ..images import require_finite, resize
from ..latents import LATENT_SCALE
from ..memory import dtype_of
from ..metrics import psnr
from ..networks.autoencoder import SDVAE
from ..networks.damage import DamageFinder
from ..networks.diffir import DiffIRStage1, DiffIRStage2
from ..networks.estimator import UNITS, Estimator
from ..networks.ir_controlnet import IRControlNet
from ..networks.text_encoder import CONTEXT_LENGTH, TextEncoder
from ..networks.unet import SDUNet

Number = float | int | str
SIDE = 64  # pixels of a picture that is restored, or the least that the network takes
VAE_SIDE = 128
# A word of CLIP's vocabulary; which one does not matter.
WORD = 320
# PSNR in dB to what went in. Trained weights keep a clean picture at more than 20; random ones
# give some 5 to 10.
LEAST_PSNR = 15.0
BLUR, NOISE = 5, 0.04  # pixels of the original; standard deviation
# Share of a picture without damage that may be taken for it, and where scratches are drawn.
MOST_FALSE = 0.05
SCRATCH_ROWS = slice(20, 44)
LEAST_DEVIATION = 0.01  # of a picture that is not one flat colour


@dataclass(frozen=True)
class Findings:
    """What a trial found.

    Attributes:
        numbers: by name; dB where the name ends in `_db`, else in the unit of what went in.
        doubts: sentences on what trained weights would not do.
    """

    numbers: Mapping[str, Number]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A row of the table.

    Attributes:
        run: (network, device) -> findings; raises BIRError for numbers that are not finite.
        float32_only: this network runs in float32 whatever was asked for, as in DiffBIR.
    """

    run: Callable[[Any, torch.device], Findings]
    float32_only: bool = field(default=False, kw_only=True)


def sample_picture(height: int, width: int) -> Tensor:
    """A picture (1, 3, height, width) in [0, 1]: shades, a disc with a sharp edge, and stripes
    that become finer to the right."""
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)[None]
    disc = torch.sigmoid((0.28 - torch.hypot(x - 0.4, y - 0.45)) * 150)
    stripes = torch.cos(2 * torch.pi * 8 * x**2 + 2 * y)
    shades = (0.3 + 0.4 * x + 0.1 * y, 0.65 - 0.35 * y + 0.1 * x, 0.25 + 0.25 * (x + y))
    colours = (0.85, 0.45, 0.2)
    planes = [
        (1 - disc) * (shade + 0.08 * stripes) + disc * (colour - 0.06 * stripes)
        for shade, colour in zip(shades, colours, strict=True)
    ]
    return torch.stack(planes)[None].clamp(0, 1)


def damaged_pair(height: int, width: int, scale: int) -> tuple[Tensor, Tensor]:
    """A picture (1, 3, height, width) that was blurred to one side, reduced by `scale` and got
    noise, and its original (1, 3, height scale, width scale), both in [0, 1]."""
    original = sample_picture(height * scale, width * scale)
    blurred = F.avg_pool2d(F.pad(original, (BLUR // 2,) * 2 + (0, 0), "replicate"), (1, BLUR), 1)
    reduced = resize(blurred, height, width) if scale > 1 else blurred
    return (reduced + NOISE * _drawn(3, *reduced.shape)).clamp(0, 1), original


def compared(result: Tensor, reference: Tensor, what: str) -> Findings:
    """Numbers of a picture beside the one that it should be close to.

    Args:
        result: (1, 3, H, W), nominally in [0, 1].
        reference: the same shape, in [0, 1].
        what: the reference is, at the end of "psnr_to_".

    Raises:
        BIRError: numbers that are not finite, or another size.
    """
    result, reference = result.detach().float().cpu(), reference.float().cpu()
    require_finite(result, "The result")
    if result.shape != reference.shape:
        raise BIRError(
            f"The result should have the shape {tuple(reference.shape)}, but "
            f"{tuple(result.shape)} came; the file is of a changed network."
        )
    decibels = float(psnr(result.clamp(0, 1), reference))
    deviation = float(result.std())
    doubts = []
    if decibels < LEAST_PSNR:
        doubts.append(
            f"The result is far from the {what.replace('_', ' ')} ({decibels:.1f} dB), as of "
            "weights that are not trained, or that belong to another network."
        )
    if deviation < LEAST_DEVIATION:
        doubts.append("The result is nearly one flat colour.")
    numbers: dict[str, Number] = {
        "width": result.shape[-1],
        "height": result.shape[-2],
        "least": float(result.min()),
        "largest": float(result.max()),
        "deviation": deviation,
        f"mean_difference_to_{what}": float((result - reference).mean()),
        f"psnr_to_{what}_db": decibels,
    }
    return Findings(numbers, tuple(doubts))


def _side(multiple: int, least: int = SIDE) -> int:
    """The least multiple that is at least `least`."""
    return -(-least // multiple) * multiple


def _restored(result: Tensor, lq: Tensor, original: Tensor) -> Findings:
    """Numbers of a restored picture beside its input enlarged, and what was gained towards the
    original: a perceptual network may lose a little, and a random one loses much."""
    enlarged = resize(lq, *original.shape[-2:]).clamp(0, 1)
    findings = compared(result, enlarged, "enlarged_input")
    before = float(psnr(enlarged, original))
    after = float(psnr(result.detach().float().cpu().clamp(0, 1), original))
    gain: dict[str, Number] = {"psnr_to_original_db": after, "gained_db": after - before}
    return Findings({**findings.numbers, **gain}, findings.doubts)


def try_module(module: RestorationModule, device: torch.device, side: int = SIDE) -> Findings:
    """A network that restores pictures."""
    dtype = torch.float32 if module.network is None else dtype_of(module.network)
    lq, original = damaged_pair(side, side, module.scale)
    result = module.restore(lq.to(device, dtype))
    return _restored(result, lq, original)


def _try_restorer(network: nn.Module, device: torch.device) -> Findings:
    config = cast(Any, network.config)
    module = RestorationModule(network, config.scale, "", network)
    return try_module(module, device, _side(config.size_multiple))


def _try_diffir(network: DiffIRStage2, device: torch.device) -> Findings:
    # Sides that do not divide, as those of most pictures.
    height, width = SIDE, SIDE + 5
    if network.config.task == "inpainting":
        image = sample_picture(height, width).to(device)
        hole = torch.zeros(1, 1, height, width, device=device)
        hole[..., height // 3 : height // 2, width // 3 : width // 2] = 1
        return compared(restore(image, network, mask=hole), image, "picture_without_hole")
    lq, original = damaged_pair(height, width, network.config.scale)
    return _restored(restore(lq.to(device), network), lq, original)


def _try_diffir_stage1(network: DiffIRStage1, device: torch.device) -> Findings:
    config, dtype = network.config, dtype_of(network)
    side = _side(config.size_multiple)
    hq = sample_picture(side * config.scale, side * config.scale).to(device, dtype)
    lq = resize(hq.float(), side, side).clamp(0, 1).to(dtype)
    if config.task == "inpainting":
        lq = torch.cat([lq, torch.zeros_like(lq[:, :1])], dim=1)  # no hole
    return compared(network(lq, hq), hq, "original")


def _try_damage_finder(network: DamageFinder, device: torch.device) -> Findings:
    side = _side(network.config.size_multiple)
    picture = sample_picture(side, side)
    scratched = picture.clone()
    scratched[..., SCRATCH_ROWS, side // 3 : side // 3 + 2] = 1
    scratched[..., SCRATCH_ROWS, side // 2] = 0
    logits = [network(each.to(device, dtype_of(network))) for each in (picture, scratched)]
    for each in logits:
        require_finite(each, "The logits")
    clean, damaged = (each.sigmoid().float().cpu() for each in logits)
    scratch = (scratched != picture).any(1, keepdim=True)
    numbers: dict[str, Number] = {
        "share_taken_for_damage": float((clean > 0.5).float().mean()),
        "probability_in_a_scratch": float(damaged[scratch].mean()),
        "probability_elsewhere": float(damaged[~scratch].mean()),
    }
    doubts = []
    if float(numbers["share_taken_for_damage"]) > MOST_FALSE:
        doubts.append("Much of a picture without damage is taken for damage.")
    if float(numbers["probability_in_a_scratch"]) < 2 * float(numbers["probability_elsewhere"]):
        doubts.append("A scratch is hardly more likely damage than what is around it.")
    return Findings(numbers, tuple(doubts))


def _try_vae(network: SDVAE, device: torch.device) -> Findings:
    side = _side(network.config.size_multiple, VAE_SIDE)
    image = sample_picture(side, side).to(device, dtype_of(network))
    latent = network.encode(2 * image - 1)
    require_finite(latent, "The latent")
    findings = compared((network.decode(latent) + 1) / 2, image, "picture_before_encoding")
    latent_deviation = float((LATENT_SCALE * latent).std())
    numbers = {"scaled_latent_deviation": latent_deviation, **findings.numbers}
    return Findings(numbers, findings.doubts)


def _try_estimator(network: Estimator, device: torch.device) -> Findings:
    clean = sample_picture(SIDE, SIDE)
    noisy = (clean + NOISE * _drawn(3, *clean.shape)).clamp(0, 1)
    found = network(torch.cat([clean, noisy]).to(device, dtype_of(network)))
    require_finite(found.values, "An estimate")
    without, with_noise = found.values[:, list(UNITS).index("noise_sigma")].tolist()
    doubts: tuple[str, ...] = ()
    if with_noise <= without:
        doubts = (f"It finds no more noise where noise was added ({with_noise:.1f} steps).",)
    numbers: dict[str, Number] = {
        "noise_of_clean_picture_steps": without,
        "noise_of_noisy_picture_steps": with_noise,
    }
    return Findings(numbers, doubts)


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _noise_and_context(network: IRControlNet, device: torch.device) -> list[Tensor]:
    """Pure noise, its timestep, and a context as large as the normalised ones of texts."""
    config, dtype = network.config, dtype_of(network)
    side = _side(config.size_multiple, LATENT_SIDE)
    noise = _drawn(0, 1, config.in_channels, side, side).to(device, dtype)
    timesteps = torch.tensor([TRAINED_STEPS - 1], device=device)
    return [noise, timesteps, _drawn(1, 1, CONTEXT_LENGTH, config.context_dim).to(device, dtype)]


def _rms(value: Tensor) -> float:
    return float(value.float().square().mean().sqrt())


def _try_unet(network: SDUNet, device: torch.device) -> Findings:
    answer = ask_unet(network, device)
    require_finite(torch.tensor(answer.power), "The output of the UNet")
    doubts = (
        "Noise alone should come back from a base that predicts it, and change little in what one "
        f"gives that predicts v; but the two correlate by {answer.likeness:.2f}, and the noise "
        f"changes {answer.share_of_change:.0%} of the output's power.",
    )
    numbers: dict[str, Number] = {
        "output_rms": answer.power**0.5,
        "noise_correlation": answer.likeness,
        "share_that_noise_changes": answer.share_of_change,
        "predicts": answer.predicts or "unclear",
    }
    return Findings(numbers, () if answer.predicts else doubts)


def _try_controlnet(network: IRControlNet, device: torch.device) -> Findings:
    noise, timesteps, context = _noise_and_context(network, device)
    hint = _drawn(2, *noise.shape).to(noise)
    residuals = network(noise, hint, timesteps, context)
    for index, residual in enumerate(residuals):
        require_finite(residual, f"Residual {index} of IRControlNet")
    other = network(noise, torch.zeros_like(hint), timesteps, context)
    differences = [one - two for one, two in zip(residuals, other, strict=True)]
    strengths = [_rms(residual) for residual in residuals]
    doubts = []
    if max(strengths) == 0:
        doubts.append("All residuals are 0, as of a network before its training.")
    elif max(_rms(difference) for difference in differences) == 0:
        doubts.append("The residuals do not depend on the condition.")
    numbers: dict[str, Number] = {
        "residuals": len(residuals),
        "least_rms": min(strengths),
        "largest_rms": max(strengths),
        "largest_rms_of_the_condition": max(_rms(difference) for difference in differences),
    }
    return Findings(numbers, tuple(doubts))


def _try_text_encoder(network: TextEncoder, device: torch.device) -> Findings:
    config = network.config
    tokens = torch.zeros(2, config.length, dtype=torch.int64)
    last = config.vocabulary - 1
    ends = (min(START_TOKEN, last), min(END_TOKEN, last))
    tokens[0, :2] = torch.tensor(ends)
    tokens[1, :3] = torch.tensor((ends[0], min(WORD, last), ends[1]))
    empty, worded = network(tokens.to(device))
    require_finite(empty, "The embedding of the empty text")
    require_finite(worded, "The embedding of a word")
    difference = _rms(empty - worded)
    doubts = () if difference > 0 else ("A text of one word gives what the empty text gives.",)
    numbers = {"embedding_rms": _rms(empty), "difference_of_a_word_rms": difference}
    return Findings(numbers, doubts)


# By `Architecture.name`; the last row is for networks that spandrel builds.
SPANDREL = "spandrel"
TRIALS = {
    "diffir_s2": Trial(_try_diffir),
    "diffir_s1": Trial(_try_diffir_stage1),
    "ir_controlnet": Trial(_try_controlnet),
    "sd_unet": Trial(_try_unet),
    "swinir": Trial(_try_restorer),
    "compact": Trial(_try_restorer),
    "damage_finder": Trial(_try_damage_finder),
    "estimator": Trial(_try_estimator),
    "sd_vae": Trial(_try_vae, float32_only=True),
    "text_encoder": Trial(_try_text_encoder, float32_only=True),
    SPANDREL: Trial(try_module, float32_only=True),
}
