"""One ComfyUI server for the tests of this folder, and what they all do with it.

Without ComfyUI (see `harness.find_comfyui`) these tests are skipped.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_models import CONFIG, control_weights, unet_weights, write_diffbir_models
from comfyui.harness import (
    FAILED,
    RUNNING,
    Prompt,
    Server,
    find_comfyui,
    find_python,
    node,
    unique_copy,
)
from comfyui.models import write_models
from comfyui.vae_models import DECODER_WIDTH, vae_weights
from numpy.typing import NDArray

from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.unet import SDUNet


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Any:
    """Show with a failure what the servers say that the test has used, and remember it."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for each in RUNNING:
            if each.touched:
                report.sections.append((f"end of the log of {each.pack_name}", each.log()[-3000:]))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Any:
    """Leave the next test servers that run, and nothing in them. A fixture would not do: it is not
    set up where a fixture of the module fails, and that may have queued prompts."""
    try:
        return (yield)
    finally:
        for each in RUNNING:
            each.settle(item.stash.get(FAILED, False))


@pytest.fixture(scope="session")
def comfyui() -> tuple[Path, str]:
    """The folder of ComfyUI and its Python."""
    folder = find_comfyui()
    if folder is None:
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to its folder to run these tests")
    python = find_python(folder)
    if python is None:
        pytest.skip(f"no Python with ComfyUI's requirements for {folder}: set COMFYUI_PYTHON")
    return folder, python


@pytest.fixture(scope="session")
def start_server(
    comfyui: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Server]:
    """Prepares a server whose pack folder has another name than this one."""

    def start(pack_name: str) -> Server:
        return Server(*comfyui, tmp_path_factory.mktemp("comfyui"), pack_name)

    return start


@pytest.fixture(scope="session")
def server(start_server: Callable[[str], Server]) -> Iterator[Server]:
    """The server of most tests; the pack is a symbolic link in its `custom_nodes`."""
    prepared = start_server("comfyui-bir-linked")
    prepared.link_pack()
    write_models(prepared.base / "models")
    with prepared:
        yield prepared


@pytest.fixture(scope="session")
def diffbir_server(server: Server) -> Server:
    """The same server with mini networks of DiffBIR in its model folders."""
    write_diffbir_models(server.base / "models")
    return server


@pytest.fixture(scope="session")
def networks() -> dict[str, torch.nn.Module]:
    """Those of the server's model folders, for `bir_core.DiffBIR`."""
    unet, control = SDUNet(CONFIG), IRControlNet(CONFIG)
    unet.load_state_dict(unet_weights())
    control.load_state_dict(control_weights())
    vae = SDVAE(VAEConfig())
    vae.decoder = SDVAE(VAEConfig(ch=DECODER_WIDTH)).decoder
    vae.load_state_dict({name: value.half().float() for name, value in vae_weights().items()})
    networks = {"sd_unet": unet, "ir_controlnet": control, "sd_vae": vae}
    for network in networks.values():
        network.eval().requires_grad_(False)
    return networks


@pytest.fixture
def restore_in_comfyui(server: Server) -> Callable[..., NDArray[np.float32]]:
    """Run DiffIRLoader and DiffIRRestore on an array (B, H, W, C); every bit of the result comes
    back. Keywords other than `mask`, `model_name` and `loader` are inputs of DiffIRRestore."""

    def run(
        image: NDArray[np.float32],
        model_name: str = "sr_x4.safetensors",
        mask: NDArray[np.float32] | None = None,
        loader: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> NDArray[np.float32]:
        # The server reuses what it computed for equal inputs, and of a file it sees the name only.
        file = unique_copy(server, image)
        prompt: Prompt = {
            "load": node("DiffIRLoader", model_name=model_name, **(loader or {})),
            "image": node("TestLoadTensor", file=file),
            "restore": node(
                "DiffIRRestore", model=["load", 0], image=["image", 0], **{"seed": 0, **inputs}
            ),
            "save": node("TestSaveTensor", image=["restore", 0], file="restored.npy"),
        }
        if mask is not None:
            prompt["mask"] = node("TestLoadTensor", file=unique_copy(server, mask))
            prompt["restore"]["inputs"]["mask"] = ["mask", 1]
        server.run(prompt)
        output = server.base / "output" / "restored.npy"
        properties = json.loads(output.with_name("restored.npy.json").read_text())
        assert properties == {"dtype": "torch.float32", "device": "cpu", "contiguous": True}
        restored: NDArray[np.float32] = np.load(output)
        assert restored.min() >= 0 and restored.max() <= 1
        return restored

    return run


@pytest.fixture
def picture() -> NDArray[np.float32]:
    """(1, 40, 56, 3): smooth shapes and a little noise."""
    rows, columns = np.mgrid[0:40, 0:56].astype(np.float32)
    waves = [np.sin(rows / (3 + c)) * np.cos(columns / (5 - c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 0.02, (40, 56, 3))
    image = np.stack(waves, axis=-1) * 0.3 + 0.5 + noise
    return np.clip(image, 0, 1).astype(np.float32)[None]
