"""Saved graphs and programs find every node, input and output where they were."""

import json
from pathlib import Path
from typing import Any

import pytest
from comfyui.harness import PACK, Server

RECORD = Path(__file__).parent.parent / "data" / "node_interfaces.json"
RECORDED: dict[str, dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8"))
NODES = sorted(page.stem for page in (PACK / "nodes" / "web" / "docs").glob("*.md"))


def kinds(groups: dict[str, Any]) -> list[list[str]]:
    """[name, type] of each input in its order; those of a choice with inputs of its own behind it,
    as choice:name."""
    found = []
    for group in ("required", "optional"):
        for name, (kind, *settings) in groups.get(group, {}).items():
            found.append([name, "COMBO" if isinstance(kind, list) else kind])
            options = settings[0].get("options", []) if settings else []
            for option in options:
                if isinstance(option, dict):
                    own = kinds(option["inputs"])
                    found += [[f"{option['key']}:{inner}", kind] for inner, kind in own]
    return found


def interface(server: Server, name: str) -> dict[str, Any]:
    info = server.get(f"/object_info/{name}")[name]
    return {"inputs": kinds(info["input"]), "outputs": info["output"]}


def test_nothing_that_was_promised_has_gone(server: Server) -> None:
    for name, promised in RECORDED.items():
        now = interface(server, name)
        kept = [each for each in now["inputs"] if each in promised["inputs"]]
        assert kept == promised["inputs"], f"{name} lost or moved inputs"
        assert now["outputs"][: len(promised["outputs"])] == promised["outputs"], name


@pytest.mark.parametrize("name", NODES)
def test_everything_is_promised(server: Server, name: str) -> None:
    now = interface(server, name)
    assert RECORDED.get(name) == now, f'add to {RECORD.name}: "{name}": {json.dumps(now)}'
