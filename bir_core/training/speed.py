"""Switches that make a training faster and leave its numbers as they are, but for rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

CPU_FLAGS = Path("/proc/cpuinfo")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round the factors of float32 products to 10 bits of mantissa (TF32), in
    matrix products and convolutions; the settings before come back afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def to_channels_last(network: nn.Module) -> None:
    """Lay the kernels of convolutions out channel by channel last, in place; what they compute
    comes in the same order."""
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def compile_in_place(network: nn.Module) -> None:
    """Have torch.compile make kernels for a network and for its parts, which some losses call
    alone, at their first call; the names of the weights stay."""
    for module in (network, *network.children()):
        module.compile()


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 rather than imitating it; True where nobody says."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return True
    if CPU_FLAGS.is_file():
        flags = set(CPU_FLAGS.read_text(encoding="utf-8", errors="replace").split())
        return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last on ARM
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return True if known is None else bool(known())
