import math

import pytest
import torch
from finders import bright_finder, small_finder
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.errors import BIRError
from bir_core.estimate.scratches import (
    damage_mask,
    find_damage,
    grown,
    load_finder,
    shown_damage,
    working_bytes,
)
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.networks.damage import DamageFinder


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25)
@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.sampled_from([24, 64, 512]))
def test_any_size_gives_a_mask_of_that_size(height, width, tile):
    image = 0.8 * picture(2, 3, height, width, seed=height * width)
    image[:, :, height // 2, width // 3] = 1
    probability = find_damage(image, bright_finder(), tile=tile)
    assert probability.shape == (2, 1, height, width) and probability.dtype == torch.float32
    # 0.5 is where the mean of the colours is 0.9.
    assert torch.equal(probability >= 0.5, image.mean(1, keepdim=True) >= 0.9)


def test_tiles_of_a_large_picture_join():
    image = picture(1, 3, 150, 230)
    whole, tiled = (find_damage(image, bright_finder(), tile=tile) for tile in (512, 64))
    assert torch.allclose(whole, tiled, atol=1e-5)


def test_a_small_picture_is_seen_as_a_whole():
    image, network = picture(1, 3, 38, 51), small_finder()
    expected = network(torch.nn.functional.pad(image, (0, 1, 0, 2), mode="reflect"))
    found = find_damage(image, network)
    assert torch.allclose(found, expected[..., :38, :51].sigmoid(), atol=1e-6)


def test_an_image_of_a_batch_is_as_if_alone():
    images, network = picture(3, 3, 40, 56), small_finder()
    together = find_damage(images, network, tile=32)
    alone = [find_damage(image[None], network, tile=32) for image in images]
    assert torch.equal(together, torch.cat(alone))


def test_the_largest_input_of_the_network_is_a_tile(monkeypatch):
    sizes = []
    forward = DamageFinder.forward

    def watched(self, image):
        sizes.append(tuple(image.shape))
        return forward(self, image)

    monkeypatch.setattr(DamageFinder, "forward", watched)
    find_damage(picture(1, 3, 700, 900), small_finder(), tile=128)
    assert len(sizes) == 7 * 10
    assert set(sizes) == {(1, 3, 128, 128)}


def test_progress_counts_tiles_of_all_images_and_may_cancel():
    calls = []
    find_damage(
        picture(2, 3, 40, 40), small_finder(), tile=32, callback=lambda *each: calls.append(each)
    )
    assert calls == [(n, 8) for n in range(1, 9)]

    def cancel(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find_damage(picture(2, 3, 40, 40), small_finder(), tile=32, callback=cancel)


def test_less_memory_gives_smaller_tiles(monkeypatch):
    forward = DamageFinder.forward

    def short(self, image):
        if image.shape[-1] > 100:
            raise MemoryError
        return forward(self, image)

    image = picture(1, 3, 160, 300)
    expected = find_damage(image, small_finder(), tile=64)
    monkeypatch.setattr(DamageFinder, "forward", short)
    assert torch.equal(find_damage(image, small_finder(), tile=256), expected)
    monkeypatch.setattr(DamageFinder, "forward", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(BIRError, match="have memory for the picture"):
        find_damage(image, small_finder())


def test_half_precision_works_on_the_weights_type():
    image = picture(1, 3, 33, 47)
    half = find_damage(image, small_finder().half())
    assert half.dtype == torch.float32
    assert float((half - find_damage(image, small_finder())).abs().max()) < 0.02


@settings(max_examples=30)
@given(radius=st.integers(0, 6), height=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_mask_grows_by_distance(radius, height, seed):
    mask = (picture(1, 1, height, 17, seed=seed) > 0.97).float()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(17), indexing="ij")
    expected = torch.zeros(height, 17)
    for row, column in mask[0, 0].nonzero().tolist():
        near = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        expected[near] = 1
    assert torch.equal(grown(mask, radius)[0, 0], expected)


def test_the_threshold_is_the_least_probability():
    probability = torch.tensor([[[[0.2, 0.5, 0.7]]]])
    assert damage_mask(probability, 0.5, 0).flatten().tolist() == [0, 1, 1]
    assert damage_mask(probability, 0.6, 0).flatten().tolist() == [0, 0, 1]
    assert damage_mask(probability, 0.7, 1).flatten().tolist() == [0, 1, 1]


@pytest.mark.parametrize("threshold, grow", [(0.0, 0), (1.1, 0), (math.nan, 0), (0.5, -1)])
def test_impossible_thresholds_are_refused(threshold, grow):
    with pytest.raises(BIRError, match="threshold above 0"):
        damage_mask(torch.zeros(1, 1, 2, 2), threshold, grow)


def test_damage_is_shown_in_red():
    image, mask = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 1, 2, 2)
    mask[..., 0, 0] = 1
    red, green, blue = shown_damage(image, mask)[0, :, 0, 0].tolist()
    assert red > 0.8 and green == blue < 0.3
    assert torch.equal(shown_damage(image, mask)[..., 1, 1], image[..., 1, 1])


def test_other_networks_and_images_are_refused():
    other = CompactRestorer(CompactConfig(scale=1, features=4, layers=1))
    with pytest.raises(BIRError, match="finds scratches, but a CompactRestorer"):
        find_damage(picture(1, 3, 8, 8), other)
    with pytest.raises(BIRError, match="tensor \\(B, 3, H, W\\)"):
        find_damage(picture(1, 1, 8, 8), small_finder())
    with pytest.raises(BIRError, match="finite"):
        find_damage(torch.full((1, 3, 8, 8), math.nan), small_finder())
    with pytest.raises(BIRError, match="finder of scratches"):
        load_finder("builtin-x1")


def test_a_large_scan_takes_little_more_than_a_tile():
    tile, scan = working_bytes(512, 512), working_bytes(5120, 5120)
    assert scan < 100 * tile / 15
    assert working_bytes(4, 4) < tile / 1000
