"""The compiled steps of stage 2: no graph breaks, one compilation for all steps, same result."""

import pytest
import torch
from diffbir_models import tiny_networks

from bir_core.diffbir.compiling import compiled
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffbir.stage2 import Stage2
from bir_core.diffusion.denoisers import discrete_denoiser, rescaled_cfg_scale, with_cfg
from bir_core.diffusion.schedules import sampling_schedule, sd_alphas_cumprod
from bir_core.errors import BIRError


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_guided_step_of_an_eps_base_is_one_graph():
    part = Stage2(**tiny_networks(), alphas_cumprod=sd_alphas_cumprod(), parameterization="eps")
    x, hint, context = drawn(1, 4, 8, 8), drawn(1, 4, 8, 8, seed=1), drawn(1, 7, 32, seed=2)
    schedule = sampling_schedule("spaced", part.alphas_cumprod, 10)

    def network(x, timestep, **cond):
        return part.predict(x, torch.full((len(x),), timestep), strength=0.5, **cond)

    guided = with_cfg(
        network,
        {"hint": hint, "context": context},
        {"hint": hint, "context": -context},
        lambda t: rescaled_cfg_scale(8.0, t),
    )
    denoiser = discrete_denoiser(guided, schedule, "eps")
    whole = torch.compile(denoiser, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(x, 3.0), denoiser(x, 3.0))


def test_steps_and_pictures_of_a_size_are_compiled_once():
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(counting, name="counting")
    settings = DiffBIRSettings(steps=3, short_side=0, tile=0, vae_tile=0, sampler="spaced")
    networks, prompts = tiny_networks(), (drawn(1, 7, 32), drawn(1, 7, 32, seed=1))

    def restored(backend, seed):
        pipeline = DiffBIR(**networks, version="v2.1", compile=backend)
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        return pipeline(picture, *prompts, upscale_by=1.0, settings=settings)

    for seed in range(2):
        torch.testing.assert_close(restored("counting", seed), restored(None, seed))
    assert len(graphs) == 1


def test_another_backend_is_refused():
    with pytest.raises(BIRError, match="one of .*inductor.* but 'none' came"):
        DiffBIR(**tiny_networks(), version="v2.1", compile="none")


def test_what_cannot_be_compiled_is_said():
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    torch._dynamo.register_backend(broken, name="broken")
    step = compiled(lambda x: x + 1, "broken", torch.device("cpu"))
    with pytest.raises(BIRError, match="compiled by broken, but it failed: .*no compiler"):
        step(torch.ones(1))
