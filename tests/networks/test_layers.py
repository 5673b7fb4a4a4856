"""What the layers of Stable Diffusion's networks promise beside the official numbers."""

import torch
from torch.nn import functional as F

from bir_core.networks.layers import GroupNorm


@torch.no_grad()
def test_group_norm_is_exact_for_every_memory_layout():
    """Large maps with the channels last, as a permuted picture has them, lose digits in torch."""
    x = torch.randn(1, 32, 512, 512, generator=torch.Generator().manual_seed(0)) + 3
    norm = GroupNorm(32, 1e-6)
    exact = F.group_norm(x.double(), 32, eps=1e-6)
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = norm(x.contiguous(memory_format=layout))
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)
