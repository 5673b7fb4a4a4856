"""Memory that runs out in each stage on the real server: the work goes on in smaller pieces with
the same result, or ends in a sentence; the next prompt works."""

from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, one_node, restoration, restored
from comfyui.harness import Failed, Prompt, Server, node
from comfyui.test_diffbir_stage1 import picture_of, stage1
from comfyui.test_diffbir_tiling import tiled
from comfyui.test_diffbir_vae import decoded, encoded
from comfyui.vae_models import write_vae


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 128, 192, 3): 16 x 24 latents."""
    rows, columns = np.mgrid[0:128, 0:192].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def limited(prompt: Prompt, loader: str, limit: int) -> Prompt:
    """The network of a loader with `limit` pixels of memory, for all nodes of the prompt."""
    for each in prompt.values():
        for name, value in each["inputs"].items():
            if value == [loader, 0]:
                each["inputs"][name] = ["limit", 0]
    prompt["limit"] = node("TestMemoryLimit", network=[loader, 0], limit=limit)
    return prompt


def sentence_of(server: Server, prompt: Prompt, node_type: str) -> str:
    with pytest.raises(Failed) as failure:
        server.run(prompt)
    sentence = str(failure.value).strip()
    assert failure.value.node_type == node_type, sentence
    assert sentence.endswith(".") and "\n" not in sentence and ". " not in sentence, sentence
    return sentence


def test_stage_1_takes_smaller_tiles(diffbir_server: Server, image: Array) -> None:
    def prompt(limit: int, **inputs: Any) -> Prompt:
        made = stage1(diffbir_server, image, upscale_by=1.0, **inputs)
        return limited(made, "model", limit)

    # SwinIR's widest maps have the picture's pixels.
    halved = picture_of(diffbir_server, prompt(64 * 64))
    assert "going on with tiles of 64 pixels" in diffbir_server.log()
    said = sentence_of(diffbir_server, prompt(100), "BIRRestorationModule")
    assert "at least 64 pixels, but even that did not fit" in said
    tiles = picture_of(diffbir_server, prompt(0, tile=64))
    assert halved.shape == tiles.shape == image.shape
    assert np.abs(halved - tiles).mean() < 0.1


@pytest.mark.parametrize(("coded", "kind"), [(encoded, "Encode"), (decoded, "Decode")])
def test_exact_tiles_of_the_vae_are_halved(
    diffbir_server: Server, image: Array, coded: Any, kind: str
) -> None:
    write_vae(diffbir_server.base / "models")
    whole = coded(diffbir_server, image)
    ours = coded(diffbir_server, image, limit=70 * 70, tile_size=128)
    assert "going on with VAE tiles of 64 pixels" in diffbir_server.log()
    assert np.abs(ours - whole).max() < 1e-4 * np.abs(whole).max()
    with pytest.raises(Failed, match="a tile of 64 pixels, but even that ran out") as failure:
        coded(diffbir_server, image, limit=100, tile_size=128)
    assert failure.value.node_type == f"BIRVAE{kind}Tiled"
    assert np.array_equal(coded(diffbir_server, image, limit=0), whole)


def test_the_condition_is_encoded_in_exact_tiles(diffbir_server: Server, image: Array) -> None:
    """Where neither the whole picture nor ComfyUI's own tiles fit."""

    def prompt(limit: int) -> Prompt:
        made = restoration(diffbir_server, image)
        made["vae"]["inputs"]["vae_name"] = "sd.safetensors"
        return limited(made, "vae", limit)

    write_vae(diffbir_server.base / "models")
    short = latent_of(diffbir_server, prompt(70 * 70))
    assert "the VAE goes on in exact tiles" in diffbir_server.log()
    said = sentence_of(diffbir_server, prompt(100), "DiffBIRConditioning")
    assert "a tile of 64 pixels" in said
    plenty = latent_of(diffbir_server, prompt(0))
    assert np.abs(short - plenty).max() < 1e-4 * np.abs(plenty).max()


def test_a_vae_that_cannot_be_tiled_ends_in_a_sentence(
    diffbir_server: Server, image: Array
) -> None:
    prompt = limited(restoration(diffbir_server, image), "vae", 100)
    said = sentence_of(diffbir_server, prompt, "DiffBIRConditioning")
    assert "The encoder of the VAE should find memory" in said
    latent_of(diffbir_server, limited(restoration(diffbir_server, image), "vae", 0))


@pytest.mark.parametrize("network", ["model", "control"])
def test_sampling_takes_fewer_tiles_at_a_time(
    diffbir_server: Server, image: Array, network: str
) -> None:
    def prompt(limit: int, tile_batch: int) -> Prompt:
        square = image[:, :, :128]  # nine tiles
        made = tiled(restoration(diffbir_server, square), tile_batch=tile_batch)
        return limited(made, network, limit)

    # Tiles of 8 x 8 latents, each with and without the prompt: two at a time fit, eight do not.
    short = latent_of(diffbir_server, prompt(2 * 2 * 64, 8))
    assert "going on with 2 tiles at a time" in diffbir_server.log()
    said = sentence_of(diffbir_server, prompt(50, 8), "KSampler")
    assert "take smaller tiles" in said
    plenty = latent_of(diffbir_server, prompt(0, 2))
    assert np.abs(short - plenty).max() < 1e-5 * np.abs(plenty).max()


@pytest.mark.parametrize("network", ["model", "control"])
def test_sampler_node_says_it(diffbir_server: Server, image: Array, network: str) -> None:
    def prompt(limit: int) -> Prompt:
        return limited(one_node(diffbir_server, image), network, limit)

    before = restored(diffbir_server, prompt(0))
    said = sentence_of(diffbir_server, prompt(100), "DiffBIRSampler")
    assert "choose a tile size of 512 pixels or less" in said
    assert np.array_equal(restored(diffbir_server, prompt(0)), before)


def test_sampler_node_decodes_in_exact_tiles(diffbir_server: Server, image: Array) -> None:
    """The whole picture at once was asked for, and does not fit into the VAE."""

    def prompt(limit: int) -> Prompt:
        made = one_node(diffbir_server, image)
        made["vae"]["inputs"]["vae_name"] = "sd.safetensors"
        return limited(made, "vae", limit)

    write_vae(diffbir_server.base / "models")
    short, plenty = (restored(diffbir_server, prompt(limit)) for limit in (70 * 70, 0))
    assert np.abs(short - plenty).max() < 1e-4
