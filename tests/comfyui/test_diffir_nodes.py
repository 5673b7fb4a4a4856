"""DiffIRLoader and DiffIRRestore in the real ComfyUI: what goes in, what comes out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from comfyui.harness import Failed, Refused, Server, node, unique_copy
from comfyui.models import CONFIGS, random_model
from numpy.typing import NDArray

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.diffir.restore import restore

Array = NDArray[np.float32]
Run = Callable[..., Array]


def outside_comfyui(image: Array, name: str, seed: int, mask: Array | None = None) -> Array:
    """The same restoration by `bir_core` alone, of one image (1, H, W, 3)."""
    model = random_model(CONFIGS[name], list(CONFIGS).index(name))
    restored = restore(
        torch.from_numpy(image).movedim(-1, 1),
        model,
        seed=seed,
        mask=None if mask is None else torch.from_numpy(mask)[:, None],
    )
    result: Array = restored.movedim(1, -1).numpy()
    return result


def hole(picture: Array) -> Array:
    """A mask (1, H, W) with a rectangular hole."""
    mask = np.zeros(picture.shape[:3], np.float32)
    mask[:, 10:25, 12:40] = 1
    return mask


@pytest.mark.parametrize("name", ["sr_x4", "sr_x2", "sr_x1", "deblur"])
def test_node_equals_the_library(restore_in_comfyui: Run, picture: Array, name: str) -> None:
    restored = restore_in_comfyui(picture, f"{name}.safetensors", seed=3)
    np.testing.assert_allclose(restored, outside_comfyui(picture, name, 3), atol=1e-5)


def test_inpainting_equals_the_library(restore_in_comfyui: Run, picture: Array) -> None:
    mask = hole(picture)
    restored = restore_in_comfyui(picture, "inpainting.safetensors", mask, seed=3)
    np.testing.assert_allclose(restored, outside_comfyui(picture, "inpainting", 3, mask), atol=1e-5)
    kept = mask == 0
    np.testing.assert_allclose(restored[kept], picture[kept], atol=1e-6)
    assert np.abs(restored - picture)[~kept].max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (41, 8)])
def test_any_size(restore_in_comfyui: Run, picture: Array, size: tuple[int, int]) -> None:
    image = np.resize(picture, (1, *size, 3))
    restored = restore_in_comfyui(image, "sr_x4.safetensors")
    assert restored.shape == (1, 4 * size[0], 4 * size[1], 3)


# The seed matters, and nothing else does.


def test_seed_changes_the_result(restore_in_comfyui: Run, picture: Array) -> None:
    first, second = (restore_in_comfyui(picture, seed=seed) for seed in (1, 2))
    assert np.abs(first - second).max() > 1e-4


def test_same_seed_same_result_whatever_ran_before(
    server: Server, restore_in_comfyui: Run, picture: Array
) -> None:
    first = restore_in_comfyui(picture, seed=5)
    disturb = {
        "image": node("TestLoadTensor", file=unique_copy(server, picture)),
        "random": node("TestUseRandomness", image=["image", 0], seed=9),
        "save": node("TestSaveTensor", image=["random", 0], file="disturbed.npy"),
    }
    server.run(disturb)
    restore_in_comfyui(picture, "deblur.safetensors", seed=6)
    np.testing.assert_array_equal(restore_in_comfyui(picture, seed=5), first)


def test_model_works_again_after_its_memory_was_freed(
    server: Server, restore_in_comfyui: Run, picture: Array
) -> None:
    first = restore_in_comfyui(picture, "deblur.safetensors")
    server.post("/free", {"unload_models": True, "free_memory": False})
    np.testing.assert_array_equal(restore_in_comfyui(picture, "deblur.safetensors"), first)


def test_restoring_leaves_the_global_random_state(server: Server, picture: Array) -> None:
    def random_image(with_restoration: bool) -> Array:
        prompt = {
            "image": node("TestLoadTensor", file=unique_copy(server, picture)),
            "seeded": node("TestUseRandomness", image=["image", 0], seed=1),
            "load": node("DiffIRLoader", model_name="sr_x1.safetensors"),
            "restore": node(
                "DiffIRRestore", model=["load", 0], image=["seeded", 0], seed=0, strip=0
            ),
            "noise": node("TestDrawNoise", image=["restore" if with_restoration else "seeded", 0]),
            "save": node("TestSaveTensor", image=["noise", 0], file="noise.npy"),
        }
        server.run(prompt)
        noise: Array = np.load(server.base / "output" / "noise.npy")
        return noise

    np.testing.assert_array_equal(random_image(True), random_image(False))


def test_each_image_of_a_batch_is_as_if_alone(restore_in_comfyui: Run, picture: Array) -> None:
    batch = np.concatenate([picture, picture[:, ::-1], picture])
    together = restore_in_comfyui(batch, seed=7)
    assert len(together) == 3
    for index in range(3):
        alone = restore_in_comfyui(batch[index : index + 1], seed=7 + index)
        np.testing.assert_array_equal(together[index], alone[0])
    assert np.abs(together[0] - together[2]).max() > 1e-4  # equal images, other seeds


def test_shared_noise_makes_equal_frames_equal(restore_in_comfyui: Run, picture: Array) -> None:
    batch = np.concatenate([picture, picture[:, ::-1], picture])
    shared = restore_in_comfyui(batch, seed=7, noise="shared")
    np.testing.assert_array_equal(shared[2], shared[0])
    np.testing.assert_array_equal(restore_in_comfyui(batch[1:2], seed=7), shared[1:2])
    assert np.abs(restore_in_comfyui(batch, seed=7, noise="per image")[2] - shared[2]).max() > 1e-4


def test_largest_seed_goes_on_at_zero(restore_in_comfyui: Run, picture: Array) -> None:
    together = restore_in_comfyui(np.concatenate([picture, picture]), seed=2**64 - 1)
    np.testing.assert_array_equal(together[1:], restore_in_comfyui(picture, seed=0))


@pytest.mark.parametrize("name", ["sr_x4", "deblur"])
def test_strip_does_not_change_the_result(
    restore_in_comfyui: Run, picture: Array, name: str
) -> None:
    whole = restore_in_comfyui(picture, f"{name}.safetensors")
    for strip in (1, 7, 4096):
        strips = restore_in_comfyui(picture, f"{name}.safetensors", strip=strip)
        np.testing.assert_allclose(strips, whole, atol=1e-5)


def test_model_changes_the_result(restore_in_comfyui: Run, picture: Array) -> None:
    deblurred = restore_in_comfyui(picture, "deblur.safetensors")
    cleaned = restore_in_comfyui(picture, "sr_x1.safetensors")
    assert np.abs(deblurred - cleaned).max() > 0.01


@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16"])
def test_half_precision_deviates_a_little(
    restore_in_comfyui: Run, picture: Array, weight_dtype: str
) -> None:
    loader = {"weight_dtype": weight_dtype}
    exact = restore_in_comfyui(picture, "deblur.safetensors", loader={"weight_dtype": "default"})
    half = restore_in_comfyui(picture, "deblur.safetensors", loader=loader)
    assert 0 < np.abs(half - exact).max() < 0.05


def test_model_file_that_was_written_anew_is_loaded_anew(
    server: Server, restore_in_comfyui: Run, picture: Array
) -> None:
    path = server.base / "models" / "upscale_models" / "training.safetensors"
    for seed in (1, 2):
        save_checkpoint(random_model(CONFIGS["deblur"], seed), path)
        restored = restore_in_comfyui(picture, path.name)
        model = load_model(path)
        expected = restore(torch.from_numpy(picture).movedim(-1, 1), model).movedim(1, -1)
        np.testing.assert_allclose(restored, expected.numpy(), atol=1e-5)


# Channels and masks.


def test_alpha_is_enlarged_and_kept(restore_in_comfyui: Run, picture: Array) -> None:
    alpha = np.zeros((1, 40, 56, 1), np.float32)
    alpha[:, :, 28:] = 1
    restored = restore_in_comfyui(np.concatenate([picture, alpha], axis=-1))
    assert restored.shape == (1, 160, 224, 4)
    # What lies hidden does not matter, and where nothing is hidden alpha does not.
    other = picture.copy()
    other[:, :, :28] = 1 - other[:, :, :28]
    again = restore_in_comfyui(np.concatenate([other, alpha], axis=-1))
    np.testing.assert_array_equal(again, restored)
    visible = restore_in_comfyui(np.concatenate([picture, 0.5 + 0.5 * alpha], axis=-1))
    np.testing.assert_array_equal(visible[..., :3], restore_in_comfyui(picture))
    assert restored[:, :, :100, 3].max() < 1e-6 and restored[:, :, 124:, 3].min() > 1 - 1e-6


def test_grey_image_is_restored_as_rgb(restore_in_comfyui: Run, picture: Array) -> None:
    grey = picture[..., :1]
    restored = restore_in_comfyui(grey)
    np.testing.assert_array_equal(restored, restore_in_comfyui(grey.repeat(3, axis=-1)))


def test_one_mask_serves_the_batch(restore_in_comfyui: Run, picture: Array) -> None:
    batch = np.concatenate([picture, picture[:, ::-1]])
    mask = hole(picture)
    shared = restore_in_comfyui(batch, "inpainting.safetensors", mask)
    own = restore_in_comfyui(batch, "inpainting.safetensors", mask.repeat(2, axis=0))
    np.testing.assert_array_equal(shared, own)


def test_each_image_has_its_own_mask(restore_in_comfyui: Run, picture: Array) -> None:
    batch = np.concatenate([picture, picture])
    masks = np.concatenate([hole(picture), np.zeros_like(hole(picture))])
    restored = restore_in_comfyui(batch, "inpainting.safetensors", masks)
    np.testing.assert_allclose(restored[1], picture[0], atol=1e-6)
    assert np.abs(restored[0] - picture[0]).max() > 0.01


# What cannot work is refused in one sentence.


@pytest.mark.parametrize(
    ("model", "mask_shape", "words"),
    [
        ("inpainting", None, ["mask", "inpainting", "MaskEditor", "MASK"]),
        ("inpainting", (0, 40, 56), ["at least one picture"]),
        ("inpainting", (1, 64, 64), ["mask", "64"]),
        ("inpainting", (3, 40, 56), ["mask", "3"]),
        ("sr_x4", (1, 40, 56), ["mask", "inpainting"]),
    ],
)
def test_unfit_mask_is_refused(
    restore_in_comfyui: Run,
    picture: Array,
    model: str,
    mask_shape: tuple[int, int, int] | None,
    words: list[str],
) -> None:
    mask = None if mask_shape is None else np.ones(mask_shape, np.float32)
    image = picture.repeat(2, axis=0)
    with pytest.raises(Failed) as failure:
        restore_in_comfyui(image, f"{model}.safetensors", mask)
    require_sentence(failure.value, words)
    assert failure.value.node_type == "DiffIRRestore"


def test_nan_in_the_picture_is_refused(restore_in_comfyui: Run, picture: Array) -> None:
    picture[0, 5, 5, 1] = np.nan
    with pytest.raises(Failed) as failure:
        restore_in_comfyui(picture)
    require_sentence(failure.value, ["NaN"])


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("stage1.safetensors", ["stage 1", "stage 2"]),
        ("truncated.safetensors", ["download"]),
        ("empty.pth", ["empty"]),
        ("esrgan.pth", ["Load Upscale Model"]),
        ("code.pth", ["code"]),
        ("page.pth", ["web page"]),
        ("absent.safetensors", ["models/diffir"]),
    ],
)
def test_wrong_file_is_refused_before_anything_runs(
    server: Server, restore_in_comfyui: Run, picture: Array, file: str, words: list[str]
) -> None:
    with pytest.raises(Refused) as refused:
        restore_in_comfyui(picture, file)
    require_sentence(refused.value.details["DiffIRLoader", "model_name"], [file, *words])
    assert not list(server.base.rglob("executed-by-a-checkpoint"))
    assert restore_in_comfyui(picture).shape == (1, 160, 224, 3)  # the server goes on


@pytest.mark.parametrize("kind", ["DiffIRLoader", "DiffBIRControlNetLoader"])
def test_the_name_of_a_file_may_come_from_another_node(server: Server, kind: str) -> None:
    """It is known when the node runs, and a wrong one is said there."""
    inputs, wrong = {
        "DiffIRLoader": ("model_name", ["absent.safetensors", "models/diffir"]),
        "DiffBIRControlNetLoader": ("control_net_name", ["absent.safetensors", "controlnet"]),
    }[kind]
    prompt = {
        "name": node("TestText", text="absent.safetensors"),
        "load": node(kind, **{inputs: ["name", 0]}),
        "show": node("PreviewAny", source=["load", 1]),
    }
    with pytest.raises(Failed) as failure:
        server.run(prompt)
    require_sentence(failure.value, wrong)
    assert (failure.value.node_type, failure.value.exception_type) == (kind, "ValueError")
    if kind == "DiffIRLoader":
        prompt["name"]["inputs"]["text"] = "inpainting.safetensors"
        assert "inpainting" in server.run(prompt)["show"]["text"][0]
    assert "WARNING: " not in server.log()  # as ComfyUI says that a fingerprint failed


def test_damaged_numbers_are_refused(restore_in_comfyui: Run, picture: Array) -> None:
    with pytest.raises(Failed) as failure:
        restore_in_comfyui(picture, "nan.safetensors")
    require_sentence(failure.value, ["nan.safetensors", "NaN"])
    assert failure.value.node_type == "DiffIRLoader"
    assert failure.value.exception_type == "ValueError"  # another shows a path to the user


def test_what_load_image_gives_without_a_mask_is_none(
    restore_in_comfyui: Run, picture: Array
) -> None:
    with pytest.raises(Failed) as failure:
        restore_in_comfyui(picture, "inpainting.safetensors", np.zeros((1, 64, 64), np.float32))
    require_sentence(failure.value, ["MaskEditor", "MASK"])


@pytest.mark.parametrize("inputs", [{"seed": -1}, {"strip": -1}, {"seed": 2**64}])
def test_numbers_out_of_range_are_refused(
    restore_in_comfyui: Run, picture: Array, inputs: dict[str, int]
) -> None:
    with pytest.raises(Refused):
        restore_in_comfyui(picture, **inputs)


def require_sentence(failure: Failed | str, words: list[str]) -> None:
    message = str(failure).strip()
    assert "\n" not in message and message.endswith("."), message
    assert all(word in message for word in words), message


def test_description_says_what_the_model_is(server: Server) -> None:
    prompt = {
        "load": node("DiffIRLoader", model_name="inpainting.safetensors"),
        "show": node("PreviewAny", source=["load", 1]),
    }
    (text,) = server.run(prompt)["show"]["text"]
    assert "inpainting" in text and "mask" in text
