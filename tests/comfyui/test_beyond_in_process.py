"""Beyond Stable Diffusion 2.1, on small random networks: what is cut into tiles, and guidance."""

import os
from pathlib import Path

import pytest
from comfyui.harness import PACK
from progress import run
from safetensors import safe_open
from torch import Tensor

# Of the largest number of a latent: rounding of a few evaluations.
ROUNDING = 1e-5
Found = tuple[dict[str, Tensor], dict[str, str]]


@pytest.fixture(scope="module")
def found(comfyui: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder, python = comfyui
    script = Path(__file__).with_name("beyond_in_process.py")
    path = tmp_path_factory.mktemp("beyond") / "results.safetensors"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run([python, script, folder, PACK, path], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(
    "kind", ["plain", "area", "control net", "adapter", "supir", "guided", "flux"]
)
def test_each_tile_sees_its_part(found: Found, kind: str) -> None:
    """Stable Diffusion 1.5 and XL, eps and v, and Flux; in tiles as if alone, one or several at a
    time, in a batch or not."""
    alone, one, two, first, other_picture = found[0][f"tiles.{kind}"]
    scale = alone.abs().max()
    # Guidance divides by the noise level at each step, which makes more of the rounding.
    most = (3 if kind == "guided" else 1) * ROUNDING * scale
    for latent in (one, two, first):
        assert (latent - alone).abs().max() < most
    without_picture = kind in ("plain", "area", "flux")
    assert ((other_picture - alone).abs().max() < 100 * ROUNDING * scale) == without_picture


def test_one_tile_of_supir_is_bit_equal_to_untiled(found: Found) -> None:
    untiled, tiled = found[0]["one tile"]
    assert tiled.equal(untiled)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sdxl v", "sdxl edm"])
def test_guidance_pulls_to_the_image(found: Found, name: str) -> None:
    """Also where the model has a continuous time, as Playground's does."""
    *latents, target = found[0][f"guided.{name}"]
    none, weak, strong = (float((latent - target).square().mean()) for latent in latents)
    assert strong < 0.98 * none and strong < weak < none


def test_what_would_be_wrong_is_refused(found: Found) -> None:
    said = found[1]
    assert "but a flow model came" in said["flow"]
    assert "should have the size of the picture that is sampled, 64 x 128" in said["other size"]
    assert "a model patch with a control picture came" in said["whole picture"]


def test_only_decoders_that_do_no_more_are_cut(found: Found) -> None:
    cut = {name: found[1][f"decoder, {name}"] for name in ("sd", "flux", "svd", "hunyuan image")}
    assert cut == {"sd": "True", "flux": "True", "svd": "False", "hunyuan image": "False"}


def test_frames_of_a_video_become_images(found: Found) -> None:
    assert found[0]["frames"].shape == (6, 8, 8, 3)
