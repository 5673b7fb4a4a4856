"""Which version of DiffBIR networks are of, where nobody says it.

The published IRControlNets of v2 and v2.1 have the same keys and shapes, so that their weights do
not tell. What does: the header of a file that this package trained, the name of a published file,
and the base, which can be asked what it predicts.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.origin import Origin
from ..diffusion.denoisers import Parameterization
from ..diffusion.schedules import TRAINED_STEPS
from ..errors import BIRError, shown
from ..memory import dtype_of
from ..networks.text_encoder import CONTEXT_LENGTH
from ..networks.unet import UNetConfig
from .versions import VERSIONS, version_name_of_file

logger = logging.getLogger(__name__)

# (pure noise (1, C, h, w), timestep (1,)) -> what the base predicts there
Base = Callable[[Tensor, Tensor], Tensor]
# Cosine of output and noise: 1 for the noise itself.
LEAST_LIKENESS_EPS = 0.9
MOST_LIKENESS_V = 0.3
# Which part of the output's power may change with the noise, and how much of it does not count at
# all, where the data have the mean 0. Of random networks it is more than a half.
MOST_CHANGE_V = 0.25
NO_CHANGE = 1e-4
LATENT_SIDE = 32  # at least; in latents of fewer numbers chance looks like an answer


@dataclass(frozen=True)
class Answer:
    """What a base gives for noise alone at the last timestep.

    Attributes:
        likeness: cosine of output and noise.
        power: mean square of the output.
        change: mean square of what the noise changes of it.
    """

    likeness: float
    power: float
    change: float

    @property
    def share_of_change(self) -> float:
        """Which part of the output's power the noise changes."""
        return self.change / self.power if self.power else 0.0

    @property
    def predicts(self) -> Parameterization | None:
        """eps: the noise comes back. v of zero terminal SNR: minus the mean of the data, whatever
        the noise, for there is nothing else in it. None: neither, as of a network that is not
        trained."""
        if self.likeness >= LEAST_LIKENESS_EPS:
            return "eps"
        constant = self.change <= max(MOST_CHANGE_V * self.power, NO_CHANGE)
        return "v" if constant and abs(self.likeness) <= MOST_LIKENESS_V else None


@torch.no_grad()
def ask_base(base: Base, shape: tuple[int, int, int], device: torch.device) -> Answer:
    """Ask a base what it predicts, by two small latents of noise alone.

    Args:
        base: with its prompt bound.
        shape: (C, h, w) of a latent.
    """
    timestep = torch.tensor([TRAINED_STEPS - 1], device=device)
    generators = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    noises = [torch.randn(1, *shape, generator=one).to(device) for one in generators]
    noise = torch.cat(noises)
    output = torch.cat([base(one, timestep).float() for one in noises])
    return Answer(
        likeness=float(F.cosine_similarity(output.flatten(), noise.flatten(), dim=0)),
        power=float(output.square().mean()),
        change=float((output[0] - output[1]).square().mean() / 2),
    )


def ask_network(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    config: UNetConfig,
    device: torch.device,
    dtype: torch.dtype,
    context: Tensor | None = None,
) -> Answer:
    """`ask_base` of a network that still needs a prompt.

    Args:
        network: (noise, timestep, context), noise and context of this type -> what it predicts.
        context: (1, L, D) of a prompt; None for numbers as large as those of texts.
    """
    if context is None:
        generator = torch.Generator().manual_seed(2)
        context = torch.randn(1, CONTEXT_LENGTH, config.context_dim, generator=generator)
    prompt = context.to(device, dtype)
    side = -(-LATENT_SIDE // config.size_multiple) * config.size_multiple

    def base(noise: Tensor, timestep: Tensor) -> Tensor:
        return network(noise.to(dtype), timestep, prompt)

    return ask_base(base, (config.in_channels, side, side), device)


def ask_unet(sd_unet: nn.Module, device: torch.device, context: Tensor | None = None) -> Answer:
    """`ask_network` of one as `SDUNet`."""
    config: UNetConfig = getattr(sd_unet, "config", UNetConfig())
    return ask_network(sd_unet, config, device, dtype_of(sd_unet), context)


def versions_of_file(origin: Origin) -> tuple[str, ...]:
    """The versions that an IRControlNet may be of, by the header or the name of its file; the
    header counts first. All of them where neither says anything."""
    by_name = version_name_of_file(origin.name)
    named = tuple(VERSIONS) if by_name is None else (by_name,)
    if "parameterization" not in origin.recipe:
        return named
    trained = versions_predicting(origin.recipe["parameterization"])
    return tuple(name for name in named if name in trained) or trained


def possible_versions(origin: Origin, predicts: Parameterization | None) -> tuple[str, ...]:
    """Those of `versions_of_file` whose base predicts what this one answered; all of them where its
    answer is not clear. Empty if the two do not belong together."""
    by_file = versions_of_file(origin)
    by_base = tuple(VERSIONS) if predicts is None else versions_predicting(predicts)
    return tuple(name for name in by_file if name in by_base)


def version_of(origin: Origin, predicts: Parameterization | None) -> str:
    """The version of DiffBIR that an IRControlNet and a base are of.

    Args:
        origin: of the IRControlNet.
        predicts: what the base answered; None where that is not clear.

    Raises:
        BIRError: the two do not belong together, or do not say which version it is.
    """
    possible = possible_versions(origin, predicts)
    name = shown(origin.name) or "IRControlNet"
    if not possible:
        by_file, by_base = versions_of_file(origin), versions_predicting(predicts)
        wanted = " or ".join({VERSIONS[each].parameterization: "" for each in by_file})
        raise BIRError(
            f"Expected a base that predicts {wanted} for {name}, which is of DiffBIR "
            f"{' or '.join(by_file)}, but this one predicts {predicts}, as that of "
            f"{' or '.join(by_base)} does; choose files that belong together, or name the version "
            "if the file's name is wrong."
        )
    if len(possible) > 1:
        seen = "nor the base" if predicts is None else f"nor the base, which predicts {predicts},"
        raise BIRError(
            f"Expected files that say their version of DiffBIR, but neither {name} {seen} tells "
            f"{', '.join(possible[:-1])} from {possible[-1]}; name the version."
        )
    logger.info("DiffBIR %s, by %s and its base", possible[0], name)
    return possible[0]


def versions_predicting(parameterization: object) -> tuple[str, ...]:
    """The versions whose base predicts this; none for what is no name of a parameterization."""
    return tuple(name for name, row in VERSIONS.items() if row.parameterization == parameterization)
