"""DiffBIRSampler on a real ComfyUI: what the single nodes give, for each image as if alone."""

from typing import Any

import numpy as np
import pytest
from comfyui.cancelling import cancel_at, progress_of
from comfyui.diffbir_graph import Array, one_node, restoration, restored
from comfyui.harness import Failed, Prompt, Server, node, unique_copy


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 60, 100, 3): 64 x 128 pixels with its padding."""
    rows, columns = np.mgrid[0:60, 0:100].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def single_nodes(server: Server, image: Array, **sampling: Any) -> Prompt:
    prompt = restoration(server, image, sampling=sampling)
    prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
    prompt["crop"] = node("BIRCrop", image=["decode", 0], latent=["conditioning", 2])
    prompt["fix"] = node("BIRColorFix", image=["crop", 0], reference=["image", 0], method="wavelet")
    prompt["save"] = node("TestSaveTensor", image=["fix", 0], file="restored.npy")
    return prompt


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_3m_sde", "uni_pc"])
def test_equals_the_single_nodes(diffbir_server: Server, image: Array, sampler: str) -> None:
    theirs = restored(diffbir_server, single_nodes(diffbir_server, image, sampler_name=sampler))
    ours = restored(diffbir_server, one_node(diffbir_server, image, sampler_name=sampler))
    assert ours.shape == image.shape
    assert np.array_equal(ours, theirs)


def test_equals_the_official_sampler_of_single_nodes(diffbir_server: Server, image: Array) -> None:
    """Spaced schedule with ddpm, growing cfg, guidance and tiles."""
    prompt = single_nodes(diffbir_server, image)
    prompt["guide"] = node(
        "DiffBIRGuidance",
        model=["model", 0],
        image=["image", 0],
        vae=["vae", 0],
        scale=0.02,
        space="latent",
        loss="w_mse",
    )
    prompt["tiles"] = node("DiffBIRTiledDiffusion", model=["guide", 0], tile_size=64, overlap=32)
    prompt["sigmas"] = node("DiffBIRScheduler", model=["model", 0], steps=3)
    prompt["noise"] = node("RandomNoise", noise_seed=5)
    prompt["guider"] = node(
        "DiffBIRCFGGuider",
        model=["tiles", 0],
        positive=["conditioning", 0],
        negative=["conditioning", 1],
        cfg=4.0,
        rescale=True,
    )
    prompt["ddpm"] = node("KSamplerSelect", sampler_name="ddpm")
    prompt["sample"] = node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guider", 0],
        sampler=["ddpm", 0],
        sigmas=["sigmas", 0],
        latent_image=["conditioning", 2],
    )
    ours = one_node(
        diffbir_server,
        image,
        seed=5,
        steps=3,
        sampler_name="ddpm",
        scheduler="spaced",
        guidance=0.02,
        tile_size=64,
        overlap=32,
        rescale_cfg=True,
    )
    difference = restored(diffbir_server, ours) - restored(diffbir_server, prompt)
    assert np.abs(difference).max() < 1e-5


def test_each_image_of_a_batch_is_as_if_alone(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, image[:, ::-1], 1 - image])
    settings = {"sampler_name": "dpmpp_3m_sde", "guidance": 0.02, "noise_aug": 100}
    together = restored(diffbir_server, one_node(diffbir_server, batch, **settings))
    for index in range(3):
        alone = one_node(diffbir_server, batch[index : index + 1], seed=3 + index, **settings)
        assert np.array_equal(restored(diffbir_server, alone), together[index : index + 1])


@pytest.mark.parametrize("tile_size", [0, 64])
def test_masks_and_hints_of_a_batch_belong_to_its_images(
    diffbir_server: Server, image: Array, tile_size: int
) -> None:
    """A region for each image, and two control nets in the prompts: a stock one and DiffBIR's own,
    with another picture than the sampler's."""
    batch = np.concatenate([image, image[:, ::-1]])
    masks = np.zeros((2, 60, 100), np.float32)
    masks[0, :, :40], masks[1, :, 60:] = 1, 1

    def run(images: slice, seed: int) -> Array:
        prompt = one_node(diffbir_server, batch[images], tile_size=tile_size, seed=seed)
        prompt["mask"] = node("TestLoadTensor", file=unique_copy(diffbir_server, masks[images]))
        prompt["other"] = node("TestZeroConditioning", value=-3.0)
        prompt["masked"] = node(
            "ConditioningSetMask",
            conditioning=["other", 0],
            mask=["mask", 1],
            strength=1.0,
            set_cond_area="default",
        )
        prompt["both"] = node(
            "ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["masked", 0]
        )
        hints = 1 - batch[images]
        prompt["hint"] = node("TestLoadTensor", file=unique_copy(diffbir_server, hints))
        prompt["stock"] = node("ControlNetLoader", control_net_name="stock.safetensors")
        prompt["first"] = node(
            "ControlNetApplyAdvanced",
            positive=["both", 0],
            negative=["negative", 0],
            control_net=["stock", 0],
            image=["hint", 0],
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
        )
        prompt["second"] = node(
            "DiffBIRConditioning",
            positive=["first", 0],
            negative=["first", 1],
            control_net=["control", 0],
            vae=["vae", 0],
            image=["hint", 0],
            strength=0.5,
            mask=["mask", 1],
        )
        prompt["sample"]["inputs"].update(positive=["second", 0], negative=["second", 1])
        return restored(diffbir_server, prompt)

    both = run(slice(None), 3)
    for index in range(2):
        alone = run(slice(index, index + 1), 3 + index)
        assert np.abs(alone - both[index]).max() < 1e-5


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "dpmpp_3m_sde"])
def test_shared_noise_is_the_same_at_any_place_of_a_batch(
    diffbir_server: Server, image: Array, sampler: str
) -> None:
    settings = {"sampler_name": sampler, "noise_aug": 100, "noise": "shared"}
    batch = np.concatenate([image, 1 - image, image])
    shared = restored(diffbir_server, one_node(diffbir_server, batch, **settings))
    assert np.array_equal(shared[2], shared[0])
    for index in (0, 1):
        alone = one_node(diffbir_server, batch[index : index + 1], **settings)
        assert np.array_equal(restored(diffbir_server, alone), shared[index : index + 1])
    # Otherwise equal frames differ, and so they did before there was a choice.
    settings["noise"] = "per image"
    each = restored(diffbir_server, one_node(diffbir_server, batch, **settings))
    assert np.array_equal(each[0], shared[0]) and np.abs(each[2] - each[0]).max() > 1e-3
    del settings["noise"]
    saved = restored(diffbir_server, one_node(diffbir_server, batch, **settings))
    assert np.array_equal(saved, each)


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_3m_sde"])
def test_largest_seed_goes_on_at_zero(diffbir_server: Server, image: Array, sampler: str) -> None:
    """On a CPU the noise of ddpm is that of the seed after the one that was given."""
    settings = {"sampler_name": sampler, "noise_aug": 100}
    batch = np.concatenate([image, image])
    both = restored(diffbir_server, one_node(diffbir_server, batch, seed=2**64 - 1, **settings))
    after = restored(diffbir_server, one_node(diffbir_server, image, seed=0, **settings))
    assert np.array_equal(both[1:], after)
    assert not np.array_equal(both[:1], after)


def test_same_seed_same_picture_whatever_ran_before(diffbir_server: Server, image: Array) -> None:
    def run(disturbance: int, seed: int) -> Array:
        prompt = one_node(diffbir_server, image, sampler_name="dpmpp_3m_sde", seed=seed)
        prompt["disturb"] = node("TestUseRandomness", image=["image", 0], seed=disturbance)
        prompt["sample"]["inputs"]["image"] = ["disturb", 0]
        return restored(diffbir_server, prompt)

    first = run(1, 7)
    assert np.array_equal(first, run(2, 7))
    assert not np.array_equal(first, run(2, 8))


def test_alpha_size_and_colours(diffbir_server: Server, image: Array) -> None:
    # Above 0: what is hidden would get the colours around it.
    alpha = np.linspace(0.01, 1, image[..., :1].size, dtype=np.float32).reshape(1, 60, 100, 1)
    with_alpha = restored(
        diffbir_server, one_node(diffbir_server, np.concatenate([image, alpha], -1))
    )
    plain = restored(diffbir_server, one_node(diffbir_server, image))
    assert np.array_equal(with_alpha[..., :3], plain)
    assert np.abs(with_alpha[..., 3:] - alpha).max() < 1e-6
    adain = restored(diffbir_server, one_node(diffbir_server, image, color_fix="adain"))
    none = restored(diffbir_server, one_node(diffbir_server, image, color_fix="none"))
    colours = np.abs(np.stack([plain, adain, none]).mean((2, 3)) - image.mean((1, 2)))
    assert colours[:2].max() < 0.2 < colours[2].max()


@pytest.mark.parametrize("start", ["noise", "condition"])
def test_strength_0_is_the_base_alone(diffbir_server: Server, image: Array, start: str) -> None:
    off = restored(diffbir_server, one_node(diffbir_server, image, strength=0.0, start=start))
    on = restored(diffbir_server, one_node(diffbir_server, image, strength=1.0, start=start))
    assert not np.allclose(on, off, atol=1e-3)


@pytest.mark.parametrize("height,width", [(8, 8), (1, 500), (65, 1)])
def test_smallest_and_thinnest_pictures(diffbir_server: Server, height: int, width: int) -> None:
    image = np.random.default_rng(6).random((1, height, width, 3), np.float32)
    prompt = one_node(diffbir_server, image, tile_size=64, guidance=0.01)
    assert restored(diffbir_server, prompt).shape == image.shape


def test_foreign_control_net_is_refused(diffbir_server: Server, image: Array) -> None:
    prompt = one_node(diffbir_server, image)
    prompt["control"] = node("ControlNetLoader", control_net_name="stock.safetensors")
    with pytest.raises(Failed, match="an IRControlNet from Load DiffBIR ControlNet"):
        diffbir_server.run(prompt)


def test_progress_and_cancel(diffbir_server: Server, image: Array) -> None:
    """Tiled: cancel takes effect within a tile, not a step."""
    prompt = one_node(diffbir_server, image, steps=4, tile_size=64, overlap=0)
    output = diffbir_server.base / "output" / "restored.npy"
    output.unlink(missing_ok=True)
    # Two tiles a step: the first of the second step has begun.
    messages, after = cancel_at(diffbir_server, prompt, "model", 3)
    assert progress_of(messages, "sample") == [(1, 8), (2, 8), (1, 4)]
    assert after == 0 and not output.exists()
    # The models are as before.
    assert restored(diffbir_server, one_node(diffbir_server, image)).shape == image.shape
