"""An estimate as sentences."""

from .estimating import Estimate
from .patches import Measured

# From where on it is seen.
VISIBLE_BLUR, VISIBLE_NOISE, VISIBLE_ENLARGEMENT = 0.5, 2.0, 1.3
STRONG_BLUR, STRONG_NOISE = 1.5, 15.0
SOFT_EDGES, SHARP_EDGES = 0.18, 0.25
FAINT_JPEG, STRONG_JPEG = 90, 50
GREY_SHARE = 0.98
FADED_CONTRAST = 0.6
VISIBLE_CAST = 12.0
CHANNELS = ("red", "green", "blue")


def in_words(found: Estimate) -> list[str]:
    """A line for each kind of damage, also where there is none."""
    return [
        _blur(found.blur_sigma),
        _noise(found),
        _jpeg(found),
        _enlargement(found.enlargement),
        _sharpness(found.sharpness),
        _colours(found),
        _contrast(found.contrast),
    ]


def _about(measured: Measured, digits: int = 1) -> str:
    return f"{measured.value:.{digits}f} (give or take {measured.spread:.{digits}f})"


def _blur(blur: Measured) -> str:
    if blur.value < VISIBLE_BLUR:
        return f"blur: none to see, sigma {_about(blur, 2)} pixels"
    strength = "strong" if blur.value >= STRONG_BLUR else "some"
    return f"blur: {strength}, sigma {_about(blur, 2)} pixels"


def _noise(found: Estimate) -> str:
    noise = found.noise_sigma
    if noise.value < VISIBLE_NOISE:
        return f"noise: none to see, sigma {_about(noise)} of 255"
    strength = "strong" if noise.value >= STRONG_NOISE else "some"
    kind = "grey" if found.noise_grey >= 0.5 else "in colour"
    return f"noise: {strength}, {kind}, sigma {_about(noise)} of 255"


def _jpeg(found: Estimate) -> str:
    quality, of_file = found.jpeg_quality, found.file_quality
    if quality is None:
        return f"JPEG: none to see (probability {found.jpeg:.0%})"
    if quality.value >= FAINT_JPEG:
        strength = "faint"
    else:
        strength = "strong" if quality.value < STRONG_JPEG else "some"
    if of_file is None:
        return f"JPEG: {strength}, quality {_about(quality, 0)}"
    if quality == of_file:
        return f"JPEG: {strength}, quality {_about(quality, 0)} by the tables of the file"
    return (
        f"JPEG: {strength}, quality {_about(quality, 0)}, and saved again with {of_file.value:.0f}"
    )


def _enlargement(enlargement: Measured) -> str:
    if enlargement.value < VISIBLE_ENLARGEMENT:
        return f"enlarged: not to see, {_about(enlargement)} times"
    return (
        f"enlarged: {_about(enlargement)} times; blur and noise are those of the picture before it"
    )


def _sharpness(sharpness: Measured) -> str:
    if sharpness.value >= SHARP_EDGES:
        return f"edges: sharp, {_about(sharpness, 2)}"
    soft = "soft" if sharpness.value < SOFT_EDGES else "a little soft"
    return f"edges: {soft}, {_about(sharpness, 2)}; sharp pictures have {SHARP_EDGES} and more"


def _colours(found: Estimate) -> str:
    if found.grey.value >= GREY_SHARE:
        return "colours: none, the picture is grey"
    cast = found.colour_cast
    strongest = max(range(len(CHANNELS)), key=lambda place: abs(cast[place]))
    if abs(cast[strongest]) < VISIBLE_CAST:
        return "colours: no cast to see"
    direction = "much" if cast[strongest] > 0 else "little"
    return (
        f"colours: {direction} {CHANNELS[strongest]} on the whole, by {abs(cast[strongest]):.0f} "
        "of 255; a cast, or what is shown"
    )


def _contrast(contrast: Measured) -> str:
    faded = "faded" if contrast.value < FADED_CONTRAST else "full"
    return f"contrast: {faded}, {contrast.value:.0%} of the range"
