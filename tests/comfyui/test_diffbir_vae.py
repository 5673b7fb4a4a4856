"""The exact tiled VAE on ComfyUI's own network, against the stock nodes on the whole picture."""

from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.vae_models import write_vae


@pytest.fixture(scope="module")
def vae_server(diffbir_server: Server) -> Server:
    write_vae(diffbir_server.base / "models")
    return diffbir_server


@pytest.fixture(scope="module")
def images() -> Array:
    """(2, 72, 136, 3): sides that no tile divides; each half has statistics of its own."""
    noise = np.random.default_rng(3).random((2, 72, 136, 3), np.float32)
    noise[:, :, 70:] = noise[:, :, 70:] * 0.1 + 0.8
    return noise


def coding(server: Server, vae_name: str, images: Array) -> Prompt:
    return {
        "vae": node("VAELoader", vae_name=vae_name),
        "image": node("TestLoadTensor", file=unique_copy(server, images)),
        "encode": node("VAEEncode", pixels=["image", 0], vae=["vae", 0]),
    }


def with_our_encoder(prompt: Prompt, **tiled: Any) -> Prompt:
    prompt["encode"] = node("BIRVAEEncodeTiled", pixels=["image", 0], vae=["vae", 0], **tiled)
    return prompt


def with_limit(prompt: Prompt, user: str, limit: int | None) -> Prompt:
    """The half of a VAE that a node uses may get a limit of its memory, in pixels; 0 lifts it."""
    if limit is not None:
        half = f"{user}r"
        prompt["limit"] = node("TestMemoryLimit", network=["vae", 0], limit=limit, part=half)
        prompt[user]["inputs"]["vae"] = ["limit", 0]
    return prompt


def encoded(
    server: Server,
    images: Array,
    vae_name: str = "sd.safetensors",
    limit: int | None = None,
    **tiled: Any,
) -> Array:
    """The latent of the stock node, or with keywords that of ours."""
    prompt = coding(server, vae_name, images)
    if tiled:
        with_our_encoder(prompt, **tiled)
    with_limit(prompt, "encode", limit)
    prompt["save"] = node("TestSaveLatent", latent=["encode", 0], file="latent.npy")
    return latent_of(server, prompt)


def decoded(
    server: Server,
    images: Array,
    vae_name: str = "sd.safetensors",
    encoding: dict[str, Any] | None = None,
    limit: int | None = None,
    **tiled: Any,
) -> Array:
    """The stock node's picture of the images' latent, or with keywords that of ours. `encoding` are
    the inputs of our encoder, in the place of the stock one."""
    prompt = coding(server, vae_name, images)
    if encoding is not None:
        with_our_encoder(prompt, **encoding)
    kind = "BIRVAEDecodeTiled" if tiled else "VAEDecode"
    prompt["decode"] = node(kind, samples=["encode", 0], vae=["vae", 0], **tiled)
    with_limit(prompt, "decode", limit)
    prompt["save"] = node("TestSaveTensor", image=["decode", 0], file="decoded.npy")
    server.run(prompt)
    picture: Array = np.load(server.base / "output" / "decoded.npy")
    return picture


def test_decode_equals_the_whole(vae_server: Server, images: Array) -> None:
    whole = decoded(vae_server, images)
    assert whole.shape == images.shape
    assert whole.std() > 0.05
    for settings in (
        {"tile_size": 64},
        {"tile_size": 128, "parking": "host", "parking_dtype": "float32"},
        {"tile_size": 64, "parking": "device"},
    ):
        assert np.abs(decoded(vae_server, images, **settings) - whole).max() < 1e-4
    # In this size the stock node's tiles are far off; half precision is not.
    half = decoded(vae_server, images, tile_size=64, parking_dtype="float16")
    assert np.abs(half - whole).max() < 0.02
    assert not np.array_equal(half, decoded(vae_server, images, tile_size=64))


def test_what_lies_outside_of_the_range_stays_on_demand(vae_server: Server, images: Array) -> None:
    clamped = decoded(vae_server, images, tile_size=64)
    kept = decoded(vae_server, images, tile_size=64, clamp=False)
    assert kept.min() < 0 or kept.max() > 1
    assert np.array_equal(kept.clip(0, 1), clamped)


def test_encode_equals_the_whole(vae_server: Server, images: Array) -> None:
    whole = encoded(vae_server, images)
    assert whole.shape == (2, 4, 9, 17)
    tiles = encoded(vae_server, images, tile_size=64)
    assert np.abs(tiles - whole).max() < 1e-4 * np.abs(whole).max()
    half = encoded(vae_server, images, tile_size=64, parking_dtype="float16")
    assert 0 < np.abs(half - whole).max() < 0.02 * np.abs(whole).max()


def test_encode_takes_any_picture(vae_server: Server, images: Array) -> None:
    """Sides that do not divide by 8, an alpha channel, a grey picture."""
    odd = images[:1, :69, :93]
    whole = encoded(vae_server, odd)
    tiles = encoded(vae_server, odd, tile_size=64)
    assert np.abs(tiles - whole).max() < 1e-4 * np.abs(whole).max()
    alpha = np.concatenate([odd, np.ones_like(odd[..., :1])], -1)
    assert np.array_equal(encoded(vae_server, alpha, tile_size=64), tiles)
    grey = odd[..., :1]
    of_grey = encoded(vae_server, grey.repeat(3, -1), tile_size=64)
    assert np.array_equal(encoded(vae_server, grey, tile_size=64), of_grey)


def test_each_image_of_a_batch_is_as_if_alone(vae_server: Server, images: Array) -> None:
    together = encoded(vae_server, images, tile_size=64)
    alone = encoded(vae_server, images[1:], tile_size=64)
    assert np.array_equal(together[1:], alone)


def test_vae_of_another_layout_runs_whole(vae_server: Server, images: Array) -> None:
    tiny = "tiny.safetensors"
    assert np.array_equal(
        decoded(vae_server, images, tiny, tile_size=64), decoded(vae_server, images, tiny)
    )
    assert np.array_equal(
        encoded(vae_server, images, tiny, tile_size=64), encoded(vae_server, images, tiny)
    )


def test_what_cannot_be_done_is_said_before_it_starts(vae_server: Server, images: Array) -> None:
    with pytest.raises(Failed, match="at least 8 x 8 pixels, but 7 x 72 came"):
        encoded(vae_server, images[:, :, :7], tile_size=64)
    prompt = coding(vae_server, "sd.safetensors", images)
    prompt["encode"] = node("EmptyLatentImage", width=16384, height=16384, batch_size=1)
    prompt["decode"] = node(
        "BIRVAEDecodeTiled",
        samples=["encode", 0],
        vae=["vae", 0],
        tile_size=512,
        parking_dtype="float32",
    )
    prompt["save"] = node("TestSaveTensor", image=["decode", 0], file="decoded.npy")
    with pytest.raises(Failed, match="GB of free memory for this picture"):
        vae_server.run(prompt)
