"""Estimates that do not depend on the weights of the estimator."""

from dataclasses import replace

from bir_core.estimate import Estimate, Measured
from bir_core.estimate.classical import wavelet_noise

CLEAN = Estimate(
    blur_sigma=Measured(0.0, 0.1),
    noise_sigma=Measured(0.2, 0.8),
    noise_grey=0.1,
    jpeg_quality=None,
    jpeg=0.0,
    file_quality=None,
    enlargement=Measured(1.0, 0.1),
    sharpness=Measured(0.5, 0.1),
    grey=Measured(0.0, 0.0),
    contrast=Measured(0.9, 0.1),
    colour_cast=(0.0, 0.0, 0.0),
    wavelet_noise=Measured(1.0, 0.5),
)


def classical(image, network=None, *, file_quality=None):
    """In the place of `estimate`: noise by wavelets, JPEG by the tables of the file, no more."""
    return replace(CLEAN, noise_sigma=wavelet_noise(image), jpeg_quality=file_quality)
