import dataclasses
import json
import math
import random
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bir_core.degradations import (
    CodeFormerDegradation,
    EnlargedDegradation,
    FixedDegradation,
    GrainDegradation,
    MixedKernels,
    RealESRGANDegradation,
    RealESRGANOrder,
    VaryingDegradation,
    degrade,
    get_preset,
    preset_names,
)
from bir_core.degradations.kernels import sharpen
from bir_core.errors import BIRError

FIXED = get_preset("simple_x4")
CODEFORMER = get_preset("codeformer")
ENLARGED = get_preset("enlarged")
GRAIN = get_preset("film_grain")
VARYING = get_preset("varying")
REAL_ESRGAN = get_preset("realesrgan_x2")
RESTORED = get_preset("diffbir_v1")
# Those that cut holes are tested with the masks.
NAMES = [name for name in preset_names() if not name.startswith("masks")]
# Old photographs fade and keep their size.
FADING = ("old_photo", "foreign_old_photo")
# Nothing is left to chance in these.
UNDRAWN = ("bicubic_x2", "bicubic_x4", "clean_x1", "clean_x2", "clean_x4", "jpeg_90")
NARROW = MixedKernels(sizes=(3,), sinc_probability=0, weights=(1, 0, 0, 0, 0, 0), sigma=(0.1, 0.1))


def random_images(batch: int = 4, height: int = 24, width: int = 28) -> torch.Tensor:
    """Soft random pictures: noise enlarged four times."""
    small = torch.rand(
        batch, 3, -(-height // 4), -(-width // 4), generator=torch.Generator().manual_seed(1)
    )
    large = F.interpolate(small, scale_factor=4, mode="bilinear")
    return large[..., :height, :width].contiguous()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nothing_happens(order: RealESRGANOrder) -> RealESRGANOrder:
    return replace(
        order,
        blur_probability=0.0,
        resize_weights=(0.0, 0.0, 1.0),
        gaussian_probability=1.0,
        gaussian_sigma=(0.0, 0.0),
        jpeg_quality=(99.9, 99.9),
    )


def gentle(preset: RealESRGANDegradation, scale: int) -> RealESRGANDegradation:
    return replace(
        preset,
        scale=scale,
        first=nothing_happens(preset.first),
        second=nothing_happens(preset.second),
        resize_modes=("area",),
        final_sinc_probability=0.0,
    )


# For each field another value, and the preset in which it must be felt.
CHANGES = {
    FixedDegradation: (
        FIXED,
        {
            "scale": 2,
            "blur": replace(FIXED.blur, sigma=(2.0, 3.0)),
            "resize_modes": ("bicubic",),
            "noise_sigma": (20.0, 30.0),
            "jpeg_quality": (10.0, 20.0),
            "blur_probability": 0.0,
            "noise_probability": 0.0,
            "jpeg_probability": 0.0,
            "grey_probability": 1.0,
            "order": ("resize", "noise", "jpeg", "blur"),
        },
    ),
    CodeFormerDegradation: (
        CODEFORMER,
        {
            "blur": replace(CODEFORMER.blur, sigma=(2.0, 3.0)),
            "downscale": (1.0, 2.0),
            "noise_sigma": (20.0, 30.0),
            "jpeg_quality": (10.0, 20.0),
        },
    ),
    EnlargedDegradation: (
        ENLARGED,
        {
            "damage": replace(ENLARGED.damage, noise_probability=0.0),
            "enlargement": (3.0, 4.0),
            "enlarge_probability": 1.0,
            "late_jpeg_probability": 0.0,
            "grey_picture_probability": 1.0,
            "resize_modes": ("area",),
        },
    ),
    GrainDegradation: (
        GRAIN,
        {
            "strength": (40.0, 50.0),
            "size": (2.0, 3.0),
            "grey_probability": 1.0,
            "scan": replace(GRAIN.scan, blur_probability=0.0),
        },
    ),
    VaryingDegradation: (
        VARYING,
        {
            "scale": 2,
            "blur_sigma": (2.0, 5.0),
            "noise_sigma": (50.0, 60.0),
            "jpeg_quality": (10.0, 20.0),
            "blur_probability": 0.0,
            "noise_probability": 0.0,
            "jpeg_probability": 0.0,
            "grey_probability": 1.0,
            "cycles": (3.0, 4.0),
            "resize_modes": ("bicubic",),
        },
    ),
    RealESRGANOrder: (
        REAL_ESRGAN.second,
        {
            "blur_probability": 0.0,
            "kernels": MixedKernels(sigma=(2.0, 3.0)),
            "resize_weights": (0.0, 0.0, 1.0),
            "enlarge": (1.3, 1.5),
            "reduce": (0.5, 0.6),
            "gaussian_probability": 1.0,
            "gaussian_sigma": (30.0, 40.0),
            "poisson_scale": (3.0, 4.0),
            "grey_probability": 1.0,
            "jpeg_quality": (10.0, 20.0),
        },
    ),
    RealESRGANDegradation: (
        RESTORED,
        {
            "scale": (1.0, 2.0),
            "first": replace(RESTORED.first, gaussian_sigma=(40.0, 50.0)),
            "second": replace(RESTORED.second, gaussian_sigma=(40.0, 50.0)),
            "resize_modes": ("bicubic",),
            "final_sinc_probability": 0.0,
            "final_sinc_sizes": (5,),
            "final_sinc_cutoff": (1.0, 1.2),
            "sharpen_hq": True,
            "restore_size": False,
        },
    ),
    MixedKernels: (
        MixedKernels(motion_probability=0.4, defocus_probability=0.3),
        {
            "sizes": (7, 9),
            "sinc_probability": 1.0,
            "sinc_cutoff_small": (1.0, 1.2),
            "sinc_cutoff_large": (1.0, 1.2),
            "weights": (0.0, 0.0, 1.0, 1.0, 1.0, 1.0),
            "sigma": (3.0, 4.0),
            "theta": (0.0, 0.0),
            "beta_generalized": (0.9, 1.5),
            "beta_plateau": (0.9, 1.5),
            "motion_probability": 0.0,
            "motion_length": (20.0, 30.0),
            "motion_bend": (0.0, 0.0),
            "motion_shake": (2.0, 3.0),
            "defocus_probability": 0.0,
            "defocus_radius": (9.0, 10.0),
        },
    ),
}


def in_a_preset(parameters):
    """The degradation that is made of these parameters."""
    if isinstance(parameters, RealESRGANOrder):
        return replace(REAL_ESRGAN, second=parameters)
    if isinstance(parameters, MixedKernels):
        return replace(FIXED, blur=parameters)
    return parameters


@pytest.mark.parametrize("kind", CHANGES)
def test_no_parameter_is_left_out(kind):
    _, changes = CHANGES[kind]
    assert set(changes) == {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    "kind, name", [(kind, name) for kind, (_, changes) in CHANGES.items() for name in changes]
)
def test_every_parameter_changes_the_result(kind, name):
    base, changes = CHANGES[kind]
    before, after = in_a_preset(base), in_a_preset(replace(base, **{name: changes[name]}))
    hq = random_images(8)
    if name == "restore_size" or (kind is VaryingDegradation and name == "resize_modes"):
        after, before = replace(after, scale=2), replace(before, scale=2)

    def results(preset):
        return [degrade(hq, preset, generator=seeded(seed)).lq for seed in range(8)]

    pairs = zip(results(before), results(after), strict=True)
    assert not all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_state_gives_the_same_bytes(name):
    hq = random_images()
    first, second, other = (
        degrade(hq, get_preset(name), generator=seeded(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first.lq, second.lq) and torch.equal(first.hq, second.hq)
    assert str(first.draws) == str(second.draws)
    assert first.lq.shape == other.lq.shape
    assert torch.equal(first.lq, other.lq) == (name in UNDRAWN)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_generator_is_random(name):
    hq = random_images()
    kept = hq.clone()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = degrade(hq, get_preset(name), generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert torch.equal(hq, kept), "the input was changed in place"
    torch.rand(3)
    assert torch.equal(first.lq, degrade(hq, get_preset(name), generator=seeded(3)).lq)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(
    batch=st.integers(1, 3),
    height=st.integers(4, 45),
    width=st.integers(4, 45),
    seed=st.integers(0, 10000),
)
def test_every_preset_takes_every_size(name, batch, height, width, seed):
    preset = get_preset(name)
    result = degrade(random_images(batch, height, width), preset, generator=seeded(seed))
    scale = getattr(preset, "scale", 1)
    if getattr(preset, "restore_size", True) and not isinstance(preset, FixedDegradation):
        expected_lq = expected_hq = (height, width)
    else:
        expected_lq = height // scale, width // scale
        expected_hq = expected_lq[0] * scale, expected_lq[1] * scale
    assert result.lq.shape == (batch, 3, *expected_lq)
    assert result.hq.shape == (batch, 3, *expected_hq)
    for image in (result.lq, result.hq):
        assert image.dtype == torch.float32
        assert float(image.min()) >= 0 and float(image.max()) <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "_x" not in name])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (3, 2)])
def test_the_smallest_pictures_return_to_their_size(name, height, width):
    for seed in range(5):
        hq = torch.rand(2, 3, height, width, generator=seeded(0))
        assert degrade(hq, get_preset(name), generator=seeded(seed)).lq.shape == hq.shape


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("codeformer")])
def test_results_are_whole_8bit_steps(name):
    levels = degrade(random_images(), get_preset(name), generator=seeded(2)).lq * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FADING])
def test_the_brightness_stays(name):
    """A shifted range or a wrong kernel sum would show."""
    hq = 0.25 + 0.5 * random_images(8, 64, 64)
    for seed in range(4):
        result = degrade(hq, get_preset(name), generator=seeded(seed))
        assert abs(float(result.lq.mean() - result.hq.mean())) < 0.03


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_gentle_chains_only_shrink(scale):
    """Without blur and noise and with good JPEG what is left is the resize, in its place."""
    hq = random_images(4, 32, 48).mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    expected = F.avg_pool2d(hq, scale)
    fixed = FixedDegradation(
        scale=scale,
        blur=NARROW,
        resize_modes=("area",),
        noise_sigma=(0, 0),
        jpeg_quality=(100, 100),
    )
    for preset in (fixed, gentle(REAL_ESRGAN, scale)):
        result = degrade(hq, preset, generator=seeded(0))
        assert float((result.lq - expected).abs().mean()) < 1.5 / 255
        assert torch.equal(result.hq, hq)


def test_a_gentle_codeformer_chain_gives_the_picture_back():
    hq = random_images(4, 32, 48).mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    preset = CodeFormerDegradation(
        blur=NARROW, downscale=(1, 1), noise_sigma=(0, 0), jpeg_quality=(100, 100)
    )
    lq = degrade(hq, preset, generator=seeded(0)).lq
    assert float((lq - hq).abs().mean()) < 1.5 / 255


def test_the_sharpened_image_is_the_target():
    hq = random_images(2, 64, 64)
    result = degrade(hq, get_preset("diffbir_v2.1"), generator=seeded(0))
    assert torch.equal(result.hq, sharpen(hq))
    assert torch.equal(result.sharpened_from, hq)
    assert not torch.equal(result.hq, hq)
    plain = degrade(hq, get_preset("diffbir_v1"), generator=seeded(0))
    assert torch.equal(plain.hq, hq)


def test_the_order_draws_scale_and_mode_once_and_levels_for_each_image():
    draws = degrade(random_images(6), REAL_ESRGAN, generator=seeded(0)).draws
    for order in ("first", "second"):
        assert isinstance(draws[f"{order}_resize_factor"], float)
        assert draws[f"{order}_resize_mode"] in ("area", "bilinear", "bicubic")
        assert draws[f"{order}_noise_kind"] in ("gaussian", "poisson")
        for name in ("noise_strength", "noise_grey", "jpeg_quality"):
            assert draws[f"{order}_{name}"].shape == (6,)
        assert len(draws[f"{order}_jpeg_quality"].unique()) == 6
    assert len(draws["final_kernels"]) == 6


def test_batch_draws_have_the_published_probabilities():
    count = 600
    hq = random_images(2, 16, 16)
    generator = seeded(1)
    preset = get_preset("realesrgan_x4")
    all_draws = [degrade(hq, preset, generator=generator).draws for _ in range(count)]

    def close(name, value, probability):
        share = sum(draws[name] == value for draws in all_draws) / count
        tolerance = 5 * math.sqrt(probability * (1 - probability) / count)
        assert abs(share - probability) <= tolerance, (name, value, share)

    close("first_blur", True, 1.0)
    close("second_blur", True, 0.8)
    close("final_resize_before_jpeg", True, 0.5)
    for order, weights in (("first", (0.2, 0.7, 0.1)), ("second", (0.3, 0.4, 0.3))):
        close(f"{order}_noise_kind", "gaussian", 0.5)
        for direction, weight in zip(("enlarge", "reduce", "keep"), weights, strict=True):
            close(f"{order}_resize_direction", direction, weight)
    for step in ("first", "second", "final"):
        for mode in ("area", "bilinear", "bicubic"):
            close(f"{step}_resize_mode", mode, 1 / 3)

    grey = torch.cat([draws["first_noise_grey"] for draws in all_draws]).float()
    assert abs(float(grey.mean()) - 0.4) < 5 * math.sqrt(0.24 / (2 * count))
    ranges = {
        ("first", "gaussian"): (1, 30),
        ("first", "poisson"): (0.05, 3),
        ("second", "gaussian"): (1, 25),
        ("second", "poisson"): (0.05, 2.5),
    }
    for (order, kind), (low, high) in ranges.items():
        levels = torch.cat(
            [d[f"{order}_noise_strength"] for d in all_draws if d[f"{order}_noise_kind"] == kind]
        )
        width = high - low
        assert low <= levels.min() < low + 0.05 * width
        assert high - 0.05 * width < levels.max() < high
    for order, limits in (("first", (0.15, 1.5)), ("second", (0.3, 1.2))):
        factors = [draws[f"{order}_resize_factor"] for draws in all_draws]
        assert limits[0] <= min(factors) < limits[0] + 0.05
        assert limits[1] - 0.05 < max(factors) < limits[1]
    sinc = [k["kind"] == "sinc" for draws in all_draws for k in draws["final_kernels"]]
    assert abs(sum(sinc) / len(sinc) - 0.8) < 5 * math.sqrt(0.16 / len(sinc))


@pytest.mark.parametrize(
    "name, ranges",
    [
        ("codeformer", {"downscale": (1, 12), "noise_sigma": (0, 15), "jpeg_quality": (30, 100)}),
        (
            "codeformer_face",
            {"downscale": (0.8, 8), "noise_sigma": (0, 20), "jpeg_quality": (60, 100)},
        ),
        ("simple_x4", {"noise_sigma": (5, 30), "jpeg_quality": (40, 96)}),
        ("simple_x1", {"noise_sigma": (5, 30), "jpeg_quality": (40, 96)}),
    ],
)
def test_levels_of_the_one_order_chains_fill_their_ranges(name, ranges):
    draws = degrade(random_images(400, 8, 8), get_preset(name), generator=seeded(0)).draws
    for key, (low, high) in ranges.items():
        values, width = draws[key], high - low
        assert low <= float(values.min()) < low + 0.05 * width
        assert high - 0.05 * width < float(values.max()) < high
    isotropic = [values["kind"] == "gaussian_isotropic" for values in draws["kernels"]]
    assert abs(sum(isotropic) / 400 - 0.5) < 5 * 0.5 / math.sqrt(400)


@pytest.mark.parametrize("name", NAMES)
def test_every_draw_is_readable(name):
    draws = degrade(random_images(), get_preset(name), generator=seeded(0)).draws
    text = json.dumps({k: v.tolist() if torch.is_tensor(v) else v for k, v in draws.items()})
    assert set(json.loads(text)) == set(draws)
    few = dict.fromkeys((*UNDRAWN, "motion_blur", "defocus"), 1) | {"clean_x1": 0}
    assert len(draws) >= few.get(name, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FADING])
def test_the_scale_can_be_replaced(name):
    hq = random_images(2, 24, 24)
    preset = get_preset(name)
    result = degrade(hq, preset, generator=seeded(0), scale=3)
    if isinstance(preset, CodeFormerDegradation):
        assert result.draws["downscale"].tolist() == [3.0, 3.0]
        assert result.lq.shape == hq.shape
    elif isinstance(preset, EnlargedDegradation):
        assert result.draws["enlargement"].tolist() == [3.0, 3.0]
        assert result.lq.shape == hq.shape
    elif getattr(preset, "restore_size", False):
        assert result.draws["scale"] == 3
        assert result.lq.shape == hq.shape
    else:
        assert result.lq.shape == (2, 3, 8, 8)


def test_a_range_of_scales_is_drawn_for_each_batch():
    preset = replace(RESTORED, scale=(1.0, 4.0))
    generator = seeded(0)
    scales = [degrade(random_images(1), preset, generator=generator).draws["scale"] for _ in "1234"]
    assert len(set(scales)) == 4
    assert all(1 <= scale < 4 for scale in scales)


def test_half_precision_is_worked_on_in_float32():
    hq = random_images().half()
    expected = degrade(hq.float(), FIXED, generator=seeded(0))
    got = degrade(hq, FIXED, generator=seeded(0))
    assert torch.equal(got.lq, expected.lq)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_the_device_changes_rounding_only(name):
    hq = random_images(4, 64, 64)
    on_cpu = degrade(hq, get_preset(name), generator=seeded(0))
    on_cuda = degrade(hq.cuda(), get_preset(name), generator=seeded(0))
    assert on_cuda.lq.device.type == "cuda"
    assert str(on_cpu.draws) == str(on_cuda.draws)
    assert float((on_cpu.lq - on_cuda.lq.cpu()).abs().mean()) < 2 / 255


@pytest.mark.parametrize(
    "hq, scale, message",
    [
        (torch.zeros(3, 8, 8), None, r"\(B, 3, H, W\), but \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), None, r"but \(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(0, 3, 8, 8), None, r"but \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 3), None, "at least 4 pixels, but 3 x 8 came"),
        (torch.zeros(1, 3, 8, 8), 0, "scale should be at least 1, but 0"),
    ],
)
def test_images_that_cannot_be_degraded_are_refused(hq, scale, message):
    with pytest.raises(BIRError, match=message):
        degrade(hq, FIXED, generator=seeded(0), scale=scale)


@pytest.mark.parametrize(
    "preset, wrong, message",
    [
        (FIXED, {"resize_modes": ("nearest",)}, "area, bilinear, bicubic, matlab, but"),
        (FIXED, {"resize_modes": ()}, "one or more of"),
        (FIXED, {"noise_sigma": (5, 1)}, "noise_sigma should be a range"),
        (FIXED, {"jpeg_quality": (0, 50)}, "jpeg_quality should be a range"),
        (CODEFORMER, {"downscale": (0, 1)}, "downscale should be a range"),
        (REAL_ESRGAN, {"scale": 1.5}, "whole number where the result stays small, but 1.5"),
        (REAL_ESRGAN, {"scale": (1.0, 2.0)}, "whole number where the result stays small"),
        (RESTORED, {"scale": (0.5, 2.0)}, "scale should be a range"),
        (RESTORED, {"final_sinc_sizes": ()}, "final_sinc_sizes should have at least one"),
        (RESTORED.first, {"jpeg_quality": (30, 100)}, "jpeg_quality should be a range"),
        (RESTORED.first, {"enlarge": (0.5, 2)}, "enlarge should be a range"),
        (RESTORED.first, {"resize_weights": (1, 1)}, "resize_weights should be 3 weights"),
    ],
)
def test_impossible_parameters_are_refused(preset, wrong, message):
    with pytest.raises(BIRError, match=message):
        dataclasses.replace(preset, **wrong)
