"""Multiply-adds and bytes against what the formulas of layers give."""

import torch
from torch import nn
from torch.nn import functional as F

from bir_core.costs.counting import BETWEEN, Cost, count, total

NUMBER = 4  # bytes


def on_meta(*shape):
    return torch.zeros(shape, device="meta")


def counted(network, *shape, depth=1):
    x = on_meta(*shape)
    return count(network.to("meta"), lambda network: network(x), depth=depth)


def test_a_convolution():
    parts = counted(nn.Sequential(nn.Conv2d(4, 8, 3, padding=1)), 1, 4, 16, 16)
    weights = 9 * 4 * 8 + 8
    assert parts == {
        "0": Cost(weights, 9 * 4 * 8 * 256, NUMBER * (4 * 256 + weights), NUMBER * 8 * 256)
    }


def test_a_linear_layer_in_half_precision_moves_half():
    parts = counted(nn.Sequential(nn.Linear(5, 7)), 3, 5)
    assert total(parts).multiply_adds == 3 * 5 * 7
    x = torch.zeros(3, 5, device="meta", dtype=torch.float16)
    half = nn.Sequential(nn.Linear(5, 7)).to("meta", torch.float16)
    halved = total(count(half, lambda network: network(x)))
    assert (2 * halved.read, 2 * halved.written) == (total(parts).read, total(parts).written)


class Looking(nn.Module):
    def forward(self, x):
        return x.view(-1)[:10].reshape(2, 5).t().unsqueeze(0)


def test_looking_at_memory_in_another_way_moves_nothing():
    assert total(counted(Looking(), 4, 6)) == Cost()


class Summing(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())

    def forward(self, x):
        return x + self.inner(self.inner(x))


def test_parts_are_called_by_their_names_and_every_call_counts():
    flat, deep = (counted(Summing(), 1, 2, 3, 3, depth=depth) for depth in (1, 2))
    assert list(flat) == ["inner", BETWEEN]
    assert list(deep) == ["inner.0", "inner.1", BETWEEN]
    assert total(flat) == total(deep)
    assert flat["inner"].multiply_adds == 2 * 2 * 2 * 9
    assert flat["inner"].parameters == 6
    assert flat[BETWEEN] == Cost(0, 0, 2 * 18 * NUMBER, 18 * NUMBER)


class Attending(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_attention_is_one_operation_without_its_matrix():
    numbers = 2 * 30 * 8
    cost = total(counted(Attending(), 1, 2, 30, 8))
    assert cost == Cost(0, 2 * numbers * 30, 3 * numbers * NUMBER, numbers * NUMBER)


def test_an_embedding_reads_the_rows_that_it_gives():
    tokens = torch.zeros(1, 5, dtype=torch.int64, device="meta")
    network = nn.Sequential(nn.Embedding(1000, 3)).to("meta")
    cost = total(count(network, lambda network: network(tokens)))
    assert (cost.read, cost.written) == (15 * NUMBER + 5 * 8, 15 * NUMBER)


def test_calls_multiply_all_but_the_parameters():
    assert Cost(1, 2, 3, 4).calls(5) == Cost(1, 10, 15, 20)
    assert Cost(1, 2, 3, 4) + Cost(1, 1, 1, 1) == Cost(2, 3, 4, 5)
