"""A VAE and a base that compute in half precision: exact in float32 where that is asked for, and
repeated in float32 where half precision overflows."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from comfyui.cancelling import told
from comfyui.diffbir_graph import Array, one_node, restored
from comfyui.diffbir_models import prefixed, save, unet_weights, write_diffbir_models
from comfyui.harness import Failed, Server, node
from comfyui.test_diffbir_vae import decoded, encoded
from comfyui.vae_models import vae_weights, write_vae

REPEATED = "repeating in float32"
# float16 ends at 65504; a norm behind it makes such numbers small again in float32.
BEYOND_FLOAT16 = 2e5


def write_overflowing(server: Server) -> None:
    """Networks that work in float32 only, and ones that do not work at all."""
    models = server.base / "models"
    write_diffbir_models(models)
    write_vae(models)
    for name, factor in (("overflow", BEYOND_FLOAT16), ("broken", float("nan"))):
        vae, unet = dict(vae_weights()), unet_weights()
        for layer in ("encoder.down.0.block.0.conv2", "decoder.mid.block_1.conv2"):
            vae[f"{layer}.weight"] = vae[f"{layer}.weight"] * factor
        unet["input_blocks.1.0.out_layers.3.weight"] *= factor
        save(models / "vae" / f"{name}.safetensors", {key: w.half() for key, w in vae.items()})
        save(
            models / "diffusion_models" / f"{name}.safetensors",
            prefixed("model.diffusion_model.", unet),
        )


@pytest.fixture(scope="module")
def wide_server(server: Server) -> Server:
    """Everything computes in float32."""
    write_overflowing(server)
    return server


@pytest.fixture(scope="module")
def half_server(start_server: Callable[[str], Server]) -> Iterator[Server]:
    """VAEs compute in float16."""
    prepared = start_server("comfyui-bir-half")
    prepared.link_pack()
    prepared.command.append("--fp16-vae")
    write_overflowing(prepared)
    with prepared:
        yield prepared


@pytest.fixture(scope="module")
def images() -> Array:
    """(1, 72, 72, 3): sides that no tile divides; each half has statistics of its own."""
    noise = np.random.default_rng(3).random((1, 72, 72, 3), np.float32)
    noise[:, :, 35:] = noise[:, :, 35:] * 0.1 + 0.8
    return noise


def difference(first: Array, second: Array) -> float:
    """Largest one, relative to the numbers of the second."""
    return float(np.abs(first - second).max() / np.abs(second).max())


@pytest.mark.parametrize("coded", [encoded, decoded])
def test_precision_float32_equals_the_whole_vae_in_float32(
    half_server: Server, wide_server: Server, images: Array, coded: Callable[..., Array]
) -> None:
    """The same file, its weights stored in half precision. The latent that is decoded comes from
    the server's own encoder, so both servers are given the same one by asking for float32."""
    settings: dict[str, Any] = {"tile_size": 64, "precision": "float32"}
    exact = coded(wide_server, images)
    same_input = {"encoding": settings} if coded is decoded else {}
    ours = coded(half_server, images, **settings, **same_input)
    assert difference(ours, exact) < 1e-4
    whole = coded(half_server, images, **same_input)
    half = coded(half_server, images, **{**settings, "precision": "as the VAE"}, **same_input)
    assert 1e-4 < difference(half, whole) < 0.05
    assert 1e-4 < difference(half, ours) < 0.05


@pytest.mark.parametrize("coded", [encoded, decoded])
def test_what_overflows_is_repeated_in_float32(
    half_server: Server, wide_server: Server, images: Array, coded: Callable[..., Array]
) -> None:
    file = "overflow.safetensors"
    # The encoder of this file overflows as well: the stock node would give NaN.
    same_input = {"encoding": {"tile_size": 64}} if coded is decoded else {}
    before = half_server.log().count(REPEATED)
    ours = coded(half_server, images, file, tile_size=64, **same_input)
    assert half_server.log().count(REPEATED) > before
    assert difference(ours, coded(wide_server, images, file)) < 1e-4


@pytest.mark.parametrize(
    ("coded", "said"),
    [(encoded, "The latent from the VAE"), (decoded, "The image from the VAE")],
)
def test_what_is_no_number_in_float32_either_is_said(
    half_server: Server, images: Array, coded: Callable[..., Array], said: str
) -> None:
    with pytest.raises(Failed, match=f"{said} should hold finite numbers"):
        coded(half_server, images, "broken.safetensors", tile_size=64)


@pytest.fixture(scope="module")
def picture() -> Array:
    """(1, 64, 100, 3)"""
    return np.random.default_rng(5).random((1, 64, 100, 3), np.float32)


@pytest.mark.parametrize("tile_size", [0, 64])
def test_sampler_repeats_the_vae_in_float32(
    half_server: Server, wide_server: Server, picture: Array, tile_size: int
) -> None:
    pictures = []
    for each in (half_server, wide_server):
        prompt = one_node(each, picture, steps=1, tile_size=tile_size, color_fix="none")
        prompt["vae"]["inputs"]["vae_name"] = "overflow.safetensors"
        pictures.append(restored(each, prompt))
    assert pictures[1].std() > 0.05
    # The tiles of the VAE are exact, so they make no difference.
    assert np.abs(pictures[0] - pictures[1]).max() < 2e-3


def computing_in_half(prompt: dict[str, Any]) -> dict[str, Any]:
    prompt["half"] = node("ModelComputeDtype", model=["model", 0], dtype="fp16")
    prompt["sample"]["inputs"]["model"] = ["half", 0]
    return prompt


def test_sampling_that_overflows_is_repeated_in_float32(
    wide_server: Server, picture: Array
) -> None:
    def prompt(unet: str) -> dict[str, Any]:
        made = one_node(wide_server, picture, steps=1, tile_size=64, overlap=32, guidance=0.01)
        made["model"]["inputs"]["unet_name"] = f"{unet}.safetensors"
        return made

    wide = restored(wide_server, prompt("overflow"))
    before = wide_server.log().count(REPEATED)
    texts, _ = told(wide_server, computing_in_half(prompt("overflow")), "sample")
    repeated = np.load(wide_server.base / "output" / "restored.npy")
    assert any(REPEATED in text for text in texts)
    assert wide_server.log().count(REPEATED) == before + 1
    assert np.abs(repeated - wide).max() < 1e-4
    # A base that half precision suits stays in it.
    half = restored(wide_server, computing_in_half(prompt("sd21")))
    assert wide_server.log().count(REPEATED) == before + 1
    plain = restored(wide_server, prompt("sd21"))
    assert 1e-5 < np.abs(half - plain).max() < 0.1


def test_sampling_of_no_numbers_is_said(wide_server: Server, picture: Array) -> None:
    prompt = computing_in_half(one_node(wide_server, picture, steps=1))
    prompt["model"]["inputs"]["unet_name"] = "broken.safetensors"
    with pytest.raises(Failed, match="The sampled latent should hold finite numbers") as failure:
        wide_server.run(prompt)
    assert failure.value.node_type == "DiffBIRSampler"
    assert "\n" not in str(failure.value).strip()
    restored(wide_server, one_node(wide_server, picture, steps=1))
