"""Restoring by strips against the plain network, and what is refused."""

import logging
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SPLIT_NETWORK

import bir_core
from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.compact.memory_plan import compact_strips
from bir_core.compact.restore import restore_compact, stream
from bir_core.diffbir.restoration_modules import in_strips
from bir_core.errors import BIRError
from bir_core.memory import weight_bytes
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

restore_module = import_module("bir_core.compact.restore")


def small_network(scale=2, features=6, layers=3):
    network = CompactRestorer(CompactConfig(scale=scale, features=features, layers=layers))
    generator = torch.Generator().manual_seed(3)
    draw_near_identity(network.eval().requires_grad_(False), generator)
    for name, value in network.named_parameters():
        if value.dim() == 1:  # biases, and a slope of its own for each channel
            value.uniform_(0.0, 0.3 if name.endswith("weight") else 0.05, generator=generator)
    return network


def picture(height, width, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=60)
@given(
    scale=st.integers(1, 4),
    layers=st.integers(1, 5),
    batch=st.integers(1, 3),
    height=st.integers(1, 24),
    width=st.integers(1, 20),
    strip=st.integers(1, 30),
)
def test_equals_the_plain_network(scale, layers, batch, height, width, strip):
    network = small_network(scale, layers=layers)
    image = picture(height, width, batch)
    whole = network(image)
    streamed = stream(network, image, strip=strip)
    assert float((streamed - whole).abs().max()) < SPLIT_NETWORK * float(whole.abs().max())
    restored = restore_compact(image, network, strip=strip)
    torch.testing.assert_close(restored, streamed.clamp(0, 1), rtol=0, atol=0)


def test_grey_stays_grey():
    network, image = small_network(), picture(9, 7, batch=2)
    image[0] = image[0, :1].clone()
    grey, coloured = restore_compact(image, network)
    assert torch.equal(grey, grey[:1].expand(3, -1, -1)) and grey.std() > 0.01
    assert torch.equal(coloured, restore_compact(image[1:], network)[0])
    assert not torch.equal(coloured, coloured[:1].expand(3, -1, -1))


def test_restore_of_the_package_takes_it():
    network, image = small_network(), picture(9, 7, batch=2)
    restored = bir_core.restore(image, network, seed=5)
    assert torch.equal(restored, restore_compact(image, network))
    assert torch.equal(restored[1:], restore_compact(image[1:], network))
    assert restored.shape == (2, 3, 18, 14) and restored.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(dtype):
    image = picture(24, 24)
    half = restore_compact(image, small_network().to(dtype))
    assert half.dtype == torch.float32
    assert 0 < (half - restore_compact(image, small_network())).abs().max() < 0.05


def test_overflow_in_half_precision_is_repeated_in_float32(caplog):
    network = small_network()
    network.body[0].weight.fill_(60000)
    network, image = network.half(), picture(8, 8)
    with caplog.at_level(logging.WARNING):
        restored = restore_compact(image, network)
    assert "repeating in float32" in caplog.text
    assert network.body[0].weight.dtype == torch.float16
    assert torch.equal(restored, restore_compact(image, network.float()))


def test_out_of_memory_halves_the_strip(monkeypatch):
    tried, real = [], restore_module.stream

    def limited(*args, strip, **rest):
        tried.append(strip)
        if strip > 4:
            raise torch.OutOfMemoryError
        return real(*args, strip=strip, **rest)

    monkeypatch.setattr(restore_module, "stream", limited)
    image, network = picture(24, 24), small_network()
    restored = restore_compact(image, network)
    assert tried == [24, 12, 6, 3]
    monkeypatch.undo()
    torch.testing.assert_close(restored, restore_compact(image, network), rtol=0, atol=1e-5)


def test_callback_counts_strips_and_may_cancel():
    calls = []
    network, image = small_network(), picture(9, 9, batch=2)
    restore_compact(image, network, strip=4, callback=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(1, 7)]

    def cancel(done, total):
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        restore_compact(image, network, callback=cancel)


def test_memory_is_what_the_plan_says():
    network, image = small_network(scale=4, features=24, layers=8), picture(96, 128)
    for strip in (4, 32):
        _, peak = peak_tensors_of(lambda strip=strip: restore_compact(image, network, strip=strip))
        estimate = compact_strips(network.config, 96, 128).needed(strip, torch.float32)
        assert 0.5 * estimate < peak <= estimate, (strip, peak, estimate)


@given(st.integers(10**6, 10**10))
def test_planned_strips(memory):
    needs = compact_strips(CompactConfig(scale=4), 999, 640)
    plan = needs.plan(10**6, memory, torch.float32)
    assert plan.fits or plan.stages[0].rows == 1
    assert needs.rows(needs.free_for(None, torch.float32), torch.float32) == needs.fastest
    assert needs.rows(2**60, torch.float32) == needs.fastest


def test_as_stage_1_it_takes_strips():
    network = small_network(scale=4)
    module = in_strips(network)
    assert (module.scale, module.name, module.network) == (4, "compact", network)
    image = picture(30, 20)
    assert torch.equal(module.restore(image), restore_compact(image, network))
    needs = module.strips(500, 400, 1, "cpu")
    plenty, little = (needs.rows(free, torch.float32) for free in (2**40, 2**20))
    assert plenty > little == 1
    assert needs.needed(plenty, torch.float32) > needs.needed(1, torch.float32)
    assert needs.needed(1, torch.float32) > weight_bytes(network)


def bad_calls():
    image, network = picture(8, 8), small_network()
    config = DiffIRConfig(task="deblur", dim=8, num_blocks=(1, 1, 1, 1), n_encoder_res=1)
    nan = torch.full_like(image, float("nan"))
    broken = small_network()
    broken.body[0].bias[0] = float("nan")
    return {
        "model": (restore_compact, (image, DiffIRStage2(config)), {}, "a DiffIRStage2 came"),
        "any model": (bir_core.restore, (image, torch.nn.Identity()), {}, "an? Identity came"),
        "mask": (bir_core.restore, (image, network), {"mask": image[:, :1]}, "a mask came"),
        "noise": (bir_core.restore, (image, network), {"noise": image}, "a noise came"),
        "channels": (restore_compact, (image[:, :1], network), {}, r"\(1, 1, 8, 8\)"),
        "nan": (restore_compact, (nan, network), {}, "The image should hold finite"),
        "weights": (restore_compact, (image, broken), {}, "The restored image should hold finite"),
        "strip": (restore_compact, (image, network), {"strip": 0}, "at least 1 row, but 0 came"),
    }


@pytest.mark.parametrize("case", list(bad_calls()))
def test_bad_input_is_one_sentence(case):
    call, args, options, message = bad_calls()[case]
    with pytest.raises(BIRError, match=message) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
