"""Random numbers for samplers: drawn on the CPU, one generator per image, seeded seed + index.

So an image's noise depends neither on its batch nor on the device nor on what ran before.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import BIRError

# (sigma, sigma_next), each a scalar tensor -> standard normal noise of the latent's shape
NoiseSampler = Callable[[Tensor, Tensor], Tensor]

SEEDS = 2**64


def image_generators(seed: int, count: int) -> list[torch.Generator]:
    """Generators of images 0 .. count - 1 of a run, on the CPU."""
    return [torch.Generator("cpu").manual_seed((seed + index) % SEEDS) for index in range(count)]


def draw_normal(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise in the shape (B, ...), type and device of `like`; each of the B images
    from its own generator, in float32."""
    draws = [
        torch.randn(like.shape[1:], generator=generator, dtype=torch.float32)
        for generator in generators
    ]
    return torch.stack(draws).to(like)


def normal_noise(generators: Sequence[torch.Generator], like: Tensor) -> NoiseSampler:
    """Independent noise at each call. Every sampler here asks for each interval once, so this has
    the distribution of a Brownian path."""
    return lambda sigma, sigma_next: draw_normal(generators, like)


def brownian_noise(
    seeds: Sequence[int], like: Tensor, sigma_min: float, sigma_max: float
) -> NoiseSampler:
    """Increments of a Brownian path over the noise level, divided by the root of the interval: the
    same path whatever the steps. It is what the official code and ComfyUI draw from.

    Args:
        seeds: one for each image of the batch.
        like: a latent (B, C, h, w).
        sigma_min, sigma_max: the smallest positive and the largest level.

    Raises:
        BIRError: the package torchsde is not installed.
    """
    try:
        import torchsde
    except ImportError as error:
        raise BIRError(
            "Brownian noise should come from the package torchsde, which is not installed; "
            "install torchsde, or sample with independent noise."
        ) from error
    start, end = torch.tensor(sigma_min), torch.tensor(sigma_max)
    trees = [
        torchsde.BrownianTree(start, torch.zeros(like.shape[1:]), end, entropy=seed)
        for seed in seeds
    ]

    def increment(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        low, high = sorted((sigma.cpu(), sigma_next.cpu()))
        sign = 1 if sigma < sigma_next else -1
        path = torch.stack([tree(low, high) for tree in trees]) * sign
        return (path / (high - low).sqrt()).to(like)

    return increment
