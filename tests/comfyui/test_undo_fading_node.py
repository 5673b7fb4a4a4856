"""BIRUndoFading in the real server."""

from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Prompt, Server, node, unique_copy

from bir_core.images import from_channels_last
from bir_core.old_photo import find_levels


@pytest.fixture
def prints() -> Array:
    """(2, 60, 80, 3): a faded one, and a toned one with a scratch."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(2, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(small, (60, 80), mode="bicubic").clamp(0, 1)
    images[..., :2, :2], images[..., -2:, -2:] = 0, 1
    faded = 0.2 + 0.6 * images[:1]
    toned = images[1:].mean(1, keepdim=True) ** torch.tensor([0.8, 1.0, 1.3]).view(3, 1, 1)
    toned = 0.15 + 0.7 * toned
    toned[..., 30:33, :] = 1
    return torch.cat([faded, toned]).movedim(1, -1).numpy()


def undone(server: Server, image: Array, mask: Array | None = None, **inputs: Any) -> Array:
    given = {"strength": 1.0, "keep_tone": False, **inputs}
    prompt: Prompt = {"image": node("TestLoadTensor", file=unique_copy(server, image))}
    if mask is not None:
        prompt["painted"] = node("TestLoadTensor", file=unique_copy(server, mask))
        prompt["mask"] = node("ImageToMask", image=["painted", 0], channel="red")
        given["mask"] = ["mask", 0]
    prompt["undo"] = node("BIRUndoFading", image=["image", 0], **given)
    prompt["save"] = node("TestSaveTensor", image=["undo", 0], file="undone.npy")
    server.run(prompt)
    return np.load(server.base / "output" / "undone.npy")


def expected(image: Array, damage: torch.Tensor | None = None, **more: Any) -> Array:
    one = from_channels_last(torch.from_numpy(image))
    return find_levels(one, damage, **more).undone(one).movedim(1, -1).numpy()


def test_each_of_a_batch_equals_bir_core(server: Server, prints: Array) -> None:
    result = undone(server, prints)
    for index in range(2):
        one = prints[index : index + 1]
        np.testing.assert_allclose(result[index : index + 1], expected(one), atol=1e-6)
    assert not np.allclose(result, prints, atol=0.02)


def test_each_input_counts(server: Server, prints: Array) -> None:
    toned = prints[1:]
    mask = np.zeros((1, 60, 80, 3), np.float32)
    mask[:, 29:34] = 1
    damage = torch.from_numpy(mask)[..., 0][:, None]
    whole = undone(server, toned, mask)
    np.testing.assert_allclose(whole, expected(toned, damage), atol=1e-6)
    assert not np.allclose(whole, undone(server, toned), atol=0.01)
    kept = undone(server, toned, mask, keep_tone=True)
    np.testing.assert_allclose(kept, expected(toned, damage, keep_tone=True), atol=1e-6)
    assert not np.allclose(kept, whole, atol=0.01)
    half = undone(server, toned, mask, strength=0.5)
    np.testing.assert_allclose(half, (whole + toned) / 2, atol=1e-6)


def test_alpha_stays(server: Server, prints: Array) -> None:
    alpha = np.linspace(0.5, 1, 80, dtype=np.float32) * np.ones((2, 60, 1), np.float32)
    result = undone(server, np.concatenate([prints, alpha[..., None]], axis=-1))
    np.testing.assert_allclose(result[..., 3], alpha, atol=1e-6)
    np.testing.assert_allclose(result[..., :3], undone(server, prints), atol=1e-6)
