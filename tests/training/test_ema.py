import torch
from torch import nn

from bir_core.training.ema import ExponentialAverage


def test_average_follows_the_formula():
    """After n steps: decay^n * w_0 + sum of (1 - decay) * decay^(n - k) * w_k."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = ExponentialAverage(network, 0.9)
    history = [{name: p.detach().clone() for name, p in network.named_parameters()}]
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network[1].running_mean.fill_(step)
        average.update(network)
        history.append({name: p.detach().clone() for name, p in network.named_parameters()})
    for name, value in average.average.named_parameters():
        expected = 0.9**5 * history[0][name]
        expected = expected + sum(0.1 * 0.9 ** (5 - k) * history[k][name] for k in range(1, 6))
        torch.testing.assert_close(value, expected)
        assert not value.requires_grad
    assert float(average.average[1].running_mean[0]) == 5
