"""No step of the sampling waits for the device: the host queues all of them."""

import pytest
import torch
from diffbir_models import tiny_networks
from waits import DEVICE, Waits, without_device

from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffbir.stage2 import Stage2
from bir_core.diffusion.noise import Draws
from bir_core.diffusion.sampling import SAMPLERS
from bir_core.diffusion.schedules import sd_alphas_cumprod

SIZE = 16
CHURN = {"s_churn": 2.0}
OPTIONS = {
    name: CHURN if "s_churn" in row.options else {"order": 2.0} if "order" in row.options else {}
    for name, row in SAMPLERS.items()
}
OF_SAMPLERS = [{"sampler": name, "sampler_options": each} for name, each in OPTIONS.items()]
OF_STEPS = [
    {"cfg": 1.0},
    {"rescale_cfg": True},
    {"strength": 0.5},
    {"guidance": 1.0},
    {"guidance": 1.0, "guidance_loss": "mse", "guidance_per": "512x512"},
    {"guidance": 1.0, "guidance_stop": 500.0},
    {"guidance": 1.0, "guidance_space": "rgb"},
    {"guidance": 1.0, "guidance_space": "rgb", "tile": 64, "overlap": 0},
    {"tile": 64, "overlap": 0},
]


def sample(device, settings, *, parameterization="v", masked=False, callback=lambda *_: None):
    """Sample two pictures of 128 pixels with small networks."""
    networks = {name: network.to(device) for name, network in tiny_networks().items()}
    part = Stage2(**networks, alphas_cumprod=sd_alphas_cumprod(), parameterization=parameterization)
    latent = torch.zeros(2, 4, SIZE, SIZE, device=device)
    context, uncond = torch.zeros(2, 2, 7, 32, device=device)
    part.sample(
        latent,
        torch.zeros(2, 3, 8 * SIZE, 8 * SIZE, device=device),
        context,
        uncond if settings.uses_negative else None,
        settings,
        tile=settings.tile or 0,
        tile_batch=2,
        draws=Draws([0, 1]),
        callback=callback,
        mask=torch.zeros(2, 1, SIZE, SIZE, device=device) if masked else None,
    )


def settings_of(chosen):
    settings = DiffBIRSettings(**{"steps": 2, **chosen})
    if SAMPLERS[settings.sampler].brownian:
        pytest.importorskip("torchsde", reason="torchsde is not installed")
    return settings


def waits_of_steps(chosen, monkeypatch, **options):
    """What waits from the end of the first step to the end of the last."""
    settings = settings_of(chosen)
    without_device(monkeypatch)
    waits, after = Waits(), []

    def told(done, steps):
        after.append(len(waits.counted))

    with waits, torch.no_grad():
        sample(DEVICE, settings, callback=told, **options)
    assert len(after) == settings.steps
    return waits.counted[after[0] : after[-1]]


def test_waits_are_noticed():
    """Reads and copies are counted, or end in an error of torch that there are no numbers."""
    x, host = torch.ones(3, device=DEVICE), torch.ones(3)
    counted = {
        "read": lambda: float(x[0]),
        "decision": lambda: bool((x > 0).any()),
        "comparison": lambda: torch.equal(x, x),
        "to the host": x.cpu,
        "list": x.tolist,
        "from the host": lambda: host.to(x),
        "numbers from the host": lambda: x.new_tensor([1.0]),
        "into the device": lambda: x.copy_(host),
        "into the host": lambda: host.copy_(x),
    }
    for name, wait in counted.items():
        with Waits() as waits:
            wait()
        assert waits.counted, name
    for wait in (x.nonzero, lambda: x[x > 0]):
        with Waits(), pytest.raises((RuntimeError, NotImplementedError)):
            wait()
    with Waits() as waits:
        torch.full((2,), 3.0, device=DEVICE) * host[0] + x.sum()
    assert waits.counted == []


@pytest.mark.parametrize("chosen", OF_SAMPLERS, ids=str)
def test_no_sampler_waits(chosen, monkeypatch):
    monkeypatch.setattr(Stage2, "predict", lambda self, x, timesteps, **cond: x * 0.5)
    assert waits_of_steps({"steps": 4, **chosen}, monkeypatch) == []


@pytest.mark.parametrize("chosen", OF_STEPS, ids=str)
def test_no_step_waits(chosen, monkeypatch):
    assert waits_of_steps(chosen, monkeypatch) == []


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_no_step_waits_with_a_mask(guidance, monkeypatch):
    assert waits_of_steps({"guidance": guidance}, monkeypatch, masked=True) == []


def test_no_step_waits_with_an_eps_base(monkeypatch):
    chosen = {"sampler": "spaced", "rescale_cfg": True}
    assert waits_of_steps(chosen, monkeypatch, parameterization="eps") == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("chosen", [*OF_SAMPLERS, *OF_STEPS], ids=str)
def test_no_step_waits_for_a_gpu(chosen):
    def told(done, steps):
        torch.cuda.set_sync_debug_mode("error" if done < steps else "default")

    try:
        with torch.no_grad():
            sample(torch.device("cuda"), settings_of(chosen), callback=told)
    finally:
        torch.cuda.set_sync_debug_mode("default")
