"""Distance between two sets of features."""

import torch
from torch import Tensor

from ..errors import BIRError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between the Gaussians with the mean and covariance of two sets
    (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, eq. 6):
    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 sqrt(C_a C_b)).

    Args:
        a: (N, n), one row for each picture; b: (M, n).

    Raises:
        BIRError: fewer than two pictures in a set, which have no covariance.
    """
    if min(len(a), len(b)) < 2:
        raise BIRError(
            f"FID expects two sets of at least 2 pictures, but sets of {len(a)} and {len(b)} came; "
            "give folders with more pictures."
        )
    a, b = a.double(), b.double()
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    # sqrt(C_a) C_b sqrt(C_a) has the eigenvalues of C_a C_b and is symmetric.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ covariance_b @ root)
    traces = covariance_a.trace() + covariance_b.trace()
    distance = (a.mean(0) - b.mean(0)).square().sum() + traces
    return float(distance - 2 * product.clamp(min=0).sqrt().sum())
