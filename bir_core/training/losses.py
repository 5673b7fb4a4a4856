"""Loss functions. All return a scalar tensor, in float32 whatever precision came in."""

from torch import Tensor
from torch.nn import functional as F

KL_TEMPERATURE = 0.15


def pixel_l1(restored: Tensor, hq: Tensor) -> Tensor:
    """Mean absolute difference of two images (B, 3, H, W)."""
    return F.l1_loss(restored.float(), hq.float())


def prior_l1(z: Tensor, z_stage1: Tensor) -> Tensor:
    """Mean absolute difference of the estimated IPR (B, 256) and stage 1's (DiffIR eq. 10)."""
    return F.l1_loss(z.float(), z_stage1.detach().float())


def prior_kl(z: Tensor, z_stage1: Tensor) -> Tensor:
    """KL(softmax(z_stage1 / 0.15) || softmax(z / 0.15)), mean over the batch; (B, 256) both. The
    official trainers show it beside the losses but do not optimise it."""
    log_estimate = F.log_softmax(z.float() / KL_TEMPERATURE, dim=1)
    target = F.softmax(z_stage1.detach().float() / KL_TEMPERATURE, dim=1)
    return F.kl_div(log_estimate, target, reduction="batchmean")
