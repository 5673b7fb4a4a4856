"""Second tries: what is tried next, what is said, and what is not swallowed."""

import weakref

import pytest
import torch
from torch import nn

from bir_core.errors import BIRError, NotFinite, OutOfMemory
from bir_core.fallbacks import (
    enough_memory,
    finite,
    first_that_fits,
    in_fitting_strips,
    in_fitting_tiles,
    or_in_float32,
    whole_or_in_tiles,
)

KINDS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("could not create a primitive descriptor for a convolution forward primitive"),
    RuntimeError("std::bad_alloc"),
]


def without_memory():
    raise torch.OutOfMemoryError("out of memory")


def failing(error):
    def run(*_):
        raise error

    return run


@pytest.mark.parametrize("error", KINDS, ids=repr)
def test_the_next_attempt_after_any_lack_of_memory(error, caplog):
    attempts = [("first", failing(error)), ("second", failing(error)), ("third", lambda: 3)]
    assert first_that_fits(attempts, "Nothing fits.") == 3
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory: second",
        "Out of memory: third",
    ]
    with pytest.raises(OutOfMemory, match=r"^Nothing fits\.$") as caught:
        first_that_fits(attempts[:2], "Nothing fits.")
    assert caught.value.__cause__ is error
    with pytest.raises(BIRError, match=r"^Nothing fits\.$"), enough_memory("Nothing fits."):
        raise error


def test_tensors_of_a_failure_are_gone_before_the_next_attempt():
    alive = []

    def holding(kind):
        held = torch.zeros(3)
        alive.append(weakref.ref(held))
        raise kind("It should hold finite numbers.")

    def without():
        return [each() for each in alive]

    attempts = [("", lambda: holding(MemoryError)), ("", without)]
    assert first_that_fits(attempts, "Nothing fits.") == [None]
    assert or_in_float32(lambda: holding(NotFinite), without, "half precision") == [None, None]


def test_the_sentence_nearest_to_the_failure_is_said():
    def inner(strip):
        return in_fitting_strips(failing(MemoryError()), strip)

    with pytest.raises(OutOfMemory, match="a strip of 1 row") as caught:
        first_that_fits([("", lambda: inner(4)), ("", lambda: inner(2))], "Nothing fits.")
    with pytest.raises(OutOfMemory) as again, enough_memory("Nothing fits."):
        raise caught.value
    assert again.value is caught.value


def test_strips_are_halved_to_a_single_row():
    tried = []

    def run(rows):
        tried.append(rows)
        if rows > 1:
            without_memory()
        return torch.tensor(rows)

    assert in_fitting_strips(run, 7) == 1
    assert tried == [7, 3, 1]


def test_what_is_no_lack_of_memory_passes():
    for error in (RuntimeError("shapes do not match"), KeyboardInterrupt(), BIRError("A sentence")):
        with pytest.raises(type(error)) as caught, enough_memory("Nothing fits."):
            raise error
        assert caught.value is error
        with pytest.raises(type(error)):
            first_that_fits([("", failing(error)), ("", lambda: 1)], "Nothing fits.")


def test_float32_is_tried_only_from_less(caplog):
    def overflow():
        raise NotFinite("The thing should hold finite numbers.", "The thing")

    assert or_in_float32(overflow, lambda: 32, torch.float16) == 32
    assert caplog.messages == ["The thing is not finite in torch.float16: repeating in float32"]
    with pytest.raises(NotFinite):
        or_in_float32(overflow, None, torch.float32)
    with pytest.raises(NotFinite):
        or_in_float32(overflow, overflow, torch.float16)


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
