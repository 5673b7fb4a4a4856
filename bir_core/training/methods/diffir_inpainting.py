"""Training of DiffIR for inpainting: both stages against a discriminator, with the losses of LaMa
(Suvorov et al., WACV 2022), or without one, closest to the picture."""

from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor, nn

from ...diffir.rough_filling import fill_roughly
from ...networks.diffir import DiffIRStage1, DiffIRStage2
from ...networks.diffir_config import DiffIRConfig
from ...networks.discriminators import NLayerDiscriminator
from ..data import Batch
from ..losses import (
    feature_matching,
    known_l1,
    masked_discriminator,
    missing_l1,
    non_saturating_generator,
    prior_l1,
    r1_penalty,
)
from ..optimizers import OptimizerRecipe
from ..perceptual import ResNetLoss, read_dilated_resnet50, refuse_needless
from ..phases import Phase, Training, Update, parts_by_prefix
from ..start_files import StartFiles
from ..toml_tables import require
from .diffir import (
    PARTS,
    DiffIRRecipe,
    PriorEstimation,
    prior_from_noise,
    restore_stage2,
    starting_stage1,
    starting_stage2,
    transformer_blocks,
)


@dataclass(frozen=True, kw_only=True)
class InpaintingWeights:
    """Of the parts of the losses. A perceptual weight of 0 needs no encoder of ADE20k; with weights
    of 0 for both `adversarial` and `features` there is no discriminator.

    Attributes:
        known: of the difference outside the hole.
        missing: of the difference in the hole, over its pixels alone.
        adversarial: of the discriminator's view.
        features: of the difference between the discriminator's features.
        perceptual: of the difference between an encoder's features.
        penalty: of the discriminator's gradient; no other weight reaches its loss.
    """

    known: float
    missing: float = 0.0
    adversarial: float
    features: float
    perceptual: float
    penalty: float

    def __post_init__(self) -> None:
        require(min(astuple(self)) >= 0, "`weights` of 0 or more", self)

    @property
    def need_discriminator(self) -> bool:
        """Whether a discriminator's view counts."""
        return self.adversarial > 0 or self.features > 0


@dataclass(frozen=True, kw_only=True)
class InpaintingRecipe(DiffIRRecipe):
    """Of either stage of inpainting.

    Attributes:
        weights: of the losses.
        discriminator_optimizer: of the discriminator; None where there is none.
        discriminator_features: channels of its first layer.
    """

    weights: InpaintingWeights
    discriminator_optimizer: OptimizerRecipe | None = None
    discriminator_features: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.network.task == "inpainting", "a network of inpainting", self.network.task)
        require(
            (self.discriminator_optimizer is not None) == self.weights.need_discriminator,
            "a `discriminator_optimizer` where `weights` need a discriminator, and only there",
            self.discriminator_optimizer,
        )
        require(
            self.discriminator_features > 0,
            "`discriminator_features` of at least 1",
            self.discriminator_features,
        )


def network_input(config: DiffIRConfig, lq: Tensor) -> Tensor:
    """What a network sees of a picture with a hole and its mask (B, 4, H, W): the same, or with the
    hole filled roughly."""
    if not config.corrects:
        return lq
    hole = lq[:, 3:]
    return torch.cat([fill_roughly(lq[:, :3], hole), hole], dim=1)


class Stage1Restoration(nn.Module):
    """Restores with the prior of the pair."""

    def __init__(self, model: DiffIRStage1) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The prediction (B, 3, H, W), also outside the hole, and no further losses."""
        return self.model(network_input(self.model.config, batch.lq), batch.hq), {}


class Stage2Restoration(PriorEstimation):
    """Restores with the estimated prior, from a new draw of noise at each call."""

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The same, and the error of the prior."""
        batch = replace(batch, lq=network_input(self.model.config, batch.lq))
        z, z_stage1 = self.estimate(batch)
        return self.model.G(batch.lq, z), {"prior": prior_l1(z, z_stage1)}


class Stage2AloneRestoration(nn.Module):
    """Restores with the prior that a new draw of noise gives, without a stage 1."""

    def __init__(self, model: DiffIRStage2) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The prediction, and no further losses."""
        batch = replace(batch, lq=network_input(self.model.config, batch.lq))
        return self.model.G(batch.lq, prior_from_noise(self.model, batch)), {}


class GeneratorLoss(nn.Module):
    """The difference outside and in the hole, the discriminator's view, the discriminator's and an
    encoder's features, and what the restoration adds.

    Args:
        restoration: batch to the prediction and to further losses by name.
        discriminator, perceptual: None: no such part.
    """

    def __init__(
        self,
        restoration: nn.Module,
        discriminator: NLayerDiscriminator | None,
        perceptual: ResNetLoss | None,
        weights: InpaintingWeights,
    ) -> None:
        super().__init__()
        self.restoration = restoration
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.weights = weights

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the others are shown, unweighted."""
        restored, further = self.restoration(batch)
        hole = batch.lq[:, 3:]
        parts = {"known": known_l1(restored, batch.hq, hole)}
        if self.weights.missing:
            parts["missing"] = missing_l1(restored, batch.hq, hole)
        if self.discriminator is not None:
            _, wanted = self.discriminator(batch.hq)
            logits, features = self.discriminator(restored)
            parts["adversarial"] = non_saturating_generator(logits)
            parts["features"] = feature_matching(features, wanted)
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(restored, batch.hq)
        weighted = [getattr(self.weights, name) * part for name, part in parts.items()]
        total = torch.stack([*weighted, *further.values()]).sum()
        shown = {name: part.detach() for name, part in (parts | further).items()}
        return {"total": total, **shown}


class DiscriminatorLoss(nn.Module):
    """Non-saturating loss with a gradient penalty on real pictures; what the generator predicts
    outside the hole counts as real. The generator, which has just learned, predicts once more."""

    def __init__(
        self,
        restoration: nn.Module,
        discriminator: NLayerDiscriminator,
        weights: InpaintingWeights,
    ) -> None:
        super().__init__()
        self.restoration = restoration
        self.discriminator = discriminator
        self.weights = weights

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the penalty is shown, unweighted."""
        with torch.no_grad():
            restored, _ = self.restoration(batch)
        hq = batch.hq.detach().requires_grad_()
        real, _ = self.discriminator(hq)
        fake, _ = self.discriminator(restored)
        penalty = r1_penalty(real, hq)
        weighted = self.weights.penalty * penalty
        total = masked_discriminator(real, fake, batch.lq[:, 3:], weighted)
        return {"total": total, "penalty": penalty.detach()}


def inpainting_stage1_training(recipe: InpaintingRecipe, files: StartFiles) -> Training:
    """Stage 1 of inpainting.

    Args:
        files: `perceptual`, the encoder of ADE20k, unless its weight is 0; `start_from`, a stage 1
            of the same sizes, if it is not to be a new one. The discriminator is new.

    Raises:
        BIRError: a file is absent, of another network or sizes, or needless.
    """
    model = starting_stage1(recipe, files)
    return _training(recipe, files, model, Stage1Restoration(model))


def inpainting_stage2_training(recipe: InpaintingRecipe, files: StartFiles) -> Training:
    """Stage 2 of inpainting: G starts from stage 1's, the rest from new weights, or all of it from
    a stage 2; all of it learns from the first iteration on.

    Args:
        files: `stage1`, whose E stays frozen, or `start_from` or both; without `stage1` the prior
            has no loss of its own; `perceptual` as in stage 1.

    Raises:
        BIRError: a file is absent, of another network or sizes, or needless.
    """
    model, stage1 = starting_stage2(recipe, files)
    if stage1 is None:
        return _training(recipe, files, model, Stage2AloneRestoration(model))
    return _training(recipe, files, model, Stage2Restoration(model, stage1))


def _training(
    recipe: InpaintingRecipe,
    files: StartFiles,
    model: DiffIRStage1 | DiffIRStage2,
    restoration: nn.Module,
) -> Training:
    perceptual = None
    if recipe.weights.perceptual:
        perceptual = ResNetLoss(read_dilated_resnet50(files.perceptual))
    else:
        refuse_needless(files.perceptual)
    discriminator = None
    if recipe.weights.need_discriminator:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            discriminator = NLayerDiscriminator(recipe.discriminator_features)
    updates = [
        Update(
            "network",
            GeneratorLoss(restoration, discriminator, perceptual, recipe.weights),
            list(model.parameters()),
            recipe.optimizer,
        )
    ]
    if discriminator is not None and recipe.discriminator_optimizer is not None:
        updates.append(
            Update(
                "discriminator",
                DiscriminatorLoss(restoration, discriminator, recipe.weights),
                list(discriminator.parameters()),
                recipe.discriminator_optimizer,
            )
        )
    return Training(
        model=model,
        phases=(Phase(1, tuple(updates)),),
        restore=restore_hole,
        others={} if discriminator is None else {"discriminator": discriminator},
        blocks=transformer_blocks(model),
        parts=parts_by_prefix(model, PARTS),
    )


def restore_hole(network: nn.Module, lq: Tensor, hq: Tensor) -> Tensor:
    """The prediction in the hole, the picture around it; stage 1 also looks at hq."""
    assert isinstance(network, DiffIRStage1 | DiffIRStage2)
    seen = network_input(network.config, lq)
    if isinstance(network, DiffIRStage1):
        predicted = network(seen, hq)
    else:
        predicted = restore_stage2(network, seen, hq)
    hole = lq[:, 3:]
    return hole * predicted + (1 - hole) * lq[:, :3]
