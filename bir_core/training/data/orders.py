"""Which example stands at which position of a training."""

import torch
from torch import Tensor

from .draws import ORDER, generator_for


class ShuffledPasses:
    """Passes over all examples, each in another random order.

    Examples that lie in parts (shards) may be shuffled in two steps, so that only a few parts are
    read at a time: first the parts; then, within each stretch of `window` examples of this
    sequence, the examples. All follows from the seed and the number of the pass.

    Args:
        sizes: examples in each part; they are numbered through, part after part.
        window: examples that are shuffled with each other; 0: all of them. Without effect if there
            is one part only, or no more examples than this.
        seed: of all draws.
    """

    def __init__(self, sizes: tuple[int, ...], window: int, seed: int) -> None:
        self.sizes = torch.tensor(sizes)
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.count = sum(sizes)
        self.window = window if len(sizes) > 1 and window < self.count else 0
        self.seed = seed
        self._drawn: dict[tuple[int, ...], Tensor] = {}

    def example_at(self, number: int, place: int) -> int:
        """The example at a place of pass `number`, both counted from 0."""
        if not self.window:
            return int(self._shuffled(self.count, number)[place])
        stretch, inside = divmod(place, self.window)
        start = stretch * self.window
        size = min(self.window, self.count - start)
        place = start + int(self._shuffled(size, number, stretch + 1)[inside])
        parts = self._shuffled(len(self.sizes), number)
        ends = self.sizes[parts].cumsum(0)
        turn = int(torch.searchsorted(ends, place, right=True))
        part = parts[turn]
        return int(self.starts[part] + place - (ends[turn] - self.sizes[part]))

    def _shuffled(self, count: int, *numbers: int) -> Tensor:
        if numbers not in self._drawn:
            if len(self._drawn) == 2:  # the parts of a pass, and one stretch of it
                self._drawn.clear()
            draws = generator_for(self.seed, ORDER, *numbers)
            self._drawn[numbers] = torch.randperm(count, generator=draws)
        return self._drawn[numbers]
