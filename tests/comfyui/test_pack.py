"""How ComfyUI takes the folder in: names, links, help pages."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from comfyui.harness import PACK, Server, copy_pack

NODES = sorted(page.stem for page in (PACK / "nodes" / "web" / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def copied(
    start_server: Callable[[str], Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a copy of the pack, and a `diffir` folder named in the configuration."""
    prepared = start_server("BIR copy v0.1")
    copy_pack(prepared.base / "custom_nodes" / prepared.pack_name)
    configured = tmp_path_factory.mktemp("configured")
    (configured / "elsewhere").mkdir()
    (configured / "elsewhere" / "mine.safetensors").write_bytes(b"")
    paths = configured / "paths.yaml"
    paths.write_text(f"mine:\n  base_path: {configured.as_posix()}\n  diffir: elsewhere\n")
    prepared.command += ["--extra-model-paths-config", str(paths)]
    with prepared:
        yield prepared


def inputs_of(server: Server, name: str) -> dict[str, Any]:
    """What a user sees: output nodes have hidden inputs as well."""
    groups = server.get(f"/object_info/{name}")[name]["input"]
    return {**groups.get("required", {}), **groups.get("optional", {})}


def test_linked_folder_gives_the_nodes(server: Server) -> None:
    for name in NODES:
        info = server.get(f"/object_info/{name}")[name]
        assert info["python_module"] == f"custom_nodes.{server.pack_name}"
        assert info["description"]
    assert "IMPORT FAILED" not in server.log()


@pytest.mark.parametrize("name", NODES)
def test_every_input_explains_itself(server: Server, name: str) -> None:
    for input_name, (_, settings) in inputs_of(server, name).items():
        assert settings.get("tooltip"), input_name


@pytest.mark.parametrize("name", NODES)
def test_help_page_is_served(server: Server, name: str) -> None:
    page = server.fetch(f"/extensions/{server.pack_name}/docs/{name}.md").decode()
    assert page == (PACK / "nodes" / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for input_name in inputs_of(server, name):
        assert f"`{input_name}`" in page, f"{input_name} is not explained"


def test_models_of_both_folders_are_listed(server: Server) -> None:
    info = server.get("/object_info/DiffIRLoader")["DiffIRLoader"]
    kind, settings = info["input"]["required"]["model_name"]
    names = settings["options"] if kind == "COMBO" else kind
    assert names[0] == "builtin: DiffIR x4 (small)"
    assert {"sr_x4.safetensors", "inpainting.safetensors"} <= set(names)


def test_copied_folder_of_another_name_loads(copied: Server) -> None:
    for name in NODES:
        info = copied.get(f"/object_info/{name}")[name]
        assert info["python_module"] == f"custom_nodes.{copied.pack_name}"
    assert "IMPORT FAILED" not in copied.log() and "Traceback" not in copied.log()


def test_folder_of_the_users_configuration_is_searched(copied: Server) -> None:
    assert "mine.safetensors" in copied.fetch("/object_info/DiffIRLoader").decode()
