"""The IR prior representation (IPR, z) of DiffIR: from an image, and by the diffusion on it."""

from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn

from ..seeds import image_generator
from .diffir_config import DiffIRConfig

IPR_LENGTH = 256
LEAKY_SLOPE = 0.1


class ResidualBlock(nn.Module):
    """x + conv(LReLU(conv(x))), a piece of the CPEN."""

    def __init__(self, channels: int, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.body = nn.Sequential(
            operations.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE),
            operations.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class CPEN(nn.Module):
    """Compact IR prior extraction network: an image, folded to channels, to its IPR."""

    def __init__(
        self,
        in_channels: int,
        n_encoder_res: int,
        features: int = 64,
        *,
        operations: ModuleType = nn,
    ) -> None:
        super().__init__()
        widths = (features, 2 * features, 2 * features, IPR_LENGTH)
        layers: list[nn.Module] = [
            operations.Conv2d(in_channels, features, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE),
        ]
        layers += [ResidualBlock(features, operations=operations) for _ in range(n_encoder_res)]
        for narrow, wide in pairwise(widths):
            layers += [
                operations.Conv2d(narrow, wide, 3, padding=1),
                nn.LeakyReLU(LEAKY_SLOPE),
            ]
        self.E = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.mlp = nn.Sequential(
            operations.Linear(IPR_LENGTH, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
            operations.Linear(IPR_LENGTH, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
        )

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, in_channels, h, w), any size. Returns the IPR (B, 256)."""
        return self.mlp(self.E(features).flatten(1))


class ResMLP(nn.Module):
    """Linear and LReLU; despite its published name there is no residual sum."""

    def __init__(self, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.resmlp = nn.Sequential(
            operations.Linear(IPR_LENGTH, IPR_LENGTH), nn.LeakyReLU(LEAKY_SLOPE)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.resmlp(x)


class IPRDenoiser(nn.Module):
    """Estimates the clean IPR (x0 parametrisation) from a noisy one, its time and a condition."""

    def __init__(self, config: DiffIRConfig, *, operations: ModuleType = nn) -> None:
        super().__init__()
        self.max_period = config.timesteps * 10
        self.resmlp = nn.Sequential(
            operations.Linear(2 * IPR_LENGTH + 1, IPR_LENGTH),
            nn.LeakyReLU(LEAKY_SLOPE),
            *(ResMLP(operations=operations) for _ in range(config.n_denoise_res)),
        )

    def forward(self, z_t: Tensor, t: int, cond: Tensor) -> Tensor:
        """z_t, cond: (B, 256); t in 0..timesteps-1. Returns z_0's estimate (B, 256)."""
        time = torch.full_like(cond[:, :1], t / self.max_period)
        return self.resmlp(torch.cat([cond, time, z_t], dim=1))


class IPRDiffusion(nn.Module):
    """The schedule of the diffusion on the IPR. Betas are the square of a linear ramp of roots;
    the other tables follow from them and are not stored."""

    betas: Tensor

    def __init__(self, config: DiffIRConfig) -> None:
        super().__init__()
        roots = torch.linspace(
            config.linear_start**0.5,
            config.linear_end**0.5,
            config.timesteps,
            dtype=torch.float64,
            device="cpu",
        )
        betas = roots.square()
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        previous = torch.cat(
            [torch.ones(1, dtype=torch.float64, device="cpu"), alphas_cumprod[:-1]]
        )
        self.register_buffer("betas", betas.float())
        # Plain numbers: exact in any dtype of the network, and no device to follow.
        self.timesteps = config.timesteps
        self.alphas_cumprod = alphas_cumprod.tolist()
        self.posterior_mean_coef1 = (betas * previous.sqrt() / (1 - alphas_cumprod)).tolist()
        self.posterior_mean_coef2 = (
            (1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod)
        ).tolist()

    def q_sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """Z_T from the clean IPR: sqrt(abar_T) z + sqrt(1 - abar_T) noise, all (B, 256)."""
        abar: float = self.alphas_cumprod[-1]
        return abar**0.5 * z + (1 - abar) ** 0.5 * noise

    def posterior_mean(self, z_0: Tensor, z_t: Tensor, t: int) -> Tensor:
        """Mean of q(z_{t-1} | z_t, z_0), the whole reverse step: DiffIR adds no noise to it."""
        return self.posterior_mean_coef1[t] * z_0 + self.posterior_mean_coef2[t] * z_t


def draw_noise(batch: int, seed: int) -> Tensor:
    """Z_T (batch, 256), float32 on the CPU. Each image has a generator of its own, seeded
    `seed` + its index, so that its noise does not depend on the batch."""
    return torch.stack(
        [torch.randn(IPR_LENGTH, generator=image_generator(seed, index)) for index in range(batch)]
    )
