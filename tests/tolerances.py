"""How far two ways to compute the same numbers may be apart, with the reasons.

Float32 rounds every result by up to EPS / 2 of itself. In which order a sum is taken depends on the
instruction set, the number of threads and the size of the batch, so no two machines need to agree
on more than these tolerances say. They are the same for every machine, about ten times what the
arithmetic gives, and far below what a wrong border, order or constant does, which is percents.
"""

import torch

EPS = torch.finfo(torch.float32).eps  # 1.2e-7

# Priors of DiffIR: up to 5, from ten layers whose sums have up to some thousand terms. Errors of
# sums walk at random, and each layer hands on those before it: about 5 EPS of the largest number.
IPR = {"rtol": 0, "atol": 2e-5}

# Results of networks as a share of their largest number, where the same sums are split over strips
# or tiles: up to 50 layers, each of which errs by an EPS or two and hands on the errors before it.
SPLIT_NETWORK = 1e-4

# Gradients, as a share of the largest of the same tensor, where the sums over a batch are split in
# another way. Leaky ReLU has a kink at 0: of some 100000 numbers before it, about one is so near to
# 0 that rounding changes its sign, which swaps one term of a gradient for another. One of n terms
# of random signs is 1 / sqrt(n), a few thousandths, of their sum.
SPLIT_GRADIENT = 2e-2

# Gradients that are 0 by their formula, as a bias before a normalisation, are sums of terms as
# large as others have, which cancel but for EPS each: a share of the largest gradient of all.
CANCELLED_GRADIENT = 1e-5

# Pictures in [0, 1] of whole runs of two networks in another order of sums, such as ours and
# ComfyUI's: errors of `SPLIT_NETWORK` that guidance of 8 and several steps hand on.
WHOLE_RUN = 1e-3
