"""The GAN stage of DiffIR: stage 2 goes on against a discriminator (the official RealSR and SRGAN
trainings)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...networks.diffir import DiffIRStage1, DiffIRStage2
from ...networks.discriminators import UNetDiscriminator
from ..data import Batch
from ..degrading import presets_of
from ..image_losses import RESTORED
from ..losses import pixel_l1, prior_kl, prior_l1, vanilla_gan
from ..optimizers import OptimizerRecipe
from ..perceptual import VGG19Loss, read_vgg19, refuse_needless
from ..phases import Phase, Training, Update, parts_by_prefix
from ..start_files import StartFiles
from ..toml_tables import require
from .diffir import (
    PARTS,
    DiffIRRecipe,
    PriorEstimation,
    read_stage1,
    read_stage2,
    restore_stage2,
    transformer_blocks,
)


@dataclass(frozen=True, kw_only=True)
class GANWeights:
    """Of the parts of the generator's loss; a perceptual weight of 0 needs no VGG19."""

    pixel: float
    prior: float
    perceptual: float
    gan: float

    def __post_init__(self) -> None:
        require(
            min(self.pixel, self.prior, self.perceptual, self.gan) >= 0,
            "`weights` of 0 or more",
            self,
        )


@dataclass(frozen=True, kw_only=True)
class GANRecipe(DiffIRRecipe):
    """Of the GAN stage. With a degradation that sharpens, the sharpened picture is degraded and is
    what the generator should come to, while the discriminator sees the picture before.

    Attributes:
        weights: of the generator's losses.
        discriminator_optimizer: of the discriminator.
        discriminator_features: its channels at full resolution.
    """

    weights: GANWeights
    discriminator_optimizer: OptimizerRecipe
    discriminator_features: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.discriminator_features > 0,
            "`discriminator_features` of at least 1",
            self.discriminator_features,
        )

    @property
    def keeps_unsharpened(self) -> bool:
        """Whether a batch's hq also has the picture before the degradation sharpened it."""
        sharpened = {preset.sharpens for _, preset in presets_of(self.data).values()}
        require(
            len(sharpened) < 2, "a mixture whose parts all sharpen hq, or none", self.data.mixture
        )
        return sharpened == {True}


class GeneratorLoss(PriorEstimation):
    """Losses of stage 2, a perceptual one, and the discriminator's view. Leaves the restored
    pictures for the discriminator's update, which does not restore again."""

    def __init__(
        self,
        model: DiffIRStage2,
        stage1: DiffIRStage1,
        discriminator: UNetDiscriminator,
        perceptual: VGG19Loss | None,
        weights: GANWeights,
    ) -> None:
        super().__init__(model, stage1)
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.weights = weights

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the others are shown, unweighted."""
        target = batch.hq[:, :3]
        z, z_stage1 = self.estimate(replace(batch, hq=target))
        restored = self.model.G(batch.lq, z)
        batch.shared[RESTORED] = restored.detach()
        parts = {
            "pixel": pixel_l1(restored, target),
            "prior": prior_l1(z, z_stage1),
            "gan": vanilla_gan(self.discriminator(restored), real=True),
        }
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(restored, target)
        total = torch.stack([getattr(self.weights, name) * part for name, part in parts.items()])
        shown = {name: part.detach() for name, part in parts.items()}
        kl = prior_kl(z, z_stage1).detach()
        return {"total": total.sum(), **shown, "prior_kl": kl}


class DiscriminatorLoss(nn.Module):
    """Cross-entropy of pictures as real and of the generator's results, from before its last step,
    as fake."""

    def __init__(self, discriminator: UNetDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` = real + fake is what is optimised."""
        # The last three channels are the picture, as it was before any sharpening.
        real = vanilla_gan(self.discriminator(batch.hq[:, -3:]), real=True)
        fake = vanilla_gan(self.discriminator(batch.shared[RESTORED]), real=False)
        return {"total": real + fake, "real": real.detach(), "fake": fake.detach()}


def gan_training(recipe: GANRecipe, files: StartFiles) -> Training:
    """The GAN stage. The discriminator starts from new weights.

    Args:
        files: `start_from`, a stage 2; `stage1`, the stage 1 that it learned from, whose E stays
            frozen; `perceptual`, the weights of VGG19 if their place is not torch.hub's.

    Raises:
        BIRError: a file is absent or of other sizes, or needless.
    """
    assert files.start_from is not None and files.stage1 is not None  # needed by the method
    perceptual = None
    if recipe.weights.perceptual:
        perceptual = VGG19Loss(read_vgg19(files.perceptual))
    else:
        refuse_needless(files.perceptual)
    stage1 = read_stage1(files.stage1, recipe.network)
    model = read_stage2(files.start_from, recipe.network)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        discriminator = UNetDiscriminator(recipe.discriminator_features)
    generator_loss = GeneratorLoss(model, stage1, discriminator, perceptual, recipe.weights)
    updates = (
        Update("network", generator_loss, list(model.parameters()), recipe.optimizer),
        Update(
            "discriminator",
            DiscriminatorLoss(discriminator),
            list(discriminator.parameters()),
            recipe.discriminator_optimizer,
        ),
    )
    return Training(
        model=model,
        phases=(Phase(1, updates),),
        restore=restore_stage2,
        others={"discriminator": discriminator},
        blocks=transformer_blocks(model),
        parts=parts_by_prefix(model, PARTS),
    )
