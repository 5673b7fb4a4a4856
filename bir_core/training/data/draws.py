"""Random numbers that belong to a place in the training, not to what ran before."""

import numpy as np
import torch

# Streams of random numbers that must not depend on each other.
ORDER, CUT, DEGRADATION, NOISE, POOL, VALIDATION, CAPTION = range(7)


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator that belongs to these non-negative numbers, independent of all others."""
    words = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def draw_integer(end: int, generator: torch.Generator) -> int:
    """Uniform in 0 .. end - 1."""
    return int(torch.randint(end, (), generator=generator))
