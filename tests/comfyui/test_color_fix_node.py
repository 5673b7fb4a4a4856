"""BIRColorFix: the numbers of bir_core, clamped, with alpha and batches."""

from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Server, node, unique_copy

from bir_core.diffbir.color_fix import adain_color_fix, wavelet_color_fix
from bir_core.images import from_channels_last, to_channels_last

METHODS = {"wavelet": wavelet_color_fix, "adain": adain_color_fix}


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    """Pictures (2, 40, 56, 3) whose fix leaves [0, 1]."""
    image, reference = np.random.default_rng(4).random((2, 2, 40, 56, 3), np.float32)
    return image, (reference * 0.2 + 0.8).astype(np.float32)


def fixed(server: Server, image: Array, reference: Array, **inputs: Any) -> Array:
    prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "reference": node("TestLoadTensor", file=unique_copy(server, reference)),
        "fix": node("BIRColorFix", image=["image", 0], reference=["reference", 0], **inputs),
        "save": node("TestSaveTensor", image=["fix", 0], file="fixed.npy"),
    }
    server.run(prompt)
    result: Array = np.load(server.base / "output" / "fixed.npy")
    return result


@pytest.mark.parametrize("method", METHODS)
def test_equals_bir_core_clamped(server: Server, pair: tuple[Array, Array], method: str) -> None:
    content, style = (from_channels_last(torch.from_numpy(picture)) for picture in pair)
    expected = to_channels_last(METHODS[method](content, style))
    assert expected.max() > 1
    ours = fixed(server, *pair, method=method)
    assert np.abs(ours - expected.clamp(0, 1).numpy()).max() < 1e-6
    as_they_are = fixed(server, *pair, method=method, clamp=False)
    assert np.abs(as_they_are - expected.numpy()).max() < 1e-6


def test_none_takes_the_colours_of_grey_pictures_only(
    server: Server, pair: tuple[Array, Array]
) -> None:
    """An enlarged one, as behind Upscale Image (using Model)."""
    image, reference = pair
    small = reference[:, ::2, ::2].copy()
    small[0] = small[0, ..., :1]
    ours = fixed(server, image, small, method="none")
    assert np.array_equal(ours[0], ours[0, ..., :1].repeat(3, -1))
    assert np.abs(ours[0, ..., 0] - image[0] @ [0.299, 0.587, 0.114]).max() < 1e-6
    assert np.array_equal(ours[1], image[1])


def test_one_reference_serves_the_batch_and_alpha_stays(
    server: Server, pair: tuple[Array, Array]
) -> None:
    image, reference = pair
    both = fixed(server, image, reference[:1], method="wavelet")
    assert np.array_equal(both, fixed(server, image, reference[[0, 0]], method="wavelet"))
    alpha = np.random.default_rng(5).random((2, 40, 56, 1), np.float32)
    with_alpha = fixed(server, np.concatenate([image, alpha], -1), reference[:1], method="wavelet")
    assert np.array_equal(with_alpha[..., :3], both)
    assert np.abs(with_alpha[..., 3:] - alpha).max() < 1e-6


def test_reference_of_another_size(server: Server, pair: tuple[Array, Array]) -> None:
    image, reference = pair
    flat = np.full_like(reference[:1, :20, :28], 0.25)
    ours = fixed(server, image, flat, method="adain")
    assert np.abs(ours.mean(axis=(1, 2)) - 0.25).max() < 0.05
    with pytest.raises(Failed, match="resize the reference"):
        fixed(server, image, flat, method="adain", resize_reference=False)


def test_references_for_another_batch_are_refused(
    server: Server, pair: tuple[Array, Array]
) -> None:
    image, reference = pair
    with pytest.raises(Failed, match="one for each of the 2 images, but 3 came"):
        fixed(server, image, reference[[0, 1, 0]], method="wavelet")
