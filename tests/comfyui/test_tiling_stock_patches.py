"""Stock patches of a model that keep something from call to call, with tiles."""

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, restoration
from comfyui.harness import Failed, Prompt, Server, node

CACHE = {"reuse_threshold": 0.4, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
# In tiles the picture is slightly another one, and with it what a cache makes of it. Tiles that
# share a cache are off several times as far.
ANOTHER_PICTURE = 1.2


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 64, 128, 3), whose halves have little in common."""
    rows, columns = np.mgrid[0:64, 0:128].astype(np.float32)
    picture = np.stack([rows / 64, columns / 128, 1 - rows / 64], -1)
    picture[:, 64:] = np.random.default_rng(3).random((64, 64, 3))
    return picture.astype(np.float32)[None]


def run(server: Server, image: Array, *patches: str, tile_batch: int = 1) -> Array:
    """The latent with the patches of the model in this order."""
    prompt: Prompt = restoration(server, image, sampling={"steps": 8, "cfg": 2.0})
    nodes = {
        "tiles": ("DiffBIRTiledDiffusion", {
            "tile_size": 64, "overlap": 0, "tile_batch": tile_batch
        }),
        "cache": ("EasyCache", CACHE),
        "lazy": ("LazyCache", CACHE),
        "attention": ("SelfAttentionGuidance", {"scale": 0.5, "blur_sigma": 2.0}),
    }  # fmt: skip
    model = ["model", 0]
    for patch in patches:
        kind, inputs = nodes[patch]
        prompt[patch] = node(kind, model=model, **inputs)
        model = [patch, 0]
    prompt["sample"]["inputs"]["model"] = model
    return latent_of(server, prompt)


def apart(first: Array, second: Array) -> float:
    return float(np.abs(first - second).mean() / second.std())


@pytest.mark.parametrize("cache", ["cache", "lazy"])
def test_a_cache_of_outputs_is_as_far_off_as_without_tiles(
    diffbir_server: Server, image: Array, cache: str
) -> None:
    untiled = apart(run(diffbir_server, image, cache), run(diffbir_server, image))
    plain = run(diffbir_server, image, "tiles")
    deviations = [
        apart(run(diffbir_server, image, cache, "tiles"), plain),
        apart(run(diffbir_server, image, "tiles", cache), plain),
        apart(run(diffbir_server, image, cache, "tiles", tile_batch=2), plain),
    ]
    assert untiled > 0 and min(deviations) > 0  # it skips steps; not so if tiles look like changes
    assert max(deviations) <= ANOTHER_PICTURE * untiled


def test_attention_of_the_whole_picture_is_refused(diffbir_server: Server, image: Array) -> None:
    with pytest.raises(Failed, match="Self-Attention Guidance") as failure:
        run(diffbir_server, image, "attention", "tiles")
    assert str(failure.value).strip().endswith(".")
    run(diffbir_server, image, "attention")
