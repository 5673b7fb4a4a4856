"""The numbers of the latents of Stable Diffusion."""

# What the VAE's latent is multiplied with, so that it has about the variance 1.
LATENT_SCALE = 0.18215
# Pixels of the picture to a side of one pixel of its latent.
LATENT_FACTOR = 8
# Pixels: both stages of DiffBIR work on sides that are multiples of it. For stage 1, 8 pixels per
# token of SwinIR times 8 tokens per attention window; for stage 2, latents in multiples of 8 pass
# through the four levels of the UNet without rounding.
PADDED_MULTIPLE = 64
