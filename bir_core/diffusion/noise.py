"""Random numbers for samplers: drawn on the CPU, one generator per image, seeded seed + index.

So an image's noise depends neither on its batch nor on the device nor on what ran before.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import BIRError
from ..memory import sent
from ..seeds import image_generator, image_seed
from ..tiling import Tile

# To which the Brownian tree rounds levels.
TREE_DIGITS = 6
# (sigma, sigma_next) -> standard normal noise of the latent's shape
NoiseSampler = Callable[[float, float], Tensor]
# (sigma, sigma_next), what noise is asked for
Interval = tuple[float, float]
# A latent (B, C, h, w) -> standard normal noise like it
NoiseSource = Callable[[Tensor], Tensor]


def image_generators(seed: int, count: int) -> list[torch.Generator]:
    """Generators of images 0 .. count - 1 of a run, on the CPU."""
    return [image_generator(seed, index) for index in range(count)]


def draw_normal(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise in the shape (B, ...), type and device of `like`; each of the B images
    from its own generator, in float32."""
    draws = [
        torch.randn(like.shape[1:], generator=generator, dtype=torch.float32)
        for generator in generators
    ]
    return sent(torch.stack(draws), like)


def normal_noise(generators: Sequence[torch.Generator], like: Tensor) -> NoiseSampler:
    """Independent noise at each call, for samplers outside of `DiffBIR`. It has the distribution of
    a Brownian path where each interval is asked for once: in all samplers but `sample_dpmpp_sde`,
    whose intervals overlap."""
    return lambda sigma, sigma_next: draw_normal(generators, like)


def require_brownian_noise() -> None:
    """Find out now, not after the work of other stages, whether `brownian_noise` can be drawn.

    Raises:
        BIRError: the package torchsde is not installed.
    """
    if importlib.util.find_spec("torchsde") is None:
        raise BIRError(
            "The noise of the SDE samplers should come from the package torchsde, which is not "
            "installed; install the extra, pip install comfyui-bir[brownian], or choose another "
            "sampler, such as euler_ancestral."
        )


def brownian_path(seeds: Sequence[int], shape: torch.Size, sigmas: Tensor) -> NoiseSampler:
    """`brownian_noise` in the host's memory, for latents of a shape (C, h, w)."""
    require_brownian_noise()
    import torchsde

    levels = sigmas[sigmas > 0].tolist()
    # The tree rounds its ends to these, and warns of levels that go beyond.
    lowest, highest = (round(end, TREE_DIGITS) for end in (min(levels), max(levels)))
    trees = [
        torchsde.BrownianTree(
            lowest,
            torch.zeros(shape),
            highest,
            entropy=image_seed(seed, 0),
            tol=10.0**-TREE_DIGITS,
        )
        for seed in seeds
    ]

    def increment(sigma: float, sigma_next: float) -> Tensor:
        low, high = sorted((sigma, sigma_next))
        sign = 1 if sigma < sigma_next else -1
        path = torch.stack([tree(max(low, lowest), min(high, highest)) for tree in trees])
        return path * (sign / math.sqrt(high - low))

    return increment


def brownian_noise(seeds: Sequence[int], like: Tensor, sigmas: Tensor) -> NoiseSampler:
    """Increments of a Brownian path over the noise level, divided by the root of the interval: the
    same path whatever the steps between its ends. It is what the official code and ComfyUI draw
    from, and on equal levels the numbers are theirs.

    Args:
        seeds: one for each image of the batch.
        like: a latent (B, C, h, w).
        sigmas: the levels of a sampling; the path reaches from the smallest positive one to the
            largest.

    Raises:
        BIRError: the package torchsde is not installed.
    """
    path = brownian_path(seeds, like.shape[1:], sigmas)
    return lambda sigma, sigma_next: sent(path(sigma, sigma_next), like)


@contextmanager
def drawn_ahead(noise: NoiseSampler, intervals: Sequence[Interval]) -> Iterator[NoiseSampler]:
    """The same noise, drawn while the step before runs: by a thread, one ahead, which ends with
    the context, whatever ends that.

    Args:
        noise: of the host; whatever it was asked before, an interval gets the same numbers.
        intervals: those that will be asked for, in their order.
    """
    coming = iter(intervals)
    ahead: dict[Interval, Future[Tensor]] = {}
    with ThreadPoolExecutor(1) as pool:

        def draw_next() -> None:
            interval = next(coming, None)
            if interval is not None:
                ahead[interval] = pool.submit(noise, *interval)

        def take(sigma: float, sigma_next: float) -> Tensor:
            asked = (sigma, sigma_next)
            drawn = ahead.pop(asked, None) or pool.submit(noise, *asked)
            numbers = drawn.result()
            draw_next()
            return numbers

        draw_next()
        yield take


class Draws:
    """The noise of a run: of each image from its own seed, or from a source. A run that is repeated
    draws the same again after `rewind`, wherever it ended the first time.

    Args:
        seeds: one for each image.
        source: of the noise, instead of the seeds.
        place: of a run on a piece of a picture: its place in the picture's latent, and height and
            width of that. The noise is then that of the whole picture there; a source is asked for
            the whole.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        source: NoiseSource | None = None,
        place: tuple[Tile, tuple[int, int]] | None = None,
    ) -> None:
        self.place = place
        self.seeds = seeds
        self.source = source
        self.drawn: list[Tensor] = []  # from the source, which cannot be asked again
        self.rewind()

    def rewind(self) -> None:
        self.generators = [image_generator(seed, 0) for seed in self.seeds]
        self.next = 0

    def __call__(self, like: Tensor) -> Tensor:
        return self._cut(self._draw(self._whole(like)))

    def _whole(self, like: Tensor) -> Tensor:
        """A tensor like that of the whole picture, whose numbers are not read."""
        return like if self.place is None else like.new_empty(*like.shape[:-2], *self.place[1])

    def _cut(self, noise: Tensor) -> Tensor:
        return noise if self.place is None else self.place[0].crop(noise)

    def _draw(self, like: Tensor) -> Tensor:
        if self.source is None:
            return draw_normal(self.generators, like)
        if self.next == len(self.drawn):
            self.drawn.append(self.source(like).cpu())
        self.next += 1
        return sent(self.drawn[self.next - 1], like)

    @contextmanager
    def of_sampler(
        self, like: Tensor, sigmas: Tensor, intervals: Sequence[Interval] | None
    ) -> Iterator[NoiseSampler]:
        """The noise of the steps through `sigmas`, on the device of `like`.

        Args:
            intervals: those of a Brownian path that the steps will ask for, in their order; None
                for noise that is drawn anew. A source is asked in any case.
        """
        if intervals is None or self.source is not None:
            yield lambda sigma, sigma_next: self(like)
            return
        path = brownian_path(self.seeds, self._whole(like).shape[1:], sigmas)
        with drawn_ahead(path, intervals) as ahead:
            yield lambda sigma, sigma_next: sent(self._cut(ahead(sigma, sigma_next)), like)
