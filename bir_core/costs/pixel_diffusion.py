"""What a diffusion on pixels takes, to see beside it what one on priors or latents saves.

The kind is RePaint's (Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic
Models", CVPR 2022), which DiffIR's paper compares with: the unconditional network of Dhariwal and
Nichol ("Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021; ADM) on 256 x 256 pixels.
"""

SIDE = 256  # pixels
# RePaint, section 5: T = 250, and every 10 steps 10 times the way of 10 steps.
STEPS, JUMP, RESAMPLINGS = 250, 10, 10
# Of ADM on 256 x 256 pixels, its appendix: width, multiples of it at each level, blocks of a level,
# sides of the maps with attention, and the output, noise and variance.
WIDTH, MULTIPLES, BLOCKS, ATTENTION, OUTPUT = 256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), 6


def network_calls(steps: int = STEPS, jump: int = JUMP, resamplings: int = RESAMPLINGS) -> int:
    """How often RePaint calls its network for a picture: once a step towards less noise.

    From each multiple of `jump` from 0 on that lies more than one jump below the start it goes
    back up by `jump` steps, which only add noise, and down again, `resamplings` - 1 times:
    steps + (resamplings - 1) * jump * (steps / jump - 1).
    """
    places = len(range(0, steps - jump, jump))
    return steps + (resamplings - 1) * jump * places


def adm_multiply_adds(side: int = SIDE) -> int:
    """Multiply-adds of one call of ADM's network, from its published sizes: convolutions, the
    projections of attention and attention itself, without the embedding of the time. At 256 pixels
    1.12 T, as Peebles and Xie print ("Scalable Diffusion Models with Transformers", ICCV 2023; its
    Gflops count a multiply-add as one).

    Args:
        side: of the picture in pixels; it divides by 32.
    """

    def convolution(channels_in: int, channels_out: int, grid: int, kernel: int = 3) -> int:
        return kernel**2 * channels_in * channels_out * grid**2

    def block(channels_in: int, channels_out: int, grid: int) -> int:
        """A residual block; its side path has a convolution where the channels change."""
        side_path = 0
        if channels_in != channels_out:
            side_path = convolution(channels_in, channels_out, grid, 1)
        both = convolution(channels_in, channels_out, grid)
        return both + convolution(channels_out, channels_out, grid) + side_path

    def attention(channels: int, grid: int) -> int:
        """At the levels that have it: four projections, scores and sums."""
        if grid * SIDE // side not in ATTENTION:
            return 0
        return convolution(channels, 4 * channels, grid, 1) + 2 * channels * grid**4

    width, grid = WIDTH, side
    found = convolution(3, width, grid)
    skips = [width]
    last = len(MULTIPLES) - 1
    for level, multiple in enumerate(MULTIPLES):
        for _ in range(BLOCKS):
            found += block(width, WIDTH * multiple, grid)
            width = WIDTH * multiple
            found += attention(width, grid)
            skips.append(width)
        if level < last:
            grid //= 2
            found += block(width, width, grid)  # which halves the grid first
            skips.append(width)
    found += 2 * block(width, width, grid) + attention(width, grid)
    for level in range(last, -1, -1):
        for _ in range(BLOCKS + 1):
            found += block(width + skips.pop(), WIDTH * MULTIPLES[level], grid)
            width = WIDTH * MULTIPLES[level]
            found += attention(width, grid)
        if level:
            grid *= 2
            found += block(width, width, grid)  # which doubles the grid first
    return found + convolution(width, OUTPUT, grid)


def repaint_multiply_adds(height: int, width: int) -> int:
    """What RePaint takes for a picture of so many pixels, if its cost grows as their number; that
    favours it, as attention grows faster."""
    return network_calls() * adm_multiply_adds() * height * width // SIDE**2
