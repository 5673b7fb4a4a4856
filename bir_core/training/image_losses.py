"""The losses table of a recipe: what a restored picture is compared by."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.distances import read_lpips
from ..networks.discriminators import PatchDiscriminator
from ..networks.distances import LPIPS
from .data import Batch
from .losses import (
    charbonnier,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    log_squared_error,
    pixel_l1,
    pixel_l2,
)
from .optimizers import OptimizerRecipe
from .perceptual import VGG19Loss, read_vgg19, refuse_needless
from .phases import Update
from .toml_tables import require

PIXEL_LOSSES = {
    "l1": pixel_l1,
    "l2": pixel_l2,
    "charbonnier": charbonnier,
    "log_squared_error": log_squared_error,
}
# Between the network's update and the discriminator's.
RESTORED = "restored"


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A part of the loss.

    Attributes:
        weight: of this part in the sum.
        start: first iteration in which it counts.
    """

    weight: float = 0.0
    start: int = 1

    def __post_init__(self) -> None:
        require(self.weight >= 0, "a loss `weight` of 0 or more", self.weight)
        require(self.start >= 1, "a `start` iteration of 1 or more", self.start)


@dataclass(frozen=True, kw_only=True)
class LPIPSTerm(LossTerm):
    """LPIPS with the features of VGG16, whose weights `bir weights measures` fetches.

    Attributes:
        levels: how many of the five levels are compared, from the finest on. The deepest one costs
            little less than the others and says little of texture.
    """

    levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.levels <= 5, "1 to 5 `levels` of LPIPS", self.levels)


@dataclass(frozen=True, kw_only=True)
class GANTerm(LossTerm):
    """The hinge loss against a discriminator of patches, which learns from the first iteration on,
    so that it knows something at `start`.

    Attributes:
        feature_matching: weight of the difference of the discriminator's features, which counts
            from `start` on too.
        features: channels of the discriminator at full resolution.
        optimizer: of the discriminator.
    """

    feature_matching: float = 0.0
    features: int = 32
    optimizer: OptimizerRecipe = OptimizerRecipe(rate=4e-4, betas=(0.5, 0.99))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.feature_matching >= 0, "a `feature_matching` of 0 or more", self.feature_matching
        )
        require(self.features >= 1, "at least 1 of the discriminator's `features`", self.features)


@dataclass(frozen=True, kw_only=True)
class LossTable:
    """Losses of restored pictures, see `losses.py`; those of weight 0 are left out.

    Attributes:
        l1: mean absolute difference.
        l2: mean squared difference; the minimum is that of L_RM of DiffBIR, which sums.
        charbonnier: mean absolute difference, smooth at 0.
        log_squared_error: logarithm of each picture's mean squared difference. A pixel loss is paid
            by the noisy pictures and sacrifices what is already good; this one does not.
        lpips: distance of the features of VGG16, with LPIPS's weights.
        vgg19: distance of the features of VGG19 (Real-ESRGAN's), whose file is torchvision's.
        gan: the view of a discriminator that learns beside.
    """

    l1: LossTerm = LossTerm()
    l2: LossTerm = LossTerm()
    charbonnier: LossTerm = LossTerm()
    log_squared_error: LossTerm = LossTerm()
    lpips: LPIPSTerm = LPIPSTerm()
    vgg19: LossTerm = LossTerm()
    gan: GANTerm = field(default_factory=GANTerm)

    def __post_init__(self) -> None:
        terms = self.terms()
        require(
            any(term.start == 1 for name, term in terms.items() if name != "gan"),
            "`losses` of which at least one besides `gan` has a weight above 0 and counts from "
            "iteration 1 on",
            {name: term.weight for name, term in terms.items()},
        )

    def terms(self) -> dict[str, LossTerm]:
        """Those with a weight, by name."""
        terms = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: term for name, term in terms.items() if term.weight > 0}


class ImageLosses(nn.Module):
    """The weighted sum of a table's losses.

    Args:
        lpips, vgg19, discriminator: what these losses need; None where their weight is 0.
    """

    def __init__(
        self,
        table: LossTable,
        *,
        lpips: LPIPS | None = None,
        vgg19: VGG19Loss | None = None,
        discriminator: PatchDiscriminator | None = None,
    ) -> None:
        super().__init__()
        self.table = table
        self.lpips, self.vgg19, self.discriminator = lpips, vgg19, discriminator

    def forward(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the parts that count at the batch's iteration are shown,
        unweighted. Leaves the restored pictures for the discriminator's update.

        Args:
            restored: (B, 3, H, W), compared with the batch's hq.
        """
        table, hq = self.table, batch.hq
        counting = {
            name: term for name, term in table.terms().items() if batch.iteration >= term.start
        }
        parts: dict[str, tuple[float, Tensor]] = {
            name: (term.weight, PIXEL_LOSSES[name](restored, hq))
            for name, term in counting.items()
            if name in PIXEL_LOSSES
        }
        if self.lpips is not None and "lpips" in counting:
            parts["lpips"] = (table.lpips.weight, self.lpips(restored, hq).mean())
        if self.vgg19 is not None and "vgg19" in counting:
            parts["vgg19"] = (table.vgg19.weight, self.vgg19(restored, hq))
        if self.discriminator is not None:
            batch.shared[RESTORED] = restored.detach()
            if "gan" in counting:
                logits, features = self.discriminator(restored)
                parts["gan"] = (table.gan.weight, hinge_generator(logits))
                if table.gan.feature_matching:
                    with torch.no_grad():
                        _, wanted = self.discriminator(hq)
                    matching = feature_matching(features, wanted)
                    parts["feature_matching"] = (table.gan.feature_matching, matching)
        total = torch.stack([weight * part for weight, part in parts.values()]).sum()
        return {"total": total, **{name: part.detach() for name, (_, part) in parts.items()}}


class DiscriminatorLoss(nn.Module):
    """The hinge loss of pictures as real and of the restored ones, from before the network's last
    step, as fake."""

    def __init__(self, discriminator: PatchDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        real, _ = self.discriminator(batch.hq)
        fake, _ = self.discriminator(batch.shared[RESTORED])
        return {"total": hinge_discriminator(real, fake)}


def image_losses(table: LossTable, seed: int, perceptual: Path | None) -> ImageLosses:
    """The losses of a table, with the networks that they need.

    Args:
        seed: of the discriminator's weights.
        perceptual: the weights of VGG19 if their place is not torch.hub's.

    Raises:
        BIRError: weights are absent or of another network, or needless.
    """
    terms = table.terms()
    if "vgg19" not in terms:
        refuse_needless(perceptual)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        discriminator = PatchDiscriminator(table.gan.features) if "gan" in terms else None
    return ImageLosses(
        table,
        lpips=read_lpips("vgg", levels=table.lpips.levels) if "lpips" in terms else None,
        vgg19=VGG19Loss(read_vgg19(perceptual)) if "vgg19" in terms else None,
        discriminator=discriminator,
    )


def optional_losses(
    table: LossTable | None, seed: int, perceptual: Path | None
) -> ImageLosses | None:
    """`image_losses`, or None where a recipe has no table and its method a loss of its own."""
    if table is None:
        refuse_needless(perceptual)
        return None
    return image_losses(table, seed, perceptual)


def discriminator_updates(losses: ImageLosses | None) -> tuple[Update, ...]:
    """The discriminator's update, which follows the network's; none where there is no GAN."""
    if losses is None or losses.discriminator is None:
        return ()
    parameters = list(losses.discriminator.parameters())
    loss = DiscriminatorLoss(losses.discriminator)
    return (Update("discriminator", loss, parameters, losses.table.gan.optimizer),)


def learning_beside(losses: ImageLosses | None) -> dict[str, nn.Module]:
    """What of the losses learns, for `Training.others`."""
    if losses is None or losses.discriminator is None:
        return {}
    return {"discriminator": losses.discriminator}
