"""Training of the estimator: what a degradation drew is what it is to find in the picture."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import load_model
from ...degradations import Degraded, EnlargedDegradation, FixedDegradation
from ...errors import BIRError
from ...networks.estimator import UNITS, Estimator, EstimatorConfig, PatchEstimates, draw_weights
from ..data import Batch
from ..degrading import presets_of
from ..phases import Phase, Training, Update, parts_by_prefix
from ..recipe import NetworkRecipe
from ..start_files import StartFiles
from ..toml_tables import require

# Below so many steps of 8 bit the kind of noise is not asked for.
VISIBLE_NOISE = 2.0
# What was drawn for each picture, in this order: numbers as in `UNITS`, then 0 or 1.
TARGETS = (*UNITS, "noise_grey", "jpeg")


@dataclass(frozen=True, kw_only=True)
class EstimateRecipe(NetworkRecipe):
    """Of the estimator. There is no validation: no picture is restored.

    Attributes:
        network: sizes of the network.
    """

    network: EstimatorConfig = EstimatorConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.validation.every == 0, "`validation.every` of 0", self.validation.every)
        kinds = [preset for _, preset in presets_of(self.data).values()]
        require(
            bool(kinds)
            and all(isinstance(kind, FixedDegradation | EnlargedDegradation) for kind in kinds),
            "a `degradation` of blur, noise and JPEG once each, as `enlarged` or `simple_x1`",
            self.data.degradation,
        )
        for kind in kinds:
            damage = kind.damage if isinstance(kind, EnlargedDegradation) else kind
            assert isinstance(damage, FixedDegradation)  # no other came through
            blur = damage.blur
            require(
                blur.sinc_probability == blur.motion_probability == 0,
                "a `degradation` whose blur has a sigma, without sinc and motion",
                self.data.degradation,
            )

    def target(self, degraded: Degraded) -> Tensor:
        """(B, 6, H, W): `drawn_targets`, the same at every pixel."""
        height, width = degraded.lq.shape[-2:]
        return drawn_targets(degraded)[..., None, None].expand(-1, -1, height, width)


def drawn_targets(degraded: Degraded) -> Tensor:
    """(B, 6) float32, in the order of `TARGETS`; 0 where nothing of the kind happened. The blur of
    an uneven kernel is the root of the mean square of both sigmas."""
    draws, batch = degraded.draws, len(degraded.lq)

    def numbers(name: str, default: float) -> Tensor:
        drawn = cast(Tensor, draws.get(name, torch.full((batch,), default)))
        return drawn.float()

    def happened(step: str, name: str) -> Tensor:
        return numbers(step, 1.0) if name in draws else torch.zeros(batch)

    kernels = cast(list[dict[str, float]], draws.get("kernels", [{}] * batch))
    blur = [
        math.hypot(kernel.get("sigma_x", 0.0), kernel.get("sigma_y", 0.0)) / math.sqrt(2)
        for kernel in kernels
    ]
    jpeg = happened("jpeg", "jpeg_quality")
    targets = (
        torch.tensor(blur) * happened("blur", "kernels"),
        numbers("noise_sigma", 0.0) * happened("noise", "noise_sigma"),
        numbers("jpeg_quality", 0.0).floor() * jpeg,
        numbers("enlargement", 1.0),
        numbers("noise_grey", 0.0),
        jpeg,
    )
    return torch.stack(targets, dim=1).to(degraded.lq)


class EstimateLoss(nn.Module):
    """Laplace's negative log likelihood of the numbers, in their units, and the binary
    cross-entropy of what may be so or not."""

    def __init__(self, model: Estimator) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the errors are shown in pixels, steps and so on."""
        return estimate_losses(self.model(batch.lq), batch.hq[..., 0, 0])


def estimate_losses(found: PatchEstimates, targets: Tensor) -> dict[str, Tensor]:
    """The losses of estimates of patches; targets (B, 6) as of `drawn_targets`. The quality counts
    where there is a JPEG, the kind of noise where noise is seen."""
    units = targets.new_tensor(list(UNITS.values()))
    wanted, chances = targets[:, : len(UNITS)], targets[:, len(UNITS) :]
    errors = (found.values - wanted).abs()
    counts = torch.ones_like(errors)
    counts[:, list(UNITS).index("jpeg_quality")] = chances[:, 1]
    numbers = (errors / found.spreads + (found.spreads / units).log()) * counts
    noise = wanted[:, list(UNITS).index("noise_sigma")]
    asked = torch.stack([(noise > VISIBLE_NOISE).float(), torch.ones_like(noise)], dim=1)
    chance = F.binary_cross_entropy_with_logits(found.logits, chances, asked)
    shown = (errors.detach() * counts).sum(0) / counts.sum(0).clamp(min=1)
    return {
        "total": numbers.sum(1).mean() + chance,
        "chances": chance.detach(),
        **{f"{name}_error": shown[place] for place, name in enumerate(UNITS)},
    }


def estimate_training(recipe: EstimateRecipe, files: StartFiles) -> Training:
    """An estimator from new weights, or from `files.start_from` of the same sizes.

    Raises:
        BIRError: a start that is no estimator, or of other sizes.
    """
    with torch.random.fork_rng():  # torch draws weights too, before they are drawn here
        model = Estimator(recipe.network)
    draw_weights(model, torch.Generator().manual_seed(recipe.seed))
    if files.start_from is not None:
        start = load_model(files.start_from, architecture="estimator")
        assert isinstance(start, Estimator)  # load_model refuses every other architecture
        ours, theirs = recipe.network, start.config
        if theirs != ours:
            raise BIRError(
                f"Expected a network of estimation with {ours.features} features and "
                f"{ours.hidden} hidden numbers, as the recipe says, in {files.start_from}, but it "
                f"has {theirs.features} and {theirs.hidden}; correct `network`, or choose another "
                "file."
            )
        model.load_state_dict(start.state_dict())
    update = Update("network", EstimateLoss(model), list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update,)),),
        restore=lambda network, lq, hq: lq,
        parts=parts_by_prefix(model, {"judge": ("judge.",)}),
    )
