"""Loss functions. All return a scalar tensor, in float32 whatever precision came in."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

KL_TEMPERATURE = 0.15
CHARBONNIER = 1e-3
LOG_FLOOR = 1e-6


def pixel_l1(restored: Tensor, hq: Tensor) -> Tensor:
    """Mean absolute difference of two images (B, 3, H, W)."""
    return F.l1_loss(restored.float(), hq.float())


def pixel_l2(restored: Tensor, hq: Tensor) -> Tensor:
    """Mean squared difference of two images (B, 3, H, W)."""
    return F.mse_loss(restored.float(), hq.float())


def charbonnier(restored: Tensor, hq: Tensor) -> Tensor:
    """mean sqrt((restored - hq)^2 + 0.001^2) of two images (B, 3, H, W) in [0, 1] (Charbonnier et
    al., ICIP 1994; the constant of LapSRN, Lai et al., CVPR 2017)."""
    squares = (restored.float() - hq.float()).square()
    return (squares + CHARBONNIER**2).sqrt().mean()


def log_squared_error(restored: Tensor, hq: Tensor) -> Tensor:
    """Mean over the batch of log10 of each picture's mean squared difference; (B, 3, H, W) in
    [0, 1]. Minus ten times of it is the mean PSNR in dB. A floor of LOG_FLOOR (60 dB) keeps the
    gradient of a perfect picture finite."""
    errors = (restored.float() - hq.float()).square().mean(dim=(1, 2, 3))
    return (errors + LOG_FLOOR).log10().mean()


def prior_l1(z: Tensor, z_stage1: Tensor) -> Tensor:
    """Mean absolute difference of the estimated IPR (B, 256) and stage 1's (DiffIR eq. 10)."""
    return F.l1_loss(z.float(), z_stage1.detach().float())


def prior_kl(z: Tensor, z_stage1: Tensor) -> Tensor:
    """KL(softmax(z_stage1 / 0.15) || softmax(z / 0.15)), mean over the batch; (B, 256) both. The
    official trainers show it beside the losses but do not optimise it."""
    log_estimate = F.log_softmax(z.float() / KL_TEMPERATURE, dim=1)
    target = F.softmax(z_stage1.detach().float() / KL_TEMPERATURE, dim=1)
    return F.kl_div(log_estimate, target, reduction="batchmean")


def vanilla_gan(logits: Tensor, *, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits, any shape, against all real or all fake
    (Goodfellow et al., NeurIPS 2014); for the generator, of its result against real."""
    target = torch.full_like(logits, float(real), dtype=torch.float32)
    return F.binary_cross_entropy_with_logits(logits.float(), target)


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """mean max(0, 1 - D(hq)) + mean max(0, 1 + D(restored)), logits of any shape (Lim and Ye,
    "Geometric GAN", 2017)."""
    return F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()


def hinge_generator(logits: Tensor) -> Tensor:
    """-mean D(restored), logits of any shape: the generator's part of the hinge loss."""
    return -logits.float().mean()


def non_saturating_generator(logits: Tensor) -> Tensor:
    """mean softplus(-D(restored)), logits of any shape."""
    return F.softplus(-logits.float()).mean()


def masked_discriminator(
    real_logits: Tensor, fake_logits: Tensor, hole: Tensor, penalty: Tensor
) -> Tensor:
    """Loss of a discriminator of patches to which what lies outside the hole counts as real, though
    the generator made it (LaMa, Suvorov et al., WACV 2022, eq. 4 to 6).

    mean[softplus(-D(hq)) + penalty + m softplus(D(restored)) + (1 - m) softplus(-D(restored))]

    Args:
        real_logits, fake_logits: (B, 1, h, w), of the picture and of the restored one.
        hole: (B, 1, H, W), 1 in the hole; taken to (h, w) by nearest neighbours.
        penalty: scalar, already weighted.
    """
    fake = fake_logits.float()
    hole = F.interpolate(hole.float(), fake.shape[-2:], mode="nearest")
    judged = hole * F.softplus(fake) + (1 - hole) * F.softplus(-fake)
    return (F.softplus(-real_logits.float()) + judged).mean() + penalty


def r1_penalty(logits: Tensor, image: Tensor) -> Tensor:
    """Squared norm of the gradient of the logits' sum, mean over the batch (Mescheder et al., ICML
    2018, eq. 9, without its factor gamma / 2).

    Args:
        logits: of `image`, whose graph is kept.
        image: (B, 3, H, W) that requires grad.
    """
    (gradient,) = torch.autograd.grad(logits.float().sum(), image, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def feature_matching(restored: Sequence[Tensor], hq: Sequence[Tensor]) -> Tensor:
    """Mean over the layers of the mean squared difference of a discriminator's features (Wang et
    al., "pix2pixHD", CVPR 2018, with squares as in LaMa)."""
    return torch.stack(_squared_errors(restored, hq)).mean()


def feature_sum(restored: Sequence[Tensor], hq: Sequence[Tensor]) -> Tensor:
    """The same summed over the layers (LaMa eq. 3)."""
    return torch.stack(_squared_errors(restored, hq)).sum()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2 sum(p t) / (sum(p) + sum(t)) over a whole batch, of one pixel more in every sum, p the
    sigmoid of the logits (Milletari et al., "V-Net", 3DV 2016, without squares).

    Args:
        logits, target: of any one shape; target in [0, 1].
    """
    found, wanted = torch.sigmoid(logits.float()), target.float()
    both, either = (found * wanted).sum(), found.sum() + wanted.sum()
    return 1 - (2 * both + 1) / (either + 1)


def _squared_errors(restored: Sequence[Tensor], hq: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(restored, hq, strict=True)
    return [F.mse_loss(ours.float(), target.detach().float()) for ours, target in pairs]


def known_l1(restored: Tensor, hq: Tensor, hole: Tensor) -> Tensor:
    """mean((1 - m) |restored - hq|) over all pixels; images (B, 3, H, W), hole (B, 1, H, W)."""
    return ((1 - hole.float()) * (restored.float() - hq.float()).abs()).mean()


def missing_l1(restored: Tensor, hq: Tensor, hole: Tensor) -> Tensor:
    """mean(m |restored - hq|) over the pixels of the hole; images (B, 3, H, W), hole (B, 1, H, W).
    0 where there is no hole."""
    difference = hole.float() * (restored.float() - hq.float()).abs()
    return difference.sum() / (restored.shape[1] * hole.float().sum()).clamp(min=1)
