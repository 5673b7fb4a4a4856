"""Streamed inference against the plain network and the numbers of the official code."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import DATA, config_from_metadata, fill_by_rule, load_vectors
from tolerances import SPLIT_NETWORK
from torch.utils._python_dispatch import TorchDispatchMode

from bir_core.diffir.row_strips import Conv3x3, pixel_shuffle, shuffled_first, write_unshuffled
from bir_core.diffir.streaming import stream
from bir_core.diffir.streaming_blocks import _block, _whole_block, stream_blocks
from bir_core.errors import BIRError
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.diffir_prior import draw_noise
from bir_core.tiling import Progress

NETS = sorted(path.stem for path in DATA.glob("diffir_net_*.safetensors") if "odd" not in path.stem)
KINDS = (("sr", 4), ("sr", 2), ("sr", 1), ("deblur", 1), ("inpainting", 1))


def small_network(kind=("deblur", 1), **changes):
    sizes = {
        "dim": 8,
        "num_blocks": (1, 2, 1, 1),
        "num_refinement_blocks": 1,
        "ffn_expansion_factor": 1.7,
        "n_encoder_res": 2,
    }
    config = DiffIRConfig(task=kind[0], scale=kind[1], **{**sizes, **changes})
    network = DiffIRStage2(config).eval().requires_grad_(False)
    fill_by_rule(network, 7)  # biases and norms are random too
    return network


def picture(config, batch, rows, columns, seed=0):
    """An image of rows x columns units of the smallest size."""
    shape = (batch, config.in_channels, rows * config.size_multiple, columns * config.size_multiple)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(ours, reference):
    return float((ours - reference).abs().max() / reference.abs().max())


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    layer_norm=st.sampled_from(("BiasFree", "WithBias")),
    bias=st.booleans(),
    batch=st.integers(1, 3),
    rows=st.integers(1, 4),
    columns=st.integers(1, 3),
    strip=st.integers(1, 40),
)
def test_equals_the_plain_network(kind, layer_norm, bias, batch, rows, columns, strip):
    network = small_network(kind, layer_norm=layer_norm, bias=bias)
    lq = picture(network.config, batch, rows, columns)
    noise = draw_noise(batch, 0)
    streamed = stream(network, lq, noise, strip=strip)
    assert relative_error(streamed, network(lq, noise)) < SPLIT_NETWORK


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("strip", [1, 5])
def test_equals_the_official_network(name, strip):
    vectors, metadata = load_vectors(name)
    network = DiffIRStage2(DiffIRConfig(**config_from_metadata(metadata, 2)))
    fill_by_rule(network, int(metadata["s2_seed0"]))
    streamed = stream(network, vectors["input"], vectors["s2_noise"], strip=strip)
    assert streamed.shape == vectors["s2_out"].shape
    assert relative_error(streamed, vectors["s2_out"]) < 1e-4


def test_an_image_does_not_depend_on_its_batch():
    network = small_network()
    lq = picture(network.config, 3, 2, 3)
    noise = draw_noise(3, 0)
    together = stream(network, lq, noise, strip=5)
    for index in range(3):
        alone = stream(network, lq[index : index + 1], noise[index : index + 1], strip=5)
        assert torch.equal(together[index : index + 1], alone)


def test_black_image_without_biases():
    # q and k are zero then, and only the floor of their norms keeps the attention finite.
    network = small_network(layer_norm="BiasFree")
    for name, parameter in network.named_parameters():
        if name.endswith("attn.kernel.0.weight"):
            parameter.zero_()
    lq = torch.zeros(1, 3, 16, 16)
    noise = draw_noise(1, 0)
    streamed = stream(network, lq, noise, strip=3)
    assert relative_error(streamed, network(lq, noise)) < SPLIT_NETWORK


@pytest.mark.parametrize(
    # float64 is no better than this because Gram matrices add up in float32 on every dtype
    ("dtype", "tolerance"),
    [(torch.float64, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
)
def test_other_dtypes_with_float32_weights(dtype, tolerance):
    torch.manual_seed(0)
    network = DiffIRStage2(small_network().config).requires_grad_(
        False
    )  # torch's own start: numbers of medium size
    lq = picture(network.config, 1, 2, 2)
    noise = draw_noise(1, 0)
    streamed = stream(network, lq.to(dtype), noise, strip=4)
    assert streamed.dtype == dtype
    reference = network.double()(lq.double(), noise.double())
    assert relative_error(streamed.double(), reference) < tolerance


def test_leaves_the_weights_and_the_image_alone():
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lq = picture(network.config, 1, 2, 2)
    kept = lq.clone()
    stream(network, lq, draw_noise(1, 0), strip=4)
    assert torch.equal(lq, kept)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strip", [1, 3, 100])
def test_progress_counts_every_strip(kind, strip):
    network = small_network(kind)
    calls = []
    lq = picture(network.config, 2, 2, 1)
    stream(network, lq, draw_noise(2, 0), strip=strip, callback=lambda *call: calls.append(call))
    total = calls[0][1]
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert total >= 2 * 2 * (1 + 2 + 1 + 1)


def test_callback_cancels():
    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done == 7:
            raise Cancelled

    network = small_network()
    with pytest.raises(Cancelled):
        stream(
            network, picture(network.config, 1, 2, 2), draw_noise(1, 0), strip=4, callback=cancel
        )


@pytest.mark.parametrize(
    ("name", "part"), [("condition.E.0.weight", "prior"), ("G.output.weight", "DIRformer")]
)
def test_names_the_part_that_gives_nan(name, part):
    network = small_network()
    network.get_parameter(name).view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match=part):
        stream(network, picture(network.config, 1, 2, 2), draw_noise(1, 0), strip=4)


def test_refuses_other_sizes():
    network = small_network()
    with pytest.raises(BIRError, match="divide by 8"):
        stream(network, torch.rand(1, 3, 12, 16), draw_noise(1, 0), strip=4)


def test_runs_under_autograd_without_recording():
    network = small_network().requires_grad_(True)
    lq = picture(network.config, 1, 1, 1).requires_grad_(True)
    assert not stream(network, lq, draw_noise(1, 0), strip=4).requires_grad


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 5), min_size=12, max_size=12),
    groups=st.sampled_from((1, 4)),
)
def test_conv3x3_of_strips_equals_that_of_the_map(height, width, cuts, groups):
    rows = torch.randn(height, width, 4)
    weight, bias = torch.randn(8, 4 // groups, 3, 3), torch.randn(8)
    conv = Conv3x3(height, weight, bias, groups=groups)
    top, parts = 0, []
    for cut in cuts:
        if top < height:
            parts.append(conv(rows[top : top + cut]))
            top += cut
    image = rows.permute(2, 0, 1)[None]
    whole = torch.nn.functional.conv2d(image, weight, bias, padding=1, groups=groups)
    # Sums of 37 products of normal numbers, 6 in size and 30 at most, err by some EPS of that.
    torch.testing.assert_close(torch.cat(parts), whole[0].permute(1, 2, 0), rtol=0, atol=5e-5)


def test_shuffles_equal_those_of_torch():
    image = torch.randn(1, 8, 3, 5)
    rows = image[0].permute(1, 2, 0)
    ours = pixel_shuffle(shuffled_first(rows.permute(2, 0, 1)).permute(1, 2, 0))
    theirs = torch.nn.functional.pixel_shuffle(image, 2)[0].permute(1, 2, 0)
    assert torch.equal(ours, theirs)
    target = torch.empty(3, 5, 8)
    for top, end in ((0, 1), (1, 4), (4, 6)):
        write_unshuffled(target, top, theirs[top:end])
    assert torch.equal(target, rows)


class Operations(TorchDispatchMode):
    """Counts them."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer_norm", ["BiasFree", "WithBias"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_map_that_one_strip_covers_takes_fewer_operations(layer_norm, bias):
    """As devices run it; equal to the block in parts."""
    block = small_network(layer_norm=layer_norm, bias=bias).G.encoder_level1[0]
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(shape, generator=generator) for shape in ((9, 7, 8), (1, 256)))
    in_parts, whole = x.clone(), x.clone()
    with torch.no_grad():
        with Operations() as of_parts:
            _block(in_parts, block, z, 9, Progress(2, None))
        with Operations() as of_whole:
            _whole_block(whole, block, z)
    assert of_whole.count < of_parts.count
    assert relative_error(whole, in_parts) < 1e-5


def test_a_device_takes_a_block_whole_where_one_strip_covers_its_map():
    blocks = small_network().G.encoder_level1.to("meta")
    counts = []
    for strip in (9, 8):
        progress = Progress(0, None)
        x, z = torch.zeros(9, 7, 8, device="meta"), torch.zeros(1, 256, device="meta")
        with torch.no_grad(), Operations() as operations:
            stream_blocks(x, blocks, z, strip, progress)
        assert progress.done == 2 * -(-9 // strip) * len(blocks)
        counts.append(operations.count)
    assert counts[0] < counts[1] / 2
