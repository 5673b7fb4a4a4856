"""SwinIR against numbers of the official code, and at sizes that the official code refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_rule_check, fill_by_rule_w, load_vectors, swinir_settings

from bir_core.checkpoints import save_checkpoint
from bir_core.errors import BIRError
from bir_core.images import pad_to_multiple
from bir_core.networks.swinir import (
    SwinIR,
    SwinIRConfig,
    SwinLayer,
    kept_branches,
    relative_position_index,
    shift_mask,
)


def small_config(**changes):
    sizes = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2)}
    return SwinIRConfig(**{**sizes, **changes})


def random_network(**changes):
    torch.manual_seed(0)
    return SwinIR(small_config(**changes)).eval()


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_output_equals_official():
    vectors, metadata = load_vectors("diffbir_swinir_tiny")
    network = SwinIR(SwinIRConfig(**swinir_settings(metadata["config"]))).eval()
    check = fill_by_rule_w(network, int(metadata["rule_base"]))
    assert_rule_check(check, metadata["rule_check"])
    out = network(vectors["in1"])
    assert out.shape == vectors["in1"].shape
    torch.testing.assert_close(out[..., ::2, ::2], vectors["out1_sub2"], rtol=0, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 140), width=st.integers(1, 140))
@torch.no_grad()
def test_any_size_is_the_reflected_picture_cropped(height, width):
    network, image = random_network(), picture(1, 3, height, width)
    out = network(image)
    assert out.shape == image.shape
    expected = network(pad_to_multiple(image, 64))[..., :height, :width]
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (40, 8)])
def test_mask_separates_what_the_shift_brought_together(height, width):
    window, shift = 8, 4
    row = torch.arange(height)[:, None].expand(height, width)
    column = torch.arange(width)[None, :].expand(height, width)
    wrapped = 2 * (row + shift >= height) + (column + shift >= width)
    mask = shift_mask(height, width, window, shift)
    windows = []
    for top in range(0, height, window):
        for left in range(0, width, window):
            side = wrapped[top : top + window, left : left + window].flatten()
            windows.append(torch.where(side[:, None] == side[None, :], 0.0, -100.0))
    assert torch.equal(mask, torch.stack(windows))


def test_relative_positions_of_a_small_window():
    # pixels (0,0) (0,1) (1,0) (1,1); row of the 3 x 3 table: 3 * (dy + 1) + (dx + 1)
    expected = torch.tensor([[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    assert torch.equal(relative_position_index(2), expected)


def test_tables_equal_those_of_the_published_file():
    tables = random_network().published_tables()
    assert len(tables) == 6
    index = tables["layers.1.residual_group.blocks.0.attn.relative_position_index"]
    assert index.dtype == torch.int64 and index.shape == (64, 64)
    assert tables["layers.1.residual_group.blocks.1.attn_mask"].shape == (64, 64, 64)


@pytest.mark.parametrize("changes", [{}, {"unshuffle": 1, "upsample": 4}])
@torch.no_grad()
def test_a_saved_file_gives_the_same_picture_through_spandrel(tmp_path, changes):
    spandrel = pytest.importorskip("spandrel")
    network = random_network(**changes)
    save_checkpoint(network, tmp_path / "model.safetensors")
    loaded = spandrel.ModelLoader().load_from_file(tmp_path / "model.safetensors").eval()
    assert loaded.architecture.id == "SwinIR"
    assert loaded.scale == network.config.scale
    image = picture(1, 3, 64, 128)
    torch.testing.assert_close(network(image), loaded.model(image), rtol=0, atol=3e-5)


def test_stochastic_depth_grows_linearly_and_keeps_the_mean():
    config = small_config(drop_path=0.3)
    kept = kept_branches(config, 5000, torch.Generator().manual_seed(0))
    assert kept.shape == (4, 2, 5000)
    for layer, rate in enumerate((0, 0.1, 0.2, 0.3)):
        assert kept[layer].max() == pytest.approx(1 / (1 - rate))
        dropped = (kept[layer] == 0).float().mean(dim=1)
        assert dropped.tolist() == pytest.approx([rate, rate], abs=0.02)


@torch.no_grad()
def test_a_skipped_layer_is_not_there():
    layer = SwinLayer(small_config(), 2, shift=0).requires_grad_(False)
    x, index = torch.randn(3, 8, 8, 12), relative_position_index(8)
    mask = shift_mask(8, 8, 8, 4)
    whole = layer(x, index, mask)
    # image 0 keeps both branches, image 1 none, image 2 doubles that of the MLP alone
    kept = torch.tensor([[1.0, 0, 0], [1, 0, 2]])
    got = layer(x, index, mask, kept)
    torch.testing.assert_close(got[0], whole[0])
    assert torch.equal(got[1], x[1])
    torch.testing.assert_close(got[2], x[2] + 2 * layer.mlp(layer.norm2(x[2])))


@torch.no_grad()
def test_a_generator_skips_branches_and_nothing_else_does():
    torch.manual_seed(0)
    network, image = SwinIR(small_config(drop_path=0.5)), picture(4, 3, 64, 64)
    state = torch.get_rng_state()
    first, again, other = (
        network(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(network.train()(image), network.eval()(image))
    assert torch.equal(state, torch.get_rng_state())


def test_checkpointing_recomputes_and_keeps_the_gradients():
    network, image = random_network(drop_path=0.5), picture(2, 3, 64, 64)
    gradients, counts = [], []
    for network.checkpoint in (False, True):
        calls = []
        hook = network.layers[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        network.zero_grad()
        network(image, torch.Generator().manual_seed(3)).square().sum().backward()
        hook.remove()
        counts.append(len(calls))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert counts == [1, 2]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_wrong_input_is_said():
    with pytest.raises(BIRError, match="convert it to RGB"):
        random_network()(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize(
    "changes",
    [
        {"upsample": 3},
        {"upsample": 4},
        {"num_heads": (2,)},
        {"num_heads": (2, 5)},
        {"drop_path": 1.0},
    ],
)
def test_impossible_configuration_is_said(changes):
    with pytest.raises(BIRError, match="should"):
        small_config(**changes)
