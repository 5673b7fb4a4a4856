"""Named degradations."""

import dataclasses

from ..errors import BIRError
from .codeformer import CodeFormerDegradation
from .degradation import Degradation
from .draws import Range
from .enlarged import EnlargedDegradation
from .fixed import FixedDegradation
from .grain import GrainDegradation
from .kernels import MixedKernels
from .masks import BoxMasks, Counts, MaskDegradation, StrokeMasks
from .painted_damage import PaintedDamage
from .real_esrgan import RealESRGANDegradation, RealESRGANOrder
from .scratch_masks import ScratchMasks
from .textured_damage import TexturedDamage
from .varying import VaryingDegradation


def _gaussian_kernels(size: int, sigma: Range) -> MixedKernels:
    """Isotropic and anisotropic Gaussian kernels, half and half."""
    return MixedKernels(
        sizes=(size,), sinc_probability=0.0, weights=(0.5, 0.5, 0, 0, 0, 0), sigma=sigma
    )


def _isotropic(sigma: float) -> MixedKernels:
    """One Gaussian kernel."""
    return MixedKernels(
        sizes=(13,), sinc_probability=0.0, weights=(1, 0, 0, 0, 0, 0), sigma=(sigma, sigma)
    )


def _reduced(scale: int) -> FixedDegradation:
    """Bicubic reduction without any damage; the ranges are there for presets made of it."""
    return FixedDegradation(
        scale=scale,
        blur=_isotropic(1.0),
        noise_sigma=(0.0, 0.0),
        jpeg_quality=(100.0, 100.0),
        resize_modes=("bicubic",),
        blur_probability=0.0,
        noise_probability=0.0,
        jpeg_probability=0.0,
    )


def _blurred(kernels: MixedKernels) -> FixedDegradation:
    """Blur alone."""
    return dataclasses.replace(_reduced(1), blur=kernels, blur_probability=1.0)


# A scanner, and a file that was saved with some care.
_SCAN = FixedDegradation(
    scale=1,
    blur=_gaussian_kernels(9, (0.2, 1.0)),
    noise_sigma=(0.0, 10.0),
    jpeg_quality=(60.0, 101.0),
    blur_probability=0.7,
    noise_probability=0.8,
    jpeg_probability=0.7,
    grey_probability=0.4,
)


# Wang et al., "Real-ESRGAN" (ICCVW 2021), and the training options of DiffIR's RealSR models.
_REAL_ESRGAN = RealESRGANDegradation(
    scale=4,
    first=RealESRGANOrder(
        blur_probability=1.0,
        kernels=MixedKernels(),
        resize_weights=(0.2, 0.7, 0.1),
        enlarge=(1.0, 1.5),
        reduce=(0.15, 1.0),
        gaussian_probability=0.5,
        gaussian_sigma=(1.0, 30.0),
        poisson_scale=(0.05, 3.0),
        grey_probability=0.4,
        jpeg_quality=(30.0, 95.0),
    ),
    second=RealESRGANOrder(
        blur_probability=0.8,
        kernels=MixedKernels(sigma=(0.2, 1.5)),
        resize_weights=(0.3, 0.4, 0.3),
        enlarge=(1.0, 1.2),
        reduce=(0.3, 1.0),
        gaussian_probability=0.5,
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
        grey_probability=0.4,
        jpeg_quality=(30.0, 95.0),
    ),
)


def _test_masks(side: int, strokes: StrokeMasks, boxes: BoxMasks | None = None) -> MaskDegradation:
    """Of the test sets of LaMa; boxes have a weight of 0.3 against 1."""
    share = 0.0 if boxes is None else 0.3 / 1.3
    return MaskDegradation(
        strokes=strokes, boxes=boxes, box_probability=share, side=side, test=True
    )


def _boxes(most: int, sides: Counts, margin: int) -> BoxMasks:
    return BoxMasks(boxes=(1, most), sides=sides, margin=margin)


# The strokes' upper counts are one more than configured, as the official code passes them on.
_MASKS: dict[str, Degradation] = {
    "masks_train": MaskDegradation(
        strokes=StrokeMasks(strokes=(1, 6), lengths=200, widths=100),
        boxes=_boxes(4, (30, 150), 10),
        box_probability=0.5,
        side=256,
    ),
    "masks_thick_256": _test_masks(
        256, StrokeMasks(strokes=(1, 6), lengths=200, widths=100), _boxes(3, (30, 150), 10)
    ),
    "masks_thick_512": _test_masks(
        512, StrokeMasks(strokes=(1, 6), lengths=450, widths=250), _boxes(4, (30, 300), 10)
    ),
    "masks_medium_256": _test_masks(
        256, StrokeMasks(strokes=(4, 6), lengths=100, widths=50), _boxes(5, (10, 50), 0)
    ),
    "masks_medium_512": _test_masks(
        512, StrokeMasks(strokes=(4, 11), lengths=200, widths=100), _boxes(5, (30, 150), 0)
    ),
    "masks_thin_256": _test_masks(256, StrokeMasks(strokes=(4, 51), lengths=40, widths=10)),
    "masks_thin_512": _test_masks(512, StrokeMasks(strokes=(4, 71), lengths=100, widths=20)),
}

_PRESETS: dict[str, Degradation] = {
    "realesrgan_x4": _REAL_ESRGAN,
    "realesrgan_x2": dataclasses.replace(_REAL_ESRGAN, scale=2),
    "realesrgan_x1": dataclasses.replace(_REAL_ESRGAN, scale=1),
    "realesrgan_x4_usm": dataclasses.replace(_REAL_ESRGAN, sharpen_hq=True),
    "realesrgan_x2_usm": dataclasses.replace(_REAL_ESRGAN, scale=2, sharpen_hq=True),
    "realesrgan_x1_usm": dataclasses.replace(_REAL_ESRGAN, scale=1, sharpen_hq=True),
    "diffbir_v1": dataclasses.replace(_REAL_ESRGAN, restore_size=True),
    "diffbir_v2.1": dataclasses.replace(_REAL_ESRGAN, restore_size=True, sharpen_hq=True),
    "codeformer": CodeFormerDegradation(
        blur=_gaussian_kernels(41, (0.1, 12.0)),
        downscale=(1.0, 12.0),
        noise_sigma=(0.0, 15.0),
        jpeg_quality=(30.0, 100.0),
    ),
    "codeformer_face": CodeFormerDegradation(
        blur=_gaussian_kernels(41, (0.1, 10.0)),
        downscale=(0.8, 8.0),
        noise_sigma=(0.0, 20.0),
        jpeg_quality=(60.0, 100.0),
    ),
    # Old and noisy pictures: grain and JPEG outweigh the blur. A sigma of 1.5 at the size of the hq
    # image is less than half a pixel after x4.
    "simple_x4": FixedDegradation(
        scale=4,
        blur=_gaussian_kernels(13, (0.2, 1.5)),
        noise_sigma=(5.0, 30.0),
        jpeg_quality=(40.0, 96.0),
    ),
    "simple_x2": FixedDegradation(
        scale=2,
        blur=_gaussian_kernels(13, (0.2, 1.2)),
        noise_sigma=(5.0, 30.0),
        jpeg_quality=(40.0, 96.0),
    ),
    "simple_x1": FixedDegradation(
        scale=1,
        blur=_gaussian_kernels(11, (0.1, 0.8)),
        noise_sigma=(5.0, 30.0),
        jpeg_quality=(40.0, 96.0),
    ),
    # A camera that moved.
    "motion": FixedDegradation(
        scale=1,
        blur=MixedKernels(motion_probability=1.0),
        noise_sigma=(0.0, 4.0),
        jpeg_quality=(80.0, 101.0),
    ),
    # Blur alone: pairs for a training of deblurring, and tests of it.
    "motion_blur": _blurred(
        MixedKernels(motion_probability=1.0, motion_length=(5.0, 40.0), motion_shake=(0.0, 2.0))
    ),
    "defocus": _blurred(MixedKernels(defocus_probability=1.0)),
    # What no single strength describes.
    "varying": VaryingDegradation(),
    "film_grain": GrainDegradation(scan=_SCAN),
    # Each damage may be absent: on them it is learned what is wrong with a picture.
    "enlarged": EnlargedDegradation(
        damage=FixedDegradation(
            scale=1,
            blur=MixedKernels(
                sizes=(21,), sinc_probability=0.0, weights=(0.7, 0.3, 0, 0, 0, 0), sigma=(0.3, 3.5)
            ),
            noise_sigma=(0.5, 40.0),
            jpeg_quality=(20.0, 99.0),
            blur_probability=0.5,
            noise_probability=0.6,
            jpeg_probability=0.6,
            grey_probability=0.4,
        ),
        enlargement=(1.0, 4.0),
        enlarge_probability=0.4,
        late_jpeg_probability=0.5,
        grey_picture_probability=0.15,
    ),
    "masks_scratches": ScratchMasks(),
    # The low-quality pictures of Set5, Set14, DF2K and the like.
    "bicubic_x4": dataclasses.replace(_reduced(4), resize_modes=("matlab",)),
    "bicubic_x2": dataclasses.replace(_reduced(2), resize_modes=("matlab",)),
    # What measures the built-in models besides the presets of their training.
    "clean_x4": _reduced(4),
    "clean_x2": _reduced(2),
    "clean_x1": _reduced(1),
    "foreign_x4": dataclasses.replace(
        _reduced(4),
        blur=_isotropic(1.0),
        noise_sigma=(6.0, 6.0),
        jpeg_quality=(75.0, 75.0),
        blur_probability=1.0,
        noise_probability=1.0,
        jpeg_probability=1.0,
    ),
    "jpeg_90": dataclasses.replace(_reduced(1), jpeg_quality=(90.0, 90.0), jpeg_probability=1.0),
    "old_photo": PaintedDamage(scan=_SCAN),
    "foreign_old_photo": TexturedDamage(scan=_SCAN),
    **_MASKS,
}


def preset_names() -> tuple[str, ...]:
    """Every name that `get_preset` knows, sorted."""
    return tuple(sorted(_PRESETS))


def get_preset(name: str) -> Degradation:
    """The parameters of a named degradation.

    Args:
        name: "realesrgan_x4", "realesrgan_x2", "realesrgan_x1": the training of DiffIR's RealSR
            models; with "_usm" at the end the picture is sharpened first, as for version 2 of its
            GAN stage. "diffbir_v1", "diffbir_v2.1", "codeformer" (DiffBIR v2), "codeformer_face"
            (DiffBIR v1, faces): the training of DiffBIR; the result has the size of the input.
            "simple_x4", "simple_x2", "simple_x1": noisy pictures, on which the built-in models are
            trained among others; "foreign_x4", "clean_x4", "clean_x2", "clean_x1", "jpeg_90":
            single kinds of damage, or none, that they are measured on as well. "enlarged": any of
            blur, noise and JPEG, or none, and perhaps enlarged; the size stays. "bicubic_x4",
            "bicubic_x2": the pairs of Set5, Set14, DF2K and the like, by MATLAB's imresize.
            "motion_blur", "defocus": blur of a moving camera, or of a lens out of focus, alone.
            "varying": blur, noise and JPEG that change over the picture. "film_grain": the grain of
            film, scanned.
            "masks_train": the
            training of inpainting. "masks_thick_256" and alike, also medium and thin, and 512: the
            tests of inpainting; wide holes are the thick ones, narrow holes the thin ones.
            "masks_scratches": thin holes of 1 to 12 pixels, as taken out damage leaves them.
            "old_photo": a scan of a damaged print, from which damage is learned;
            "foreign_old_photo": the same made in another way, on which it is tested.

    Raises:
        BIRError: an unknown name.
    """
    if name not in _PRESETS:
        raise BIRError(
            f"A degradation preset should be one of {', '.join(preset_names())}, "
            f"but {name!r} came; choose one of these."
        )
    return _PRESETS[name]
