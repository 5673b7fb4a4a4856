"""ComfyUI's own network, samplers and guider with our weights, schedule and condition, against the
numbers of the official code."""

import json
from pathlib import Path

import pytest
import torch
from comfyui.harness import PACK
from parity import DATA, load_vectors
from progress import run
from safetensors import safe_open
from torch import Tensor

Found = tuple[dict[str, Tensor], dict[str, str]]
LATENT_SCALE = 0.18215


@pytest.fixture(scope="module")
def found(comfyui: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Tensors and sentences of `diffbir_in_process.py`, run by ComfyUI's Python."""
    folder, python = comfyui
    results = tmp_path_factory.mktemp("in_process") / "results.safetensors"
    script = Path(__file__).with_name("diffbir_in_process.py")
    done = run([python, script, folder, PACK, DATA, results], cwd=results.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(results, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(("name", "count"), [("small4", 13), ("tiny", 5)])
def test_network_of_the_host_equals_official(found: Found, name: str, count: int) -> None:
    vectors, _ = load_vectors(f"diffbir_controlnet_{name}")
    ours = {key: value for key, value in found[0].items() if key.startswith(f"control.{name}.")}
    assert len(ours) == count
    for index in range(count):
        official = vectors[f"control.{index}"]
        difference = (ours[f"control.{name}.{index}"] - official).abs().max()
        assert difference <= 1e-4 * official.abs().max()


@pytest.mark.parametrize(("name", "size"), [("default", 4), ("fp8_e4m3fn", 1)])
def test_weights_are_stored_as_asked_for(found: Found, name: str, size: int) -> None:
    tensors, _ = found
    for dynamic in (False, True):
        assert tensors[f"type.{dynamic}.{name}"].tolist() == [size]
    assert torch.equal(tensors[f"weight.True.{name}"], tensors[f"weight.False.{name}"])


def test_copy_in_float32_of_a_net_in_half_precision(found: Found) -> None:
    of = {name: found[0][f"float32.{name}"] for name in ("half", "wide", "exact", "half again")}
    assert (of["half"].dtype, of["wide"].dtype) == (torch.float16, torch.float32)
    torch.testing.assert_close(of["wide"], of["exact"], rtol=1e-5, atol=1e-5)
    assert (of["half"].float() - of["exact"]).abs().max() > 1e-4
    assert torch.equal(of["half again"], of["half"])


@pytest.mark.parametrize("index", [0, 1, 2, 22, 23, 24])
def test_stock_ddpm_on_our_schedule_equals_the_official_sampler(found: Found, index: int) -> None:
    vectors, metadata = load_vectors("diffbir_samplers")
    case = next(case for case in json.loads(metadata["cases"]) if case["i"] == index)
    ours, official = found[0][f"trajectory.{index}"], vectors[f"traj.{index}"]
    # ComfyUI starts a zero-SNR schedule at sigma 4519 instead of infinity.
    tolerance = 1e-5 if case["schedule"] == "plain" else 1e-3
    assert (ours - official).abs().max() <= tolerance * official.abs().max()


@pytest.mark.parametrize("index", [6, 7, 8, 14, 15, 16, 19, 21, 28, 29, 30, 36, 37, 38, 41, 43])
def test_stock_samplers_on_our_schedule_equal_the_official_ones(found: Found, index: int) -> None:
    vectors, _ = load_vectors("diffbir_samplers")
    ours, official = found[0][f"edm.{index}"], vectors[f"out.{index}"]
    assert (ours - official).abs().max() <= 1e-5 * official.abs().max()


@pytest.mark.parametrize("net", ["net", "clone"])
def test_hint_of_every_call_is_the_right_part(found: Found, net: str) -> None:
    tensors, _ = found
    full = tensors["hint.full"]
    image = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(image, 8) * LATENT_SCALE
    torch.testing.assert_close(full[:, :3], small)

    def hint(case: str) -> Tensor:
        return tensors[f"hint.{net}.{case}"]

    assert torch.equal(hint("whole"), torch.cat([full, full]))
    assert torch.equal(hint("areas"), torch.cat([full[..., :4, :8], full[..., 4:, 8:]]))
    tiles = [full[..., :8], full[..., 8:]]
    assert torch.equal(hint("tiles"), torch.cat(tiles * 2))
    assert torch.equal(hint("tile_of_area"), full[..., 5:7, 10:12])


def test_image_is_encoded_once(found: Found) -> None:
    tensors, _ = found
    assert int(tensors["encodings"]) == int(tensors["encodings_after_cleanup"]) == 1


def test_memory_is_asked_for(found: Found) -> None:
    assert bool((found[0]["memory"] > 0).all())


def test_wrong_models_are_said_before_sampling(found: Found) -> None:
    said = {name: text for name, text in found[1].items() if not name.startswith("attention")}
    assert said.keys() == {"sdxl", "sd15", "flux", "wider", "vae", "no_vae", "color"}
    assert "The colour fix should find memory" in said["color"]
    for name, model in [("sdxl", "SDXL"), ("sd15", "SD15"), ("flux", "Flux")]:
        assert f"{model} model" in said[name]
        assert "load Stable Diffusion 2.1 base" in said[name]
    assert "320 channels" in said["wider"]
    assert "16 channels" in said["vae"]
    assert "Apply ControlNet" in said["no_vae"]
    assert all(text.endswith(".") and text.count(". ") == 0 for text in said.values())


def test_the_log_names_the_faster_attention_once(found: Found) -> None:
    _, said = found
    assert said["attention False"].count("--use-pytorch-cross-attention") == 1
    assert said["attention True"] == ""
