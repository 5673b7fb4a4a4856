"""Training of DiffIR: stage 1, and stage 2 in its two phases (DiffIR section 3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...checkpoints import load_model
from ...degradations import MaskDegradation
from ...errors import BIRError
from ...networks.diffir import DiffIRStage1, DiffIRStage2, DIRformerBlock
from ...networks.diffir_config import DiffIRConfig
from ...networks.diffir_prior import LEAKY_SLOPE, draw_noise
from ..data import Batch
from ..degrading import presets_of
from ..losses import pixel_l1, prior_kl, prior_l1
from ..optimizers import OptimizerRecipe
from ..phases import Phase, Training, Update
from ..recipe import NetworkRecipe
from ..start_files import StartFiles
from ..toml_tables import require


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
        fitting = [
            isinstance(preset, MaskDegradation) == (self.network.task == "inpainting")
            for preset in kinds
        ]
        require(
            all(fitting) and bool(kinds or self.network.task != "inpainting"),
            "a `degradation` that cuts holes for inpainting, and for nothing else",
            self.data.degradation,
        )


@dataclass(frozen=True, kw_only=True)
class Stage1Recipe(DiffIRRecipe):
    """Of stage 1, which learns the prior of pairs."""


@dataclass(frozen=True, kw_only=True)
class Stage2Recipe(DiffIRRecipe):
    """Of stage 2, which learns to estimate the prior from the low-quality picture.

    Attributes:
        encoder_optimizer: of the first phase, in which only the condition and the denoiser learn,
            to estimate the prior of stage 1; None: no such phase.
        encoder_iterations: the first phase are the iterations below this number.
    """

    encoder_optimizer: OptimizerRecipe | None = None
    encoder_iterations: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.encoder_optimizer is None) == (self.encoder_iterations == 0),
            "`encoder_optimizer` and `encoder_iterations` both or neither",
            self.encoder_iterations,
        )


class Stage1Loss(nn.Module):
    """L1 between the picture and its restoration with the prior of the pair."""

    def __init__(self, model: DiffIRStage1) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        loss = pixel_l1(self.model(batch.lq, batch.hq), batch.hq)
        return {"total": loss}


class PriorEstimation(nn.Module):
    """What all losses of stage 2 begin with."""

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
    """Second phase: L1 of the restored picture plus the error of the prior; gradients reach all of
    the network, through all steps of the diffusion."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` = pixel + prior is what is optimised."""
        z, z_stage1 = self.estimate(batch)
        pixel = pixel_l1(self.model.G(batch.lq, z), batch.hq)
        prior = prior_l1(z, z_stage1)
        return {
            "total": pixel + prior,
            "pixel": pixel.detach(),
            "prior": prior.detach(),
            "prior_kl": prior_kl(z, z_stage1).detach(),
        }


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
    """Stage 1: DIRformer and CPEN together, L1. It starts from no file."""
    model = new_stage1(recipe)
    update = Update("network", Stage1Loss(model), list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update,)),),
        restore=lambda network, lq, hq: network(lq, hq),
        blocks=transformer_blocks(model),
    )


def new_stage1(recipe: DiffIRRecipe) -> DiffIRStage1:
    """With weights from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = DiffIRStage1(recipe.network)
        if recipe.initialisation == "he":
            draw_at_order_one(model)
    return model


def new_stage2(recipe: DiffIRRecipe, stage1: DiffIRStage1) -> DiffIRStage2:
    """G from stage 1; condition and denoiser from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = DiffIRStage2(recipe.network)
        if recipe.initialisation == "he":
            draw_at_order_one(model)
    model.G.load_state_dict(stage1.G.state_dict())
    return model


def transformer_blocks(model: DiffIRStage1 | DiffIRStage2) -> tuple[nn.Module, ...]:
    """The blocks of the DIRformer, which hold nearly all memory of a training."""
    return tuple(each for each in model.modules() if isinstance(each, DIRformerBlock))


def stage2_training(recipe: Stage2Recipe, files: StartFiles) -> Training:
    """Stage 2: G starts from stage 1's, condition and denoiser at random; stage 1's E is frozen.

    Args:
        recipe: of stage 2.
        files: `stage1`, a DiffIR stage 1 checkpoint of the same network sizes.

    Raises:
        BIRError: no such checkpoint, or one of other sizes.
    """
    assert files.stage1 is not None  # the table of methods names it as needed
    stage1 = read_stage1(files.stage1, recipe.network)
    model = new_stage2(recipe, stage1)
    phases: tuple[Phase, ...] = ()
    first = 1
    if recipe.encoder_optimizer is not None:
        parameters = [*model.condition.parameters(), *model.denoise.parameters()]
        loss = PriorLoss(model, stage1)
        phases = (Phase(1, (Update("encoder", loss, parameters, recipe.encoder_optimizer),)),)
        first = recipe.encoder_iterations
    joint = JointLoss(model, stage1)
    update = Update("network", joint, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(*phases, Phase(first, (update,))),
        restore=restore_stage2,
        blocks=transformer_blocks(model),
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
            f"{model.config}; train stage 1 with the matching recipe first."
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
            f"{model.config}; train stage 2 with the matching recipe first."
        )
    return model


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def restore_stage2(network: nn.Module, lq: Tensor, hq: Tensor) -> Tensor:
    """Restore from a fixed noise; hq is not looked at."""
    restored: Tensor = network(lq, draw_noise(lq.shape[0], 0))
    return restored
