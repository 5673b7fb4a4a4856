import dataclasses

import pytest

from bir_core.degradations import get_preset, preset_names
from bir_core.errors import BIRError


def test_the_presets_have_these_names():
    assert preset_names() == (
        "bicubic_x2",
        "bicubic_x4",
        "clean_x1",
        "clean_x2",
        "clean_x4",
        "codeformer",
        "codeformer_face",
        "defocus",
        "diffbir_v1",
        "diffbir_v2.1",
        "enlarged",
        "film_grain",
        "foreign_old_photo",
        "foreign_x4",
        "jpeg_90",
        "masks_medium_256",
        "masks_medium_512",
        "masks_scratches",
        "masks_thick_256",
        "masks_thick_512",
        "masks_thin_256",
        "masks_thin_512",
        "masks_train",
        "motion",
        "motion_blur",
        "old_photo",
        "realesrgan_x1",
        "realesrgan_x1_usm",
        "realesrgan_x2",
        "realesrgan_x2_usm",
        "realesrgan_x4",
        "realesrgan_x4_usm",
        "simple_x1",
        "simple_x2",
        "simple_x4",
        "varying",
    )


@pytest.mark.parametrize("name", preset_names())
def test_presets_cannot_be_changed(name):
    preset = get_preset(name)
    field = dataclasses.fields(preset)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(preset, field, None)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_scale_and_sharpening_are_in_the_name(scale):
    preset = get_preset(f"realesrgan_x{scale}")
    assert preset.scale == scale
    assert not preset.restore_size and not preset.sharpen_hq
    sharpened = get_preset(f"realesrgan_x{scale}_usm")
    assert sharpened == dataclasses.replace(preset, sharpen_hq=True)


def test_diffbir_has_the_recipe_of_real_esrgan_at_full_size():
    official = get_preset("realesrgan_x4")
    for name, sharpen in (("diffbir_v1", False), ("diffbir_v2.1", True)):
        expected = dataclasses.replace(official, restore_size=True, sharpen_hq=sharpen)
        assert get_preset(name) == expected


@pytest.mark.parametrize("name, sigma", [("codeformer", 12.0), ("codeformer_face", 10.0)])
def test_codeformer_kernels(name, sigma):
    kernels = get_preset(name).blur
    assert kernels.sizes == (41,)
    assert kernels.sigma == (0.1, sigma)
    assert kernels.sinc_probability == 0
    assert kernels.weights == (0.5, 0.5, 0, 0, 0, 0)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(BIRError, match="one of bicubic_x2, .* but 'blurry' came"):
        get_preset("blurry")
