"""What a node tells while it works: which stage, which tile, and what goes on in another way."""

import numpy as np
import pytest
from comfyui.cancelling import told
from comfyui.diffbir_graph import Array, one_node, restoration
from comfyui.harness import Server, node, unique_copy
from comfyui.test_diffbir_stage1 import stage1
from comfyui.test_diffbir_tiling import tiled
from comfyui.test_out_of_memory import limited


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 64, 128, 3)"""
    return np.random.default_rng(8).random((1, 64, 128, 3), dtype=np.float32)


def test_the_sampler_tells_stages_and_tiles(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, 1 - image])
    prompt = one_node(diffbir_server, batch, tile_size=64, overlap=0)
    *texts, report = told(diffbir_server, prompt, "sample")[0]
    tiles = [f"step {step} of 2, tile {tile} of 2" for step in (1, 2) for tile in (1, 2)]
    assert texts == [
        f"Image {index} of 2: {text}"
        for index in (1, 2)
        for text in ("encoding", "sampling", *tiles, "decoding")
    ]
    assert report.startswith("DiffBIR v2")


def test_a_stock_sampler_tells_tiles_and_its_bar_never_falls(
    diffbir_server: Server, image: Array
) -> None:
    prompt = tiled(restoration(diffbir_server, image), 64, 0, tile_batch=1)
    texts, bar = told(diffbir_server, prompt, "sample")
    assert texts == [f"step {step} of 2, tile {tile} of 2" for step in (1, 2) for tile in (1, 2)]
    parts = [done / total for done, total in bar]
    assert parts == sorted(parts) and {0.25, 0.5, 0.75, 1.0} <= set(parts)


def test_diffir_tells_strips(server: Server, image: Array) -> None:
    prompt = {
        "load": node("DiffIRLoader", model_name="deblur.safetensors"),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "restore": node("DiffIRRestore", model=["load", 0], image=["image", 0], seed=0),
        "preview": node("PreviewImage", images=["restore", 0]),
    }
    texts, bar = told(server, prompt, "restore")
    assert texts == [f"strip {done} of {total}" for done, total in bar] and texts


def test_stage_1_tells_tiles_and_smaller_ones(diffbir_server: Server, image: Array) -> None:
    prompt = stage1(diffbir_server, image, upscale_by=1.0, tile=64)
    *texts, report = told(diffbir_server, prompt, "stage1")[0]
    assert texts[0].startswith("tile 1 of ") and len(texts) > 1
    assert report.startswith("Stage 1 of DiffBIR")
    short = limited(stage1(diffbir_server, 1 - image, upscale_by=1.0), "model", 64 * 64)
    texts = told(diffbir_server, short, "stage1")[0]
    assert "Out of memory: going on with tiles of 64 pixels in stage 1" in texts
    diffbir_server.run(limited(stage1(diffbir_server, image, upscale_by=1.0), "model", 0))
