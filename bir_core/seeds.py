"""Seeds of the pictures of a run. They are counted modulo 2^64, as torch's generators take them, so
that every seed serves every picture of a batch."""

import torch

SEEDS = 2**64


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index` of a run: the one after that of the image before."""
    return (seed + index) % SEEDS


def image_generator(seed: int, index: int = 0) -> torch.Generator:
    """The generator of image `index` of a run, on the CPU: what it draws depends neither on the
    batch nor on the device nor on what ran before."""
    return torch.Generator().manual_seed(image_seed(seed, index))
