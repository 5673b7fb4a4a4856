"""`bir_core.DiffBIR` and the nodes: the same networks and noise, the same picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, one_node, restored
from comfyui.harness import Server, node, unique_copy
from comfyui.vae_models import write_vae

from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffusion.noise import NoiseSource, draw_normal, image_generators
from bir_core.images import from_channels_last, to_channels_last

SEED = 5


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 60, 100, 3): 64 x 128 pixels with its padding."""
    rows, columns = np.mgrid[0:60, 0:100].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def draws_of_ddpm(seed: int = SEED) -> NoiseSource:
    """Those of ComfyUI: its ddpm takes them from a generator of the seed plus 1."""
    of_sampler = torch.Generator().manual_seed(seed + 1)
    draws = 0

    def noise(like: torch.Tensor) -> torch.Tensor:
        nonlocal draws
        draws += 1
        if draws == 1:
            return draw_normal(image_generators(seed, 1), like)
        return torch.randn(like.shape, generator=of_sampler)

    return noise


def standalone(
    pipeline: DiffBIR,
    image: Array,
    settings: DiffBIRSettings,
    noise: NoiseSource | None = None,
    mask: Array | None = None,
) -> Array:
    out = pipeline(
        from_channels_last(torch.from_numpy(image)),
        torch.linspace(-1, 1, 77 * 1024).reshape(1, 77, 1024) * 0.5,
        torch.zeros(1, 77, 1024),
        upscale_by=1.0,
        settings=settings,
        seed=SEED,
        noise=noise,
        mask=None if mask is None else torch.from_numpy(mask),
    )
    picture: Array = to_channels_last(out).numpy()
    return picture


@pytest.mark.parametrize("rich", [False, True])
def test_nodes_and_package_give_the_same_picture(
    diffbir_server: Server, networks: dict[str, torch.nn.Module], image: Array, rich: bool
) -> None:
    """Plain; and with tiles, guidance, growing cfg, less control and a mask."""
    write_vae(diffbir_server.base / "models")
    of_both = {"strength": 0.8, "guidance": 0.01, "rescale_cfg": True, "overlap": 32}
    mask = np.random.default_rng(2).random((1, 60, 100), np.float32) if rich else None
    more = of_both if rich else {}
    tile = 64 if rich else 0
    prompt = one_node(
        diffbir_server,
        image,
        seed=SEED,
        steps=3,
        sampler_name="ddpm",
        scheduler="spaced",
        color_fix="none",
        tile_size=tile,
        **more,
    )
    prompt["vae"] = node("VAELoader", vae_name="sd.safetensors")
    if mask is not None:
        prompt["mask"] = node("TestLoadTensor", file=unique_copy(diffbir_server, mask))
        prompt["sample"]["inputs"]["mask"] = ["mask", 1]
    theirs = restored(diffbir_server, prompt)
    settings = DiffBIRSettings(
        sampler="spaced",
        steps=3,
        cfg=4.0,
        color_fix="none",
        short_side=0,
        tile=tile,
        vae_tile=tile,
        **more,
    )
    ours = standalone(DiffBIR(**networks, version="v2"), image, settings, draws_of_ddpm(), mask)
    assert ours.shape == theirs.shape
    assert ours.std() > 0.01
    assert np.abs(ours - theirs).max() < 1e-3


def test_nodes_and_package_draw_the_same_noise(
    diffbir_server: Server, networks: dict[str, torch.nn.Module], image: Array
) -> None:
    """v2.1 as it is set by default: an SDE sampler, whose Brownian path is that of the seed."""
    write_vae(diffbir_server.base / "models")
    prompt = one_node(
        diffbir_server,
        image,
        "mini_DiffBIR_v2.1.safetensors",
        seed=SEED,
        steps=3,
        sampler_name="dpmpp_3m_sde",
        scheduler="edm",
        color_fix="none",
    )
    prompt["vae"] = node("VAELoader", vae_name="sd.safetensors")
    theirs = restored(diffbir_server, prompt)
    settings = DiffBIRSettings(steps=3, cfg=4.0, short_side=0, tile=0, vae_tile=0, color_fix="none")
    ours = standalone(DiffBIR(**networks, version="v2.1"), image, settings)
    assert ours.std() > 0.01
    assert np.abs(ours - theirs).max() < 1e-3
    other = standalone(
        DiffBIR(**networks, version="v2.1"), image, replace(settings, sampler="dpmpp_2m")
    )
    assert np.abs(other - ours).max() > 1e-2
