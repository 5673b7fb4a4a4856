"""Prompts for Tiles in the real server: every tile follows its own prompt and no other."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, one_node, restoration, restored
from comfyui.harness import Failed, Prompt, Server, node, unique_copy

# Of a picture of 128 x 192 pixels in tiles of 64: three columns, two rows.
TEXTS = ("0.5", "-3", "2", "2", "0.5", "-3")
ONE_STEP = {"steps": 1}


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 128, 192, 3)."""
    rows, columns = np.mgrid[0:128, 0:192].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def with_tiles(prompt: Prompt, overlap: int = 0, tile_batch: int = 1, tile: int = 64) -> Prompt:
    prompt["tiles"] = node(
        "DiffBIRTiledDiffusion",
        model=["model", 0],
        tile_size=tile,
        overlap=overlap,
        tile_batch=tile_batch,
    )
    prompt["sample"]["inputs"]["model"] = ["tiles", 0]
    return prompt


def with_texts(prompt: Prompt, texts: Sequence[str], place: str = "positive") -> Prompt:
    """Lines in the place of a prompt."""
    prompt["clip"] = node("TestTextEncoder")
    prompt[place] = node("BIRTilePrompts", clip=["clip", 0], lines="\n".join(texts))
    return prompt


def with_second_control(server: Server, prompt: Prompt, hint: Array) -> Prompt:
    """An ordinary ControlNet before DiffBIR's."""
    prompt["hint"] = node("TestLoadTensor", file=unique_copy(server, hint))
    prompt["stock"] = node("ControlNetLoader", control_net_name="stock.safetensors")
    prompt["first"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["stock", 0],
        image=["hint", 0],
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    prompt["conditioning"]["inputs"].update(positive=["first", 0], negative=["first", 1])
    return prompt


def tile_of(latent: Array, number: int) -> Array:
    """A tile of latents (B, 4, 16, 24) of the grid of `TEXTS`."""
    y, x = 8 * (number // 3), 8 * (number % 3)
    return latent[..., y : y + 8, x : x + 8]


def close(found: Array, expected: Array) -> bool:
    return bool(np.abs(found - expected).max() < 1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("place", "tile_batch"), [("positive", 1), ("negative", 4)])
def test_every_tile_follows_its_prompt(
    diffbir_server: Server, image: Array, place: str, tile_batch: int
) -> None:
    def run(texts: Sequence[str]) -> Array:
        prompt = restoration(diffbir_server, image, sampling=ONE_STEP)
        return latent_of(
            diffbir_server, with_tiles(with_texts(prompt, texts, place), tile_batch=tile_batch)
        )

    found = run(TEXTS)
    for text in set(TEXTS):
        alone = run([text])
        for number, own in enumerate(TEXTS):
            assert close(tile_of(found, number), tile_of(alone, number)) == (own == text)


def test_equal_prompts_are_the_prompt(diffbir_server: Server, image: Array) -> None:
    """With overlap, and a prompt that is twice as long as the others."""
    plain = latent_of(diffbir_server, with_tiles(restoration(diffbir_server, image), 32))
    one = with_tiles(with_texts(restoration(diffbir_server, image), ["0.5"] * 15), 32)
    assert np.array_equal(latent_of(diffbir_server, one), plain)
    texts = ["0.5", "0.5 0.5", "0.5"] * 5
    several = with_tiles(with_texts(restoration(diffbir_server, image), texts), 32, 4)
    assert close(latent_of(diffbir_server, several), plain)


def test_batch_of_tiles_does_not_change_the_result(diffbir_server: Server, image: Array) -> None:
    texts = [str(number / 4) for number in range(15)]

    def run(tile_batch: int) -> Array:
        prompt = with_texts(restoration(diffbir_server, image), texts)
        with_second_control(diffbir_server, prompt, image[:, ::-1])
        return latent_of(diffbir_server, with_tiles(prompt, 32, tile_batch))

    assert close(run(4), run(1))


def test_every_tile_of_every_image_with_two_control_nets(
    diffbir_server: Server, image: Array
) -> None:
    batch = np.concatenate([image, 1 - image])

    def run(texts: Sequence[str]) -> Array:
        prompt = with_texts(restoration(diffbir_server, batch, sampling=ONE_STEP), texts)
        with_texts(prompt, texts[::-1], "negative")
        with_second_control(diffbir_server, prompt, batch[:, ::-1])
        return latent_of(diffbir_server, with_tiles(prompt, tile_batch=3))

    by_text = {text: run([text] * 6) for text in set(TEXTS)}
    found = run(TEXTS)
    for number, text in enumerate(TEXTS):
        avoided = TEXTS[::-1][number]
        for index in range(2):
            # The prompt to avoid is another one, where that of the other run is.
            same = close(tile_of(found, number)[index], tile_of(by_text[text], number)[index])
            assert same == (text == avoided)


def test_prompts_of_each_image(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, 1 - image])

    def run(texts: Sequence[str], tile_batch: int = 4) -> Array:
        prompt = with_texts(restoration(diffbir_server, batch, sampling=ONE_STEP), texts)
        with_second_control(diffbir_server, prompt, batch[:, ::-1])
        return latent_of(diffbir_server, with_tiles(prompt, tile_batch=tile_batch))

    first, second = run(TEXTS), run(TEXTS[::-1])
    for tile_batch in (1, 4):
        each = run([*TEXTS, *TEXTS[::-1]], tile_batch)
        assert close(each[0], first[0]) and close(each[1], second[1])
        assert not close(each[1], first[1])


def test_prompts_in_the_sampler_in_one_node(diffbir_server: Server, image: Array) -> None:
    """Shared by the images of a batch, or each with its own, as if alone."""
    batch = np.concatenate([image, 1 - image])
    own = [*TEXTS, *TEXTS[::-1]]

    def run(pictures: Array, texts: Sequence[str], seed: int = 3) -> Array:
        prompt = one_node(diffbir_server, pictures, tile_size=64, overlap=0, seed=seed)
        return restored(diffbir_server, with_texts(prompt, texts))

    alone = run(batch[:1], TEXTS), run(batch[1:], TEXTS, 4), run(batch[1:], TEXTS[::-1], 4)
    shared, each = run(batch, TEXTS), run(batch, own)
    assert np.array_equal(shared, np.concatenate(alone[:2]))
    assert np.array_equal(each, np.concatenate([alone[0], alone[2]]))
    assert np.abs(alone[1] - alone[2]).max() > 1e-3


def test_a_piece_follows_the_prompts_of_its_place(diffbir_server: Server, image: Array) -> None:
    def run(texts: Sequence[str]) -> Array:
        prompt = one_node(diffbir_server, image, tile_size=64, overlap=0)
        place = {"x": 74, "y": 10, "width": 40, "height": 40}  # in the second tile
        prompt["piece"] = node("BIRTryCrop", image=["image", 0], place=place, side=64)
        prompt["sample"]["inputs"]["piece"] = ["piece", 0]
        return restored(diffbir_server, with_texts(prompt, texts))

    found = run(TEXTS)
    assert found.shape == (1, 64, 64, 3)
    assert np.array_equal(found, run([TEXTS[1]]))
    assert np.abs(found - run([TEXTS[0]])).max() > 1e-3


@pytest.mark.parametrize("tile_size", [0, 192])
def test_pictures_of_a_single_tile(diffbir_server: Server, image: Array, tile_size: int) -> None:
    """One prompt, or one for each image of a batch; in both samplers."""
    batch = np.concatenate([image, 1 - image])

    def run(pictures: Array, texts: Sequence[str], seed: int = 3) -> Array:
        prompt = one_node(diffbir_server, pictures, tile_size=tile_size, seed=seed)
        return restored(diffbir_server, with_texts(prompt, texts))

    alone = run(batch[:1], ["0.5"]), run(batch[1:], ["-3"], 4)
    assert np.array_equal(run(batch, ["0.5", "-3"]), np.concatenate(alone))
    plain = restored(diffbir_server, one_node(diffbir_server, image, tile_size=tile_size))
    assert np.array_equal(alone[0], plain)  # whose prompt is 0.5


def test_single_tiles_of_a_batch_in_a_stock_sampler(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, 1 - image])

    def run(texts: Sequence[str]) -> Array:
        prompt = with_texts(restoration(diffbir_server, batch), texts)
        return latent_of(diffbir_server, with_tiles(prompt, tile=192))

    each, first, second = run(["0.5", "-3"]), run(["0.5"]), run(["-3"])
    assert close(each[0], first[0]) and close(each[1], second[1])


def from_list(prompt: Prompt) -> None:
    prompt["positive"]["inputs"].update(lines="", prompts=["texts", 0])


def from_conditionings(prompt: Prompt) -> None:
    """The stock encoder, which makes one of each text."""
    prompt["encode"] = node("CLIPTextEncode", clip=["clip", 0], text=["texts", 0])
    prompt["positive"] = node("BIRTilePrompts", lines="", prompts=["encode", 0])


@pytest.mark.parametrize("change", [from_list, from_conditionings])
def test_lists_are_as_lines(
    diffbir_server: Server, image: Array, change: Callable[[Prompt], None]
) -> None:
    def lines() -> Prompt:
        return with_texts(restoration(diffbir_server, image, sampling=ONE_STEP), TEXTS)

    expected = latent_of(diffbir_server, with_tiles(lines()))
    prompt = lines()
    prompt["texts"] = node("TestTexts", texts=json.dumps(TEXTS))
    change(prompt)
    assert np.array_equal(latent_of(diffbir_server, with_tiles(prompt)), expected)


def test_captions_of_split_tiles_reach_their_tiles(diffbir_server: Server, image: Array) -> None:
    """The caption of a tile is its mean."""
    picture = image.copy()
    for number in range(6):
        y, x = 64 * (number // 3), 64 * (number % 3)
        picture[:, y : y + 64, x : x + 64] = number / 10
    texts = [f"{number / 10:.3f}" for number in range(6)]

    def lines() -> Prompt:
        return with_texts(restoration(diffbir_server, picture, sampling=ONE_STEP), texts)

    expected = latent_of(diffbir_server, with_tiles(lines()))
    prompt = lines()
    prompt["split"] = node("BIRSplitTiles", image=["image", 0], tile_size=64, overlap=0)
    prompt["texts"] = node("TestMean", image=["split", 1])
    from_list(prompt)
    assert np.array_equal(latent_of(diffbir_server, with_tiles(prompt)), expected)


def test_a_region_holds_for_all_tiles(diffbir_server: Server, image: Array) -> None:
    """A mask and a second prompt behind the node."""
    mask = np.zeros((1, 128, 192), np.float32)
    mask[..., 96:] = 1  # through the middle column

    def run(texts: Sequence[str], tile_batch: int = 4) -> Array:
        prompt = with_texts(restoration(diffbir_server, image, sampling=ONE_STEP), texts, "all")
        prompt["mask"] = node("TestLoadTensor", file=unique_copy(diffbir_server, mask))
        prompt["other"] = node("TestZeroConditioning", value=1.0)
        for name, source, side in (("right", "all", "mask"), ("left", "other", "inverted")):
            prompt[name] = node(
                "ConditioningSetMask",
                conditioning=[source, 0],
                mask=[side, 1 if side == "mask" else 0],
                strength=1.0,
                set_cond_area="default",
            )
        prompt["inverted"] = node("InvertMask", mask=["mask", 1])
        prompt["positive"] = node(
            "ConditioningCombine", conditioning_1=["left", 0], conditioning_2=["right", 0]
        )
        return latent_of(diffbir_server, with_tiles(prompt, tile_batch=tile_batch))

    found, without = run(TEXTS), run(["1"])
    for number, text in enumerate(TEXTS):
        alone = run([text])
        assert close(tile_of(found, number), tile_of(alone, number))
    changed = np.abs(found - without).mean(axis=(0, 1)) > 1e-4
    assert not changed[:, :12].any() and changed[:, 13:].mean() > 0.9
    assert close(run(TEXTS, 1), found)


def test_wrong_number_is_said_before_the_sampling(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, image])
    wanted = r"6 tiles \(3 columns x 2 rows, row by row\), but 5 came"
    prompt = with_texts(restoration(diffbir_server, image), TEXTS[:5])
    with pytest.raises(Failed, match=wanted) as told:
        diffbir_server.run(with_tiles(prompt))
    assert told.value.node_type == "KSampler"
    prompt = with_texts(one_node(diffbir_server, image, tile_size=64, overlap=0), TEXTS[:5])
    with pytest.raises(Failed, match=wanted):
        diffbir_server.run(prompt)
    wanted = r"row by row\), or 12 for 2 images, but 5 came"
    prompt = with_texts(restoration(diffbir_server, batch), TEXTS[:5], "negative")
    with pytest.raises(Failed, match=wanted):
        diffbir_server.run(with_tiles(prompt))
    prompt = with_texts(one_node(diffbir_server, batch, tile_size=64, overlap=0), TEXTS[:5])
    with pytest.raises(Failed, match=wanted):
        diffbir_server.run(prompt)
    prompt = with_texts(restoration(diffbir_server, image), ["0.5", "2"])
    with pytest.raises(Failed, match="sampled in 1 tile, but 2 came"):
        diffbir_server.run(with_tiles(prompt, tile=192))


def test_model_without_tiles_is_said(diffbir_server: Server, image: Array) -> None:
    with pytest.raises(Failed, match="The 6 prompts .* lead it through Tiled Diffusion"):
        diffbir_server.run(with_texts(restoration(diffbir_server, image), TEXTS))


def wrong(**inputs: Any) -> Prompt:
    return {
        "clip": node("TestTextEncoder"),
        "texts": node("TestTexts", texts=json.dumps(TEXTS)),
        "none": node("TestTexts", texts="[]"),
        "plain": node("TestZeroConditioning", value=0.5),
        "area": node(
            "ConditioningSetArea",
            **{"conditioning": ["plain", 0], "width": 64, "height": 64, "x": 0, "y": 0},
            strength=1.0,
        ),
        "list": node("TestPair", first=["plain", 0], second=["area", 0]),
        "prompts": node("BIRTilePrompts", **{"lines": "", **inputs}),
        "show": node("PreviewAny", source=["prompts", 0]),
    }


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"lines": "a", "prompts": ["texts", 0], "clip": ["clip", 0]}, "but both came"),
        ({"clip": ["clip", 0]}, "at least one prompt, but none"),
        ({"prompts": ["none", 0], "clip": ["clip", 0]}, "at least one prompt, but none"),
        ({"lines": "a"}, "connect the CLIP"),
        ({"prompts": ["list", 0]}, "but number 2 has a region"),
    ],
)
def test_wrong_inputs_are_sentences(
    diffbir_server: Server, inputs: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Failed, match=sentence):
        diffbir_server.run(wrong(**inputs))
