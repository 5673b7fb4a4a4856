"""DiffBIRTiledDiffusion on a real ComfyUI: the same picture as untiled where that is defined, and
one that does not depend on how the tiles are run."""

from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, restoration, with_stock_apply
from comfyui.harness import Failed, Prompt, Server, node, unique_copy


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 128, 192, 3): 16 x 24 latents, six tiles of 8 that do not overlap."""
    rows, columns = np.mgrid[0:128, 0:192].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def tiled(prompt: Prompt, tile_size: int = 64, overlap: int = 32, **inputs: Any) -> Prompt:
    prompt["tiles"] = node(
        "DiffBIRTiledDiffusion",
        model=prompt["sample"]["inputs"]["model"],
        tile_size=tile_size,
        overlap=overlap,
        **inputs,
    )
    prompt["sample"]["inputs"]["model"] = ["tiles", 0]
    return prompt


def with_areas(prompt: Prompt, x: int, width: int) -> Prompt:
    """Another prompt in a part of the picture, `x` and `width` in pixels."""
    prompt["other"] = node("TestZeroConditioning", value=-3.0)
    prompt["area"] = node(
        "ConditioningSetArea",
        conditioning=["other", 0],
        width=width,
        height=128,
        x=x,
        y=0,
        strength=1.0,
    )
    prompt["both"] = node(
        "ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["area", 0]
    )
    prompt["conditioning"]["inputs"]["positive"] = ["both", 0]
    return prompt


def with_mask(server: Server, prompt: Prompt, mask: Array, area: str = "default") -> Prompt:
    """Another prompt where a mask is 1."""
    prompt["mask"] = node("TestLoadTensor", file=unique_copy(server, mask))
    prompt["other"] = node("TestZeroConditioning", value=-3.0)
    prompt["masked"] = node(
        "ConditioningSetMask",
        conditioning=["other", 0],
        mask=["mask", 1],
        strength=1.0,
        set_cond_area=area,
    )
    prompt["both"] = node(
        "ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["masked", 0]
    )
    prompt["conditioning"]["inputs"]["positive"] = ["both", 0]
    return prompt


def with_second_control(server: Server, prompt: Prompt, hint: Array) -> Prompt:
    """An ordinary ControlNet before DiffBIR's, with a hint of its own."""
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
    prompt["conditioning"]["inputs"]["positive"] = ["first", 0]
    prompt["conditioning"]["inputs"]["negative"] = ["first", 1]
    return prompt


@pytest.mark.parametrize("weights", ["gaussian", "official", "uniform"])
def test_one_tile_is_bit_equal_to_untiled(
    diffbir_server: Server, image: Array, weights: str
) -> None:
    plain = latent_of(diffbir_server, restoration(diffbir_server, image))
    prompt = tiled(restoration(diffbir_server, image), 192, 64, weights=weights)
    assert np.array_equal(latent_of(diffbir_server, prompt), plain)


def test_result_does_not_depend_on_the_batch_of_tiles(diffbir_server: Server, image: Array) -> None:
    square = image[:, :, :128]  # nine tiles
    batch = np.concatenate([square, 1 - square])

    def run(tile_batch: int) -> Array:
        prompt = restoration(diffbir_server, batch)
        return latent_of(diffbir_server, tiled(prompt, tile_batch=tile_batch))

    one = run(1)
    scale = np.abs(one).max()
    for tile_batch in (0, 2, 64):
        assert np.abs(run(tile_batch) - one).max() < 1e-5 * scale
    # The first image of the batch as if alone.
    alone = latent_of(diffbir_server, tiled(restoration(diffbir_server, square), tile_batch=4))
    assert np.abs(one[:1] - alone).max() < 1e-5 * scale


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_result_does_not_depend_on_the_order_of_tiles(
    diffbir_server: Server, image: Array, tile_batch: int
) -> None:
    """With a second control net, which is cut for each tile, and more than one step."""
    square = image[:, :, :128]  # up to four tiles of nine overlap, so that the order counts

    def run(backwards: bool) -> Array:
        prompt = restoration(diffbir_server, square)
        with_second_control(diffbir_server, prompt, square[:, ::-1])
        tiled(prompt, tile_batch=tile_batch)
        if backwards:
            prompt["backwards"] = node("TestReverseTiles", model=["tiles", 0])
            prompt["sample"]["inputs"]["model"] = ["backwards", 0]
        return latent_of(diffbir_server, prompt)

    in_order, backwards = run(False), run(True)
    # Sums of the same numbers in another order: equal to rounding, not to the bit.
    assert 0 < np.abs(backwards - in_order).max() < 1e-5 * np.abs(in_order).max()


def test_each_tile_gets_its_part_of_the_condition(diffbir_server: Server, image: Array) -> None:
    """A change at one end of a wide picture reaches only the tiles there, and those it does. (The
    VAE spreads it by less than 200 pixels.)"""
    wide = np.concatenate([image, image[:, :, ::-1]], axis=2)[:, :64]

    def run(picture: Array, tile_batch: int = 1) -> Array:
        prompt = restoration(diffbir_server, picture, sampling={"steps": 1})
        return latent_of(diffbir_server, tiled(prompt, 64, 0, tile_batch=tile_batch))

    changed = wide.copy()
    changed[:, :, 330:] = 0.1
    whole, other = run(wide), run(changed)
    assert np.array_equal(whole[..., :16], other[..., :16])
    assert np.abs(whole - other)[..., -8:].mean() > 1e-3
    batched = run(changed, 3)
    assert np.abs(batched - other).max() < 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("height,width", [(64, 320), (72, 200), (128, 136)])
def test_any_size(diffbir_server: Server, height: int, width: int) -> None:
    image = np.random.default_rng(2).random((1, height, width, 3), np.float32)
    prompt = with_stock_apply(restoration(diffbir_server, image))
    prompt["empty"]["inputs"].update(width=width, height=height)
    latent = latent_of(diffbir_server, tiled(prompt, tile_batch=3))
    assert latent.shape == (1, 4, height // 8, width // 8)


def test_second_control_net_sees_its_part_of_the_hint(diffbir_server: Server, image: Array) -> None:
    sampling = {"steps": 1}

    def run(hint: Array | None, tile_batch: int = 1, overlap: int = 0) -> Array:
        prompt = restoration(diffbir_server, image, sampling=sampling)
        if hint is not None:
            prompt = with_second_control(diffbir_server, prompt, hint)
        return latent_of(diffbir_server, tiled(prompt, 64, overlap, tile_batch=tile_batch))

    changed = image.copy()
    changed[:, 64:, 128:] = 0.1
    whole, other, without = run(image), run(changed), run(None)
    differs = np.abs(whole - other).mean(axis=(0, 1)) > 1e-4
    assert differs[8:, 16:].mean() > 0.9
    assert not differs[:8].any() and not differs[:, :16].any()
    assert (np.abs(whole - without).mean(axis=(0, 1)) > 1e-4).mean() > 0.9
    # A hint of another size is brought to the picture's size before it is cut.
    larger = run(image.repeat(2, axis=1).repeat(2, axis=2))
    assert np.array_equal(larger, whole)
    overlapped = run(image, 1, 32)
    assert np.abs(run(image, 4, 32) - overlapped).max() < 1e-5 * np.abs(overlapped).max()


@pytest.mark.parametrize("kind", ["area", "mask", "mask bounds"])
def test_regional_prompt_stays_in_its_region(
    diffbir_server: Server, image: Array, kind: str
) -> None:
    """The region is the right third, where tiles lie wholly inside, wholly outside and across."""
    sampling = {"steps": 1, "cfg": 1.0}
    start = 112
    plain = tiled(restoration(diffbir_server, image, sampling=sampling), 64, 32)
    prompt = restoration(diffbir_server, image, sampling=sampling)
    if kind == "area":
        prompt = with_areas(prompt, start, 192 - start)
    else:
        mask = np.zeros((1, 128, 192), np.float32)
        mask[..., start:] = 1
        area = "default" if kind == "mask" else kind
        prompt = with_mask(diffbir_server, prompt, mask, area)
    without, regional = (
        latent_of(diffbir_server, p) for p in (plain, tiled(prompt, 64, 32, tile_batch=2))
    )
    changed = np.abs(regional - without) > 1e-4
    assert not changed[..., : start // 8].any()
    assert changed[..., start // 8 + 1 :].mean() > 0.9


def test_every_image_of_a_batch_has_its_own_mask(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, image[:, ::-1]])
    masks = np.zeros((2, 128, 192), np.float32)
    masks[0, ..., :64], masks[1, ..., 112:] = 1, 1

    def run(tile_batch: int, masked: bool = True) -> Array:
        prompt = restoration(diffbir_server, batch, sampling={"steps": 1, "cfg": 1.0})
        if masked:
            prompt = with_mask(diffbir_server, prompt, masks)
        return latent_of(diffbir_server, tiled(prompt, 64, 32, tile_batch=tile_batch))

    found, without = run(4), run(4, False)
    changed = (np.abs(found - without) > 1e-4).mean(axis=1)
    assert not changed[0, :, 8:].any() and changed[0, :, :7].mean() > 0.9
    assert not changed[1, :, :14].any() and changed[1, :, 15:].mean() > 0.9
    assert np.abs(run(1) - found).max() < 1e-5 * np.abs(found).max()


def test_samplers_and_guidance_work_on_tiles(diffbir_server: Server, image: Array) -> None:
    def run(scale: float, tile_batch: int) -> Array:
        sampling = {"sampler_name": "dpmpp_3m_sde", "steps": 3}
        prompt = restoration(diffbir_server, image[:, :, :128], sampling=sampling)
        prompt["guide"] = node(
            "DiffBIRGuidance",
            model=["model", 0],
            image=["image", 0],
            vae=["vae", 0],
            scale=scale,
            space="latent",
            loss="mse",
        )
        prompt["sample"]["inputs"]["model"] = ["guide", 0]
        return latent_of(diffbir_server, tiled(prompt, tile_batch=tile_batch))

    plain, guided = run(0.0, 1), run(0.01, 1)
    assert np.abs(guided).mean() < np.abs(plain).mean()
    assert np.abs(run(0.01, 4) - guided).max() < 1e-4 * np.abs(guided).max()


def test_overlap_as_wide_as_the_tile_is_refused(diffbir_server: Server, image: Array) -> None:
    with pytest.raises(Failed, match="choose a smaller overlap"):
        diffbir_server.run(tiled(restoration(diffbir_server, image), 64, 64))
