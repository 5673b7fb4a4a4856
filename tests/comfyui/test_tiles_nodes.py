"""Tiles as data in the real server: cut as tiled diffusion cuts, and joined."""

from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy


@pytest.fixture(scope="module")
def pictures() -> Array:
    """(2, 100, 150, 3): 128 x 192 pixels with their padding, 3 x 5 tiles of 64 that overlap by
    half."""
    return np.random.default_rng(0).random((2, 100, 150, 3), np.float32)


def graph(server: Server, image: Array, tiles: str = "split", socket: int = 0) -> Prompt:
    """Split, and joined from a socket of the node `tiles`."""
    return {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "split": node("BIRSplitTiles", image=["image", 0], tile_size=64, overlap=32),
        "join": node("BIRJoinTiles", tiles=[tiles, socket], places=["split", 2]),
        "save tiles": node("TestSaveTensor", image=["split", 0], file="tiles.npy"),
        "save": node("TestSaveTensor", image=["join", 0], file="joined.npy"),
    }


def output(server: Server, name: str = "joined.npy") -> Array:
    result: Array = np.load(server.base / "output" / name)
    return result


@pytest.mark.parametrize("socket", [0, 1], ids=["batch", "list"])
def test_unchanged_tiles_give_the_picture(server: Server, pictures: Array, socket: int) -> None:
    outputs = server.run(graph(server, pictures, socket=socket))
    assert np.array_equal(output(server), pictures)
    tiles = output(server, "tiles.npy")
    assert tiles.shape == (30, 64, 64, 3)
    # The second tile of the second row of the second picture, and the mirror image at its end.
    assert np.array_equal(tiles[15 + 6], pictures[1, 32:96, 32:96])
    assert np.array_equal(tiles[29][36:], tiles[29][:36][::-1][1:29])
    report = "15 tiles (5 columns x 3 rows, row by row) for each of 2 images"
    assert outputs["split"]["text"] == [report]


@pytest.mark.parametrize("list_of_tiles", [False, True])
def test_enlarged_tiles_join_to_an_enlarged_picture(
    server: Server, pictures: Array, list_of_tiles: bool
) -> None:
    prompt = graph(server, pictures, "large")
    prompt["large"] = node(
        "ImageScaleBy",
        image=["split", int(list_of_tiles)],
        upscale_method="nearest-exact",
        scale_by=2.0,
    )
    server.run(prompt)
    assert np.array_equal(output(server), pictures.repeat(2, 1).repeat(2, 2))


def test_pictures_never_mix(server: Server, pictures: Array) -> None:
    """Tiles of noise, which differ where they overlap."""
    noise = np.random.default_rng(1).random((30, 64, 64, 3), np.float32)

    def run(image: Array, tiles: Array) -> Array:
        prompt = graph(server, image, "noise")
        prompt["noise"] = node("TestLoadTensor", file=unique_copy(server, tiles))
        server.run(prompt)
        return output(server)

    both = run(pictures, noise)
    assert np.array_equal(both[:1], run(pictures[:1], noise[:15]))
    assert np.array_equal(both[1:], run(pictures[1:], noise[15:]))


def test_alpha_stays_and_weights_count(server: Server, pictures: Array) -> None:
    alpha = np.full_like(pictures[..., :1], 0.5)
    noise = np.random.default_rng(1).random((30, 64, 64, 3), np.float32)
    found = {}
    for weights in ("gaussian", "official", "uniform"):
        prompt = graph(server, np.concatenate([pictures, alpha], -1), "noise")
        prompt["noise"] = node("TestLoadTensor", file=unique_copy(server, noise))
        prompt["join"]["inputs"]["weights"] = weights
        server.run(prompt)
        found[weights] = output(server)
        assert np.abs(found[weights][..., 3:] - alpha).max() < 1e-6
    assert output(server, "tiles.npy").shape[-1] == 3
    for weights in ("official", "uniform"):
        assert np.abs(found[weights] - found["gaussian"]).max() > 1e-3


def test_a_small_picture_is_one_tile(server: Server, pictures: Array) -> None:
    small = pictures[:1, :40, :50]
    outputs = server.run(graph(server, small))
    assert outputs["split"]["text"] == ["1 tile"]
    assert output(server, "tiles.npy").shape == (1, 64, 64, 3)
    assert np.array_equal(output(server), small)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((15, 64, 64, 3), "Each of 2 pictures should come back in 15 tiles .* but 15 came in all"),
        ((30, 96, 96, 3), "64 x 64 pixels, or all enlarged by the same whole number, but 96 x 96"),
        ((30, 32, 32, 3), "resize them before they are joined"),
    ],
)
def test_wrong_tiles_are_sentences(
    server: Server, pictures: Array, shape: Any, sentence: str
) -> None:
    prompt = graph(server, pictures, "wrong")
    tiles = np.zeros(shape, np.float32)
    prompt["wrong"] = node("TestLoadTensor", file=unique_copy(server, tiles))
    with pytest.raises(Failed, match=sentence):
        server.run(prompt)


def test_places_of_several_batches_are_refused(server: Server, pictures: Array) -> None:
    prompt = graph(server, pictures)
    prompt["list"] = node("RebatchImages", images=["image", 0], batch_size=1)
    prompt["split"]["inputs"]["image"] = ["list", 0]
    with pytest.raises(Failed, match="one batch of pictures, but places of 2 came"):
        server.run(prompt)


def test_overlap_as_wide_as_the_tile_is_refused(server: Server, pictures: Array) -> None:
    prompt = graph(server, pictures)
    prompt["split"]["inputs"]["overlap"] = 64
    with pytest.raises(Failed, match="choose a smaller overlap"):
        server.run(prompt)
