"""Restoring images of any size, with the official numbers where there are some."""

import logging
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import DATA, config_from_metadata, fill_by_rule, load_vectors

from bir_core.diffir.memory_plan import diffir_strips, padded
from bir_core.diffir.restore import restore
from bir_core.errors import BIRError
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import OFFICIAL_CONFIGS, DiffIRConfig
from bir_core.networks.diffir_prior import draw_noise

# Not `import bir_core.restore`: the package has a function of this name.
restore_module = import_module("bir_core.diffir.restore")
NETS = sorted(
    path.stem for path in DATA.glob("diffir_net_*.safetensors") if "inpainting" not in path.stem
)
GIB = 2**30


def small_network(task="deblur", scale=1):
    torch.manual_seed(0)
    config = DiffIRConfig(
        task=task,
        scale=scale,
        dim=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        n_encoder_res=1,
    )
    return DiffIRStage2(config).eval().requires_grad_(False)


def official_network(metadata):
    network = DiffIRStage2(DiffIRConfig(**config_from_metadata(metadata, 2)))
    fill_by_rule(network, int(metadata["s2_seed0"]))
    return network


@pytest.mark.parametrize("name", NETS)
def test_equals_official(name):
    vectors, metadata = load_vectors(name)
    restored = restore(vectors["input"], official_network(metadata), noise=vectors["s2_noise"])
    tolerance = 1e-4 * float(vectors["s2_out"].abs().max())
    torch.testing.assert_close(restored, vectors["s2_out"].clamp(0, 1), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("task", "scale"), [("deblur", 1), ("sr", 2), ("inpainting", 1)])
def test_grey_stays_grey(task, scale):
    image = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(1))
    image[0] = image[0, :1].clone()
    mask = (image[1:, :1] > 0.5).float() if task == "inpainting" else None
    grey, coloured = restore(image, small_network(task, scale), mask=mask)
    assert torch.equal(grey, grey[:1].expand(3, -1, -1)) and grey.std() > 0.01
    assert not torch.equal(coloured, coloured[:1].expand(3, -1, -1))
    if mask is not None:
        outside = (mask[0] == 0).expand(3, -1, -1)
        assert torch.equal(grey[outside], image[0][outside])


def test_inpainting_equals_official():
    vectors, metadata = load_vectors("diffir_net_inpainting")
    restored = restore(
        vectors["image"],
        official_network(metadata),
        mask=vectors["mask"],
        noise=vectors["s2_noise"],
    )
    tolerance = 1e-4 * float(vectors["s2_out"].abs().max())
    expected = vectors["s2_inpainted"].clamp(0, 1)
    torch.testing.assert_close(restored, expected, rtol=0, atol=tolerance)
    # The official script cuts off instead of rounding.
    cut = (restored * 255).to(torch.uint8)
    official = vectors["s2_inpainted_uint8"]
    assert (cut.int() - official.int()).abs().max() <= 1
    assert (cut == official).float().mean() > 0.99


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from((("sr", 4), ("sr", 2), ("sr", 1), ("deblur", 1), ("inpainting", 1))),
    batch=st.integers(1, 2),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_size(kind, batch, height, width):
    network = small_network(*kind)
    image = torch.rand(batch, 3, height, width)
    mask = torch.ones(1, 1, height, width) if kind[0] == "inpainting" else None
    restored = restore(image, network, mask=mask)
    assert restored.shape == (batch, 3, height * kind[1], width * kind[1])
    assert restored.dtype == torch.float32
    assert restored.is_contiguous()
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_seed_matters_and_batch_does_not():
    network = small_network()
    image = torch.rand(1, 3, 20, 20).expand(2, -1, -1, -1)
    both = restore(image, network, seed=5)
    assert torch.equal(both[:1], restore(image[:1], network, seed=5))
    assert torch.equal(both[1:], restore(image[1:], network, seed=6))
    assert not torch.equal(both[0], both[1])
    assert torch.equal(both, restore(image, network, noise=draw_noise(2, 5)))


def test_global_random_state_is_left_alone():
    network = small_network()
    before = torch.random.get_rng_state()
    restore(torch.full((1, 3, 8, 8), 0.5), network)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_outside_of_the_hole_nothing_changes():
    image = torch.rand(2, 3, 20, 28)
    mask = torch.zeros(2, 1, 20, 28)
    mask[:, :, 5:12, 3:20] = 0.5  # where the hole of a soft mask begins
    mask[:, :, 12:14, 3:20] = 0.49
    network = small_network("inpainting")
    restored = restore(image, network, mask=mask)
    outside = (mask < 0.5).expand_as(image)
    assert torch.equal(restored[outside], image[outside])
    assert not torch.equal(restored[~outside], image[~outside])
    hidden = torch.where(outside, image, torch.rand_like(image))
    assert torch.equal(restore(hidden, network, mask=mask), restored)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(dtype):
    image = torch.rand(1, 3, 24, 24)
    full = restore(image, small_network())
    half = restore(image, small_network().to(dtype))
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.02


def test_overflow_in_half_precision_is_repeated_in_float32(caplog):
    network = small_network()
    network.G.patch_embed.proj.weight.fill_(60000)
    network = network.half()
    image = torch.rand(1, 3, 16, 16)
    with caplog.at_level(logging.WARNING):
        restored = restore(image, network)
    assert "repeating in float32" in caplog.text
    assert torch.equal(restored, restore(image, network.float()))


def test_nan_in_the_weights_names_the_part():
    network = small_network()
    network.G.output.weight.view(-1)[0] = float("nan")
    with pytest.raises(BIRError, match="out of the DIRformer"):
        restore(torch.rand(1, 3, 16, 16), network)


def test_out_of_memory_halves_the_strip(monkeypatch, caplog):
    tried = []
    real = restore_module.stream

    def limited(*args, strip, **rest):
        tried.append(strip)
        if strip > 4:
            raise torch.OutOfMemoryError
        return real(*args, strip=strip, **rest)

    monkeypatch.setattr(restore_module, "stream", limited)
    image = torch.rand(1, 3, 24, 24)
    with caplog.at_level(logging.WARNING):
        restored = restore(image, small_network())
    assert tried == [24, 12, 6, 3]
    assert "strips of 3 rows" in caplog.text
    monkeypatch.setattr(restore_module, "stream", real)
    torch.testing.assert_close(restored, restore(image, small_network()), rtol=0, atol=1e-5)
    with pytest.raises(BIRError, match="memory for the picture, but it ran out"):
        monkeypatch.setattr(restore_module, "stream", limited)
        restore(image, small_network(), strip=5)


def test_other_errors_are_not_taken_for_lack_of_memory():
    calls = []

    def fail(done, total):
        calls.append(done)
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        restore(torch.rand(1, 3, 9, 9), small_network(), callback=fail)
    assert calls == [1]


def test_callback_reaches_the_end():
    calls = []
    restore(torch.rand(1, 3, 9, 9), small_network(), callback=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] == len(calls)


def bad_calls():
    image = torch.rand(1, 3, 16, 16)
    nan = image.clone()
    nan[0, 0, 0, 0] = float("nan")
    mask = torch.ones(1, 1, 16, 16)
    deblur, inpainting = small_network(), small_network("inpainting")
    stage_1 = DiffIRStage1(deblur.config)
    return {
        "stage 1": ((image, stage_1), {}, "needs a DiffIR stage 2, but a DiffIRStage1"),
        "channels": ((image[:, :1], deblur), {}, r"\(1, 1, 16, 16\)"),
        "integers": ((image.mul(255).byte(), deblur), {}, "torch.uint8"),
        "no pixels": ((image[:, :, :0], deblur), {}, r"\(1, 3, 0, 16\)"),
        "nan": ((nan, deblur), {}, "The image should hold finite numbers"),
        "mask for deblur": ((image, deblur), {"mask": mask}, "takes no mask"),
        "no mask": ((image, inpainting), {}, "expects a mask, but none came"),
        "size of mask": ((image, inpainting), {"mask": mask[..., 1:]}, r"\(1, 1, 16, 15\) came"),
        "nan in mask": ((image, inpainting), {"mask": mask * nan[:, :1]}, "The mask should hold"),
        "noise": ((image, deblur), {"noise": torch.rand(2, 256)}, r"\(2, 256\) came"),
        "strip": ((image, deblur), {"strip": 0}, "at least 1 row, but 0 came"),
    }


@pytest.mark.parametrize("case", list(bad_calls()))
def test_bad_input_is_one_sentence(case):
    args, options, message = bad_calls()[case]
    with pytest.raises(BIRError, match=message) as caught:
        restore(*args, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", sorted(OFFICIAL_CONFIGS))
def test_planned_strip(variant):
    config = OFFICIAL_CONFIGS[variant]

    def plan(free, device="cuda", side=2048, dtype=torch.float32, batch=1):
        return diffir_strips(config, side, side, batch, device).rows(free, dtype)

    unlimited = plan(10**15)
    assert unlimited > plan(10**15, "cpu") >= 4
    assert plan(10**15, side=config.size_multiple) == 8  # never more than there is
    frees = [2**exponent for exponent in range(24, 40)]
    plans = [plan(free) for free in frees]
    assert plans == sorted(plans)
    assert plans[0] == 1  # not even one strip fits: try the smallest
    tight = frees[plans.index(1) + plans.count(1)]
    assert plan(tight) < unlimited
    assert plan(tight, dtype=torch.float16) > plan(tight) >= plan(tight, batch=8)


@pytest.mark.parametrize("name", ["realsr_x4", "realsr_x1", "deblur", "inpainting"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [(8, 8), (704, 1280), (2176, 3840)])
def test_required_memory_is_enough_for_the_fastest_strips(name, device, size):
    config = OFFICIAL_CONFIGS[name]
    needs = diffir_strips(config, *padded(config, *size), device_type=device)
    required = needs.free_for(None, torch.float16)

    def plan(free):
        return needs.rows(free, torch.float16)

    assert plan(required) == plan(2**60)
    assert plan(required // 4) < plan(2**60) or plan(2**60) == 1
