"""Training of DiffIR: stage 1, and stage 2 in its two phases (DiffIR section 3.3)."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...checkpoints import load_model
from ...errors import BIRError
from ...networks.diffir import DiffIRStage1, DiffIRStage2, DIRformerBlock
from ...networks.diffir_config import DiffIRConfig
from ...networks.diffir_prior import IPR_LENGTH, LEAKY_SLOPE, draw_noise
from ..data import Batch
from ..degrading import presets_of
from ..image_losses import (
    ImageLosses,
    LossTable,
    discriminator_updates,
    learning_beside,
    optional_losses,
)
from ..losses import pixel_l1, prior_kl, prior_l1
from ..optimizers import OptimizerRecipe
from ..phases import Phase, Training, Update, parts_by_prefix
from ..recipe import NetworkRecipe
from ..start_files import StartFiles
from ..toml_tables import require

logger = logging.getLogger(__name__)
# CPEN, denoiser and the last layers of either stage, as `freeze` names them; `body` is the rest.
PARTS = {
    "encoder": ("E.", "condition."),
    "prior": ("denoise.",),
    "tail": ("G.tail.", "G.output."),
}


@dataclass(frozen=True, kw_only=True)
class DiffIRRecipe(NetworkRecipe):
    """What all trainings of DiffIR have.

    Attributes:
        network: sizes of the network.
        initialisation: `torch` leaves the framework's defaults, as the official code does; features
            shrink at each layer, and the prior and the modulation by it start some 30 times too
            small, which a million iterations outgrow. `he` keeps magnitudes, for short trainings.
    """

    network: DiffIRConfig
    initialisation: Literal["torch", "he"] = "torch"

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = [preset for _, preset in presets_of(self.data).values()]
        fitting = [preset.cuts_holes == (self.network.task == "inpainting") for preset in kinds]
        require(
            all(fitting) and bool(kinds or self.network.task != "inpainting"),
            "a `degradation` that cuts holes for inpainting, and for nothing else",
            self.data.degradation,
        )


@dataclass(frozen=True, kw_only=True)
class Stage1Recipe(DiffIRRecipe):
    """Of stage 1, which learns the prior of pairs.

    Attributes:
        losses: of the restored picture; None: L1.
    """

    losses: LossTable | None = None


@dataclass(frozen=True, kw_only=True)
class Stage2Recipe(DiffIRRecipe):
    """Of stage 2, which learns to estimate the prior from the low-quality picture.

    Attributes:
        encoder_optimizer: of the first phase, in which only the condition and the denoiser learn,
            to estimate the prior of stage 1; None: no such phase.
        encoder_iterations: the first phase are the iterations below this number.
        losses: of the restored picture in the second phase; None: L1.
        prior_weight: of the error of the prior beside them.
    """

    encoder_optimizer: OptimizerRecipe | None = None
    encoder_iterations: int = 0
    losses: LossTable | None = None
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.encoder_optimizer is None) == (self.encoder_iterations == 0),
            "`encoder_optimizer` and `encoder_iterations` both or neither",
            self.encoder_iterations,
        )
        require(self.prior_weight >= 0, "a `prior_weight` of 0 or more", self.prior_weight)


def compare(losses: ImageLosses | None, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The losses of a table, or L1, of a restored picture; `total` is their sum."""
    if losses is None:
        return {"total": pixel_l1(restored, batch.hq)}
    values: dict[str, Tensor] = losses(restored, batch)
    return values


class Stage1Loss(nn.Module):
    """L1, or the losses of a table, between the picture and its restoration with the prior of the
    pair."""

    def __init__(self, model: DiffIRStage1, losses: ImageLosses | None = None) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        return compare(self.losses, self.model(batch.lq, batch.hq), batch)


class PriorEstimation(nn.Module):
    """What all losses of stage 2 that learn from a stage 1 begin with."""

    def __init__(self, model: DiffIRStage2, stage1: DiffIRStage1) -> None:
        super().__init__()
        self.model = model
        self.stage1 = stage1

    def estimate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The estimated IPR and stage 1's, (B, 256) each, from one draw of noise."""
        with torch.no_grad():
            z_stage1 = self.stage1.encode(batch.lq, batch.hq)
        noise = torch.randn(z_stage1.shape, generator=batch.generator).to(z_stage1)
        z_noisy = self.model.diffusion.q_sample(z_stage1, noise)
        z = self.model.reverse(z_noisy, self.model.encode_condition(batch.lq))[-1]
        return z, z_stage1


class PriorLoss(PriorEstimation):
    """First phase of stage 2: the mean absolute error of the prior that the four reverse steps
    give, against that of stage 1."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the others are shown."""
        z, z_stage1 = self.estimate(batch)
        loss = prior_l1(z, z_stage1)
        return {"total": loss, "prior_kl": prior_kl(z, z_stage1).detach()}


class JointLoss(PriorEstimation):
    """Second phase: L1, or the losses of a table, of the restored picture plus the error of the
    prior; gradients reach all of the network, through all steps of the diffusion."""

    def __init__(
        self,
        model: DiffIRStage2,
        stage1: DiffIRStage1,
        losses: ImageLosses | None = None,
        prior_weight: float = 1.0,
    ) -> None:
        super().__init__(model, stage1)
        self.losses = losses
        self.prior_weight = prior_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` = pixel + prior_weight * prior is what is optimised; the parts of a table take
        the place of `pixel`."""
        z, z_stage1 = self.estimate(batch)
        parts = compare(self.losses, self.model.G(batch.lq, z), batch)
        pixel = parts.pop("total")
        prior = prior_l1(z, z_stage1)
        return {
            "total": pixel + self.prior_weight * prior,
            **(parts or {"pixel": pixel.detach()}),
            "prior": prior.detach(),
            "prior_kl": prior_kl(z, z_stage1).detach(),
        }


class Stage2AloneLoss(nn.Module):
    """Stage 2 by itself: L1, or the losses of a table, of the picture restored as it is in use,
    from noise alone."""

    def __init__(self, model: DiffIRStage2, losses: ImageLosses | None) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        z = prior_from_noise(self.model, batch)
        return compare(self.losses, self.model.G(batch.lq, z), batch)


def prior_from_noise(model: DiffIRStage2, batch: Batch) -> Tensor:
    """The estimated IPR (B, 256) from a draw of noise, as without a stage 1."""
    noise = torch.randn((len(batch.lq), IPR_LENGTH), generator=batch.generator)
    return model.prior(batch.lq, noise.to(batch.lq))


def draw_at_order_one(model: nn.Module) -> None:
    """Draw all layers so that features keep their magnitude, from torch's global generator.

    CPEN and denoiser: He et al.'s rule for their leaky ReLU; the rest: variance 1 / fan-in; biases
    0. The last convolution starts at 0, so that the network starts as its skip connection.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if name.startswith("G."):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        else:
            nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        if name in ("G.tail.1", "G.output"):
            nn.init.zeros_(module.weight)


def stage1_training(recipe: Stage1Recipe, files: StartFiles) -> Training:
    """Stage 1: DIRformer and CPEN together.

    Args:
        files: `start_from`, a stage 1 of the same sizes, if it is not to be a new one.

    Raises:
        BIRError: a file of another network or of other sizes; weights that a loss needs are absent.
    """
    model = starting_stage1(recipe, files)
    losses = optional_losses(recipe.losses, recipe.seed, files.perceptual)
    loss = Stage1Loss(model, losses)
    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update, *discriminator_updates(losses))),),
        restore=lambda network, lq, hq: network(lq, hq),
        others=learning_beside(losses),
        blocks=transformer_blocks(model),
        parts=parts_by_prefix(model, PARTS),
    )


def starting_stage1(recipe: DiffIRRecipe, files: StartFiles) -> DiffIRStage1:
    """From `files.start_from`, or with weights from the recipe's seed."""
    if files.start_from is not None:
        return read_stage1(files.start_from, recipe.network)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = DiffIRStage1(recipe.network)
        if recipe.initialisation == "he":
            draw_at_order_one(model)
    return model


def starting_stage2(
    recipe: DiffIRRecipe, files: StartFiles
) -> tuple[DiffIRStage2, DiffIRStage1 | None]:
    """Stage 2, and the stage 1 that it learns from if there is one.

    Args:
        files: `stage1` or `start_from` or both. Without the latter, G is that of stage 1, and
            condition and denoiser come from the recipe's seed.
    """
    stage1 = None if files.stage1 is None else read_stage1(files.stage1, recipe.network)
    if files.start_from is not None:
        return read_stage2(files.start_from, recipe.network), stage1
    assert stage1 is not None  # the table of methods names it as needed
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = DiffIRStage2(recipe.network)
        if recipe.initialisation == "he":
            draw_at_order_one(model)
    model.G.load_state_dict(stage1.G.state_dict())
    return model, stage1


def transformer_blocks(model: DiffIRStage1 | DiffIRStage2) -> tuple[nn.Module, ...]:
    """The blocks of the DIRformer, which hold nearly all memory of a training."""
    return tuple(each for each in model.modules() if isinstance(each, DIRformerBlock))


def stage2_training(recipe: Stage2Recipe, files: StartFiles) -> Training:
    """Stage 2: G starts from stage 1's, condition and denoiser at random; stage 1's E is frozen. Or
    all of it starts from a stage 2; without a stage 1 beside it, there is nothing for the prior to
    learn from, and only the restored picture counts.

    Args:
        recipe: of stage 2.
        files: `stage1` or `start_from` or both, of the same network sizes.

    Raises:
        BIRError: a file of another network or of other sizes; weights that a loss needs are absent.
    """
    model, stage1 = starting_stage2(recipe, files)
    losses = optional_losses(recipe.losses, recipe.seed, files.perceptual)
    loss: nn.Module
    phases: tuple[Phase, ...] = ()
    first = 1
    if stage1 is None:
        loss = Stage2AloneLoss(model, losses)
        if recipe.encoder_optimizer is not None:
            logger.warning(
                "the first %d iterations learn the prior of a stage 1 in this recipe; without "
                "--stage1 they learn what the others do",
                recipe.encoder_iterations - 1,
            )
    else:
        loss = JointLoss(model, stage1, losses, recipe.prior_weight)
        if recipe.encoder_optimizer is not None:
            parameters = [*model.condition.parameters(), *model.denoise.parameters()]
            prior = PriorLoss(model, stage1)
            phases = (Phase(1, (Update("encoder", prior, parameters, recipe.encoder_optimizer),)),)
            first = recipe.encoder_iterations
    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(*phases, Phase(first, (update, *discriminator_updates(losses)))),
        restore=restore_stage2,
        others=learning_beside(losses),
        blocks=transformer_blocks(model),
        parts=parts_by_prefix(model, PARTS),
    )


def read_stage1(path: Path, config: DiffIRConfig) -> DiffIRStage1:
    """A frozen stage 1 of these sizes. Raises BIRError for any other file."""
    model = load_model(path, architecture="diffir_s1")
    assert isinstance(model, DiffIRStage1)  # load_model refuses every other architecture
    with torch.device("meta"):
        wanted = DiffIRStage1(config)
    if _shapes(model) != _shapes(wanted):
        raise BIRError(
            f"Expected a stage 1 of the recipe's network ({config}) in {path}, but it holds "
            f"{model.config}; train stage 1 with the matching recipe first, or correct `network`."
        )
    return model


def read_stage2(path: Path, config: DiffIRConfig) -> DiffIRStage2:
    """A frozen stage 2 of these sizes. Raises BIRError for any other file."""
    model = load_model(path, architecture="diffir_s2")
    assert isinstance(model, DiffIRStage2)  # load_model refuses every other architecture
    with torch.device("meta"):
        wanted = DiffIRStage2(config)
    same = _shapes(model) == _shapes(wanted)
    if not same or not torch.allclose(model.diffusion.betas, wanted.diffusion.betas, atol=1e-5):
        raise BIRError(
            f"Expected a stage 2 of the recipe's network ({config}) in {path}, but it holds "
            f"{model.config}; train stage 2 with the matching recipe first, or correct `network`."
        )
    return model


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def restore_stage2(network: nn.Module, lq: Tensor, hq: Tensor) -> Tensor:
    """Restore from a fixed noise; hq is not looked at."""
    restored: Tensor = network(lq, draw_noise(lq.shape[0], 0))
    return restored
