"""Second tries: what is tried next, what is said, and what is not swallowed."""

import pytest
import torch
from torch import nn

from bir_core.errors import BIRError
from bir_core.fallbacks import finite, in_fitting_tiles, whole_or_in_tiles


def without_memory():
    raise torch.OutOfMemoryError("out of memory")


def fits_up_to(tile, batch, tried):
    """A sampling with memory for so much, on a picture of 1000 pixels."""

    def sample(side, tile_batch):
        tried.append((side, tile_batch))
        if (side or 1000) > tile or tile_batch > batch:
            without_memory()
        return torch.tensor([side, tile_batch])

    return sample


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ((512, 8), [(512, 8), (512, 4), (512, 2), (512, 1), (256, 1), (128, 1)]),
        ((0, 1), [(0, 1), (448, 1), (192, 1), (64, 1)]),
        ((2048, 1), [(2048, 1), (448, 1), (192, 1), (64, 1)]),
        ((128, 1), [(128, 1)]),
    ],
)
def test_fewer_tiles_then_smaller_ones(first, expected, caplog):
    tried = []
    result = in_fitting_tiles(fits_up_to(128, 1, tried), 1000, *first)
    assert tried == expected
    assert result.tolist() == list(expected[-1])
    assert caplog.text.count("Out of memory: sampling again") == len(expected) - 1


def test_not_even_the_smallest_tile():
    with pytest.raises(BIRError, match="a tile of 64 pixels"):
        in_fitting_tiles(fits_up_to(0, 0, []), 1000, 512, 4)


def test_the_whole_first_and_then_tiles(caplog):
    def tiled(side):
        return torch.tensor(side)

    assert whole_or_in_tiles(0, lambda: torch.tensor(1), tiled, 512) == 1
    assert whole_or_in_tiles(64, without_memory, tiled, 512) == 64
    assert caplog.text == ""
    assert whole_or_in_tiles(0, without_memory, tiled, 512) == 512
    assert "VAE tiles of 512" in caplog.text


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(*_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_fitting_tiles(broken, 1000, 512, 4)
    with pytest.raises(RuntimeError, match="shapes"):
        whole_or_in_tiles(0, broken, broken, 512)


def test_half_precision_is_widened_and_comes_back(caplog):
    network = nn.Linear(2, 2, dtype=torch.float16)
    weight = network.weight.clone()

    def run():
        return torch.tensor(1.0 if network.weight.dtype == torch.float32 else float("inf"))

    assert finite("The thing", run, [network]) == 1
    assert "The thing is not finite in torch.float16: repeating in float32" in caplog.text
    assert torch.equal(network.weight, weight)
    with pytest.raises(BIRError, match="The thing"):
        finite("The thing", lambda: torch.tensor(float("nan")), [network])
    assert network.weight.dtype == torch.float16
