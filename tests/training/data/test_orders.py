from hypothesis import given
from hypothesis import strategies as st

from bir_core.training.data.orders import ShuffledPasses

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(sum).map(tuple)
windows = st.integers(0, 30)


def order(passes, number):
    return [passes.example_at(number, place) for place in range(passes.count)]


@given(sizes, windows, st.integers(0, 2**40), st.integers(0, 5))
def test_every_pass_has_every_example_once(sizes, window, seed, number):
    passes = ShuffledPasses(sizes, window, seed)
    assert sorted(order(passes, number)) == list(range(sum(sizes)))


@given(sizes, windows, st.lists(st.integers(0, 200), min_size=1))
def test_a_place_does_not_depend_on_what_was_asked_before(sizes, window, positions):
    passes = ShuffledPasses(sizes, window, 0)
    for position in positions:
        place = divmod(position, passes.count)
        assert passes.example_at(*place) == ShuffledPasses(sizes, window, 0).example_at(*place)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
def test_a_window_reads_few_parts_at_a_time(parts, size, window, number):
    """As many as a stretch of the sequence of parts can touch."""
    passes = ShuffledPasses((size,) * parts, window, 0)
    sequence = [example // size for example in order(passes, number)]
    for start in range(0, len(sequence), window):
        touched = set(sequence[start : start + window])
        assert len(touched) <= min(parts, (window - 2) // size + 2 if window > 1 else 1)


@given(sizes, st.integers(0, 3))
def test_a_window_that_holds_all_shuffles_as_one_part(sizes, number):
    whole = order(ShuffledPasses((sum(sizes),), 0, 7), number)
    assert order(ShuffledPasses(sizes, 0, 7), number) == whole
    assert order(ShuffledPasses(sizes, sum(sizes), 7), number) == whole


def test_passes_parts_and_seeds_differ():
    passes = ShuffledPasses((50,) * 20, 100, 0)
    first, second = order(passes, 0), order(passes, 1)
    assert first != second
    assert first != order(ShuffledPasses((50,) * 20, 100, 1), 0)
    # The parts are not read in their order, nor an example right before its neighbour.
    assert [example // 50 for example in first[::100]] != list(range(0, 20, 2))
    assert sum(b - a == 1 for a, b in zip(first, first[1:], strict=False)) < 50
