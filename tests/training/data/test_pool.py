import torch

from bir_core.training.data.draws import generator_for
from bir_core.training.data.pool import PairPool


def test_pool_mixes_batches_and_keeps_every_pair():
    pool = PairPool(4)
    given, taken = [], []
    for k in range(20):
        value = torch.tensor([2.0 * k, 2.0 * k + 1]).view(2, 1, 1, 1)
        texts = (f"{2 * k}", f"{2 * k + 1}")
        lq, hq, captions = pool.exchange(value, value * 10, texts, generator_for(k))
        assert torch.equal(hq, lq * 10)
        assert [float(caption) for caption in captions] == lq.flatten().tolist()
        given += value.flatten().tolist()
        taken.append(lq.flatten().tolist())
    assert taken[:2] == [[0, 1], [2, 3]]  # passes through while it fills
    mixed = [value for pair in taken[2:] for value in pair]
    left = pool.state()["lq"].flatten().tolist()
    assert sorted(mixed + left) == given
    assert any(abs(a - b) > 1 for a, b in taken[2:])


def test_pool_state_goes_on_exactly():
    def pairs(k):
        return torch.full((2, 1), float(k)), torch.zeros(2, 1), (f"{k}: Stra\u00dfe", "")

    def filled():
        pool = PairPool(4)
        for k in range(3):
            pool.exchange(*pairs(k), generator_for(k))
        return pool

    first, second = filled(), PairPool(4)
    second.load(first.state(), torch.device("cpu"))
    for k in range(3, 6):
        ours, theirs = (pool.exchange(*pairs(k), generator_for(k)) for pool in (first, second))
        assert torch.equal(ours[0], theirs[0])
        assert ours[2] == theirs[2]
