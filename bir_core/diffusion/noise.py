"""Random numbers for samplers: drawn on the CPU, one generator per image, seeded seed + index.

So an image's noise depends neither on its batch nor on the device nor on what ran before.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import BIRError
from ..seeds import image_generator, image_seed
from ..tiling import Tile
from ..transfers import sent

# (sigma, sigma_next) -> standard normal noise of the latent's shape
NoiseSampler = Callable[[float, float], Tensor]
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
    require_brownian_noise()
    import torchsde

    levels = sigmas[sigmas > 0].cpu()
    trees = [
        torchsde.BrownianTree(
            levels.min(), torch.zeros(like.shape[1:]), levels.max(), entropy=image_seed(seed, 0)
        )
        for seed in seeds
    ]

    def increment(sigma: float, sigma_next: float) -> Tensor:
        low, high = sorted((sigma, sigma_next))
        sign = 1 if sigma < sigma_next else -1
        with warnings.catch_warnings():
            # The tree rounds its ends, warns that the levels go beyond them, and takes the ends.
            warnings.filterwarnings("ignore", "Should have t[ab]", UserWarning)
            path = torch.stack([tree(low, high) for tree in trees])
        return sent(path * (sign / math.sqrt(high - low)), like)

    return increment


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

    def of_sampler(self, like: Tensor, sigmas: Tensor, brownian: bool) -> NoiseSampler:
        """The noise of the steps through `sigmas`; a Brownian path only if no source was given."""
        if brownian and self.source is None:
            path = brownian_noise(self.seeds, self._whole(like), sigmas)
            return lambda sigma, sigma_next: self._cut(path(sigma, sigma_next))
        return lambda sigma, sigma_next: self(like)
