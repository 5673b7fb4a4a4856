"""The diffusion of DiffBIR: schedules, denoisers, samplers and guidance as plain functions.

A denoiser is a callable (x, sigma, **cond) -> denoised (Karras et al. 2022, "Elucidating the Design
Space of Diffusion-Based Generative Models"): x = x0 + sigma * noise in, the clean estimate out.
"""
