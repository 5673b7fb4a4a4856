"""The memory plan of DiffIR: against a measured peak, and what it promises for every memory."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.diffir.memory_plan import diffir_strips, padded
from bir_core.diffir.restore import restore
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig


@torch.no_grad()
def test_strips_of_diffir():
    config = DiffIRConfig(dim=16, task="deblur", num_blocks=(1, 1, 1, 1))
    model = DiffIRStage2(config).eval().requires_grad_(False)
    image = torch.rand(1, 3, 192, 256)
    _, peak = peak_tensors_of(lambda: restore(image, model, strip=8))
    estimate = diffir_strips(config, 192, 256).needed(8, torch.float32)
    assert 0.4 * estimate < peak <= estimate


@given(st.integers(10**7, 10**10))
def test_plan_of_diffir(memory):
    config = DiffIRConfig(dim=48, task="sr", scale=4)
    needs = diffir_strips(config, *padded(config, 333, 500))
    plan = needs.plan(10**6, memory, torch.float32)
    assert plan.stages[0].rows >= 1
    assert plan.fits or plan.stages[0].rows == 1
