"""The VAE of Stable Diffusion in tiles that equal the whole: `tiled` is what others call."""
