"""Seeds of the pictures of a run. They are counted modulo 2^64, as torch's generators take them, so
that every seed serves every picture of a batch."""

import torch

SEEDS = 2**64


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index` of a run: the one after that of the image before."""
    return (seed + index) % SEEDS


def image_seeds(seed: int, count: int, shared: bool = False) -> list[int]:
    """The seeds of images 0 .. count - 1 of a run.

    Args:
        shared: all have the first one, so that frames of a film get the same noise.
    """
    return [image_seed(seed, 0 if shared else index) for index in range(count)]


def image_generator(seed: int, index: int = 0) -> torch.Generator:
    """The generator of image `index` of a run, on the CPU: what it draws depends neither on the
    batch nor on the device nor on what ran before."""
    return torch.Generator().manual_seed(image_seed(seed, index))
