"""Stage 1: sizes and order as in the official code, tiles, and what happens without memory."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import fill_by_rule_w, load_vectors, swinir_settings
from torch.nn import functional as F

from bir_core.diffbir.stage1 import (
    restore_stage1,
    stage1_sizes,
    with_short_side,
)
from bir_core.diffbir.versions import official_order
from bir_core.errors import BIRError
from bir_core.images import from_channels_last
from bir_core.networks.swinir import SwinIR, SwinIRConfig


class WeightsOnly:
    """State dict of a network that is not here, to be filled by the rule of the vectors."""

    def __init__(self, shapes):
        self.weights = {name: torch.empty(shape) for name, shape in shapes.items()}

    def state_dict(self):
        return self.weights


def rrdbnet_shapes(nf, nb, gc):
    shapes = {"conv_first": (3, nf), "conv_last": (nf, 3)}
    shapes |= dict.fromkeys(("trunk_conv", "upconv1", "upconv2", "HRconv"), (nf, nf))
    for block in range(nb):
        for dense in (1, 2, 3):
            for conv in range(1, 6):
                channels = (nf + (conv - 1) * gc, nf if conv == 5 else gc)
                shapes[f"RRDB_trunk.{block}.RDB{dense}.conv{conv}"] = channels
    weights = {f"{name}.weight": (out, into, 3, 3) for name, (into, out) in shapes.items()}
    return weights | {f"{name}.bias": (out,) for name, (_, out) in shapes.items()}


def rrdbnet(weights, blocks):
    """BSRNet (Zhang et al. 2021) in a small size, which spandrel cannot load."""

    def conv(name, x):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def dense(name, x):
        maps = [x]
        for index in range(1, 5):
            new = conv(f"{name}.conv{index}", torch.cat(maps, dim=1))
            maps.append(F.leaky_relu(new, 0.2))
        return x + 0.2 * conv(f"{name}.conv5", torch.cat(maps, dim=1))

    def forward(image):
        first = x = conv("conv_first", image)
        for block in range(blocks):
            y = x
            for index in (1, 2, 3):
                y = dense(f"RRDB_trunk.{block}.RDB{index}", y)
            x = x + 0.2 * y
        x = first + conv("trunk_conv", x)
        for name in ("upconv1", "upconv2"):
            x = F.leaky_relu(conv(name, F.interpolate(x, scale_factor=2)), 0.2)
        return conv("conv_last", F.leaky_relu(conv("HRconv", x), 0.2))

    return forward


def official_condition(vectors, name):
    image = from_channels_last(vectors[f"{name}.lq"][None].float() / 255)
    return image, vectors[f"{name}.condition_sub8"]


@torch.no_grad()
def test_swinir_order_equals_official():
    vectors, metadata = load_vectors("diffbir_stage1")
    network = SwinIR(SwinIRConfig(**swinir_settings(metadata["config_swinir"]))).eval()
    fill_by_rule_w(network, int(metadata["rule_base_swinir"]))
    image, official = official_condition(vectors, "swinir")
    order = official_order("sr", "v2.1")
    sizes = stage1_sizes(*image.shape[-2:], order)
    assert sizes.network == sizes.condition == (602, 512)
    condition = restore_stage1(image, network, order, sizes, padding="black")
    torch.testing.assert_close(condition[..., ::8, ::8], official, rtol=0, atol=2e-5)
    reflected = restore_stage1(image, network, order, sizes)
    assert (reflected - condition).abs().max() > 1e-3


@torch.no_grad()
def test_bsrnet_order_equals_official():
    vectors, metadata = load_vectors("diffbir_stage1")
    config = json.loads(metadata["config_bsrnet"])
    state = WeightsOnly(rrdbnet_shapes(config["nf"], config["nb"], config["gc"]))
    fill_by_rule_w(state, int(metadata["rule_base_bsrnet"]))
    state.weights["conv_last.weight"] *= 0.25
    state.weights["conv_last.bias"] += 0.5
    network = rrdbnet(state.weights, config["nb"])
    image, official = official_condition(vectors, "bsr")
    order = official_order("sr", "v2")
    sizes = stage1_sizes(*image.shape[-2:], order, 4.0)
    assert sizes.network == (64, 80)
    assert sizes.output == (256, 320)
    assert sizes.condition == (512, 640)
    condition = restore_stage1(image, network, order, sizes, scale=4)
    torch.testing.assert_close(condition[..., ::8, ::8], official, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("task", "version", "order"),
    [
        ("sr", "v1", "enlarge_first"),
        ("sr", "v2", "network_enlarges"),
        ("sr", "v2.1", "enlarge_first"),
        ("denoise", "v1", "enlarge_first"),
        ("denoise", "v2", "restore_first"),
        ("denoise", "v2.1", "enlarge_first"),
        ("face", "v1", "enlarge_first"),
        ("face", "v2", "enlarge_first"),
        ("face", "v2.1", "enlarge_first"),
    ],
)
def test_order_of_every_task_and_version(task, version, order):
    assert official_order(task, version) == order


def test_sizes_of_each_order():
    # 101 x 67 times 2 is 202 x 134; the short side to 512 makes int(202 * 512 / 134) = 771.
    for order, network in [
        ("enlarge_first", (771, 512)),
        ("restore_first", (202, 134)),
        ("network_enlarges", (101, 67)),
    ]:
        sizes = stage1_sizes(101, 67, order, 2.0)
        assert (sizes.network, sizes.condition, sizes.output) == (network, (771, 512), (202, 134))
    unbound = stage1_sizes(101, 67, "enlarge_first", 2.0, short_side=0)
    assert unbound.network == unbound.condition == (202, 134)
    assert stage1_sizes(600, 700, "enlarge_first").condition == (600, 700)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_short_side_is_reached_and_proportions_kept(height, width):
    if max(height, width) * 512 / min(height, width) > 16384:
        with pytest.raises(BIRError):
            with_short_side((height, width), 512)
        return
    new = with_short_side((height, width), 512)
    assert min(new) == max(512, min(height, width))
    assert abs(new[0] * width - new[1] * height) <= max(height, width) + 1e-9


def test_long_thin_picture_is_said():
    with pytest.raises(BIRError) as caught:
        stage1_sizes(1, 5000, "enlarge_first")
    assert "512 x 2560000" in str(caught.value)
    assert "set the short side to 0" in str(caught.value)
    assert stage1_sizes(1, 5000, "enlarge_first", short_side=0).condition == (1, 5000)


def test_factor_that_leaves_nothing_is_said():
    with pytest.raises(BIRError, match="larger factor"):
        stage1_sizes(3, 100, "enlarge_first", 0.25)


class Blur:
    """A local network that only takes sides in multiples of 64, with a limit of memory."""

    def __init__(self, largest=10**9, error=torch.OutOfMemoryError):
        self.largest, self.error, self.sides = largest, error, []

    def __call__(self, x):
        assert x.shape[-2] % 64 == x.shape[-1] % 64 == 0
        if max(x.shape[-2:]) > self.largest:
            raise self.error("out of memory: could not allocate")
        self.sides.append(max(x.shape[-2:]))
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def stage1(image, network, **options):
    sizes = stage1_sizes(*image.shape[-2:], "enlarge_first", short_side=0)
    return restore_stage1(image, network, "enlarge_first", sizes, **options)


def picture(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300), (200, 330)])
def test_any_size_in_tiles_equals_the_whole(size):
    image = picture(*size)
    whole = stage1(image, Blur())
    assert whole.shape == image.shape
    # The border of a tile is blended away but where the picture's own padding lies.
    tiled = stage1(image, Blur(), tile=128, overlap=64)
    assert (tiled - whole).abs().max() < 0.05


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_smaller_tiles_when_the_memory_does_not_do(error, caplog):
    image = picture(300, 200)
    network = Blur(largest=128, error=error)
    restored = stage1(image, network)
    assert caplog.text.count("Out of memory") == 1
    assert max(network.sides) == 128
    assert "tiles of 128 pixels" in caplog.text
    assert (restored - stage1(image, Blur())).abs().max() < 0.05


def test_later_tiles_start_at_the_size_that_fitted(caplog):
    image = picture(512, 256)
    network = Blur(largest=64)
    stage1(image, network, tile=256, overlap=64)
    said = [f"tiles of {side} pixels" in caplog.text for side in (128, 64)]
    assert said == [True, True] and caplog.text.count("Out of memory") == 2
    assert set(network.sides) == {64}


def test_no_memory_at_all_is_one_sentence():
    with pytest.raises(BIRError, match="64 pixels") as caught:
        stage1(picture(100, 100), Blur(largest=32))
    assert str(caught.value).count(". ") == 0


def test_other_errors_are_not_taken_for_missing_memory():
    def broken(x):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        stage1(picture(100, 100), broken)


def test_progress_counts_tiles_and_cancels():
    steps = []
    stage1(picture(128, 192), Blur(), tile=64, overlap=32, callback=lambda *at: steps.append(at))
    assert steps == [(done, 15) for done in range(1, 16)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        stage1(picture(128, 192), Blur(), tile=64, callback=cancel)


def test_damaged_result_is_said():
    with pytest.raises(BIRError, match="stage 1"):
        stage1(picture(64, 64), lambda x: x * float("nan"))


def test_wrong_tile_is_said():
    with pytest.raises(BIRError, match="choose 128"):
        stage1(picture(64, 64), Blur(), tile=100)
