"""Every workflow file: it runs, both forms say the same, and ComfyUI offers it as a template."""

import json
from pathlib import Path

import numpy as np
import pytest
from comfyui.graph import to_prompt
from comfyui.harness import PACK, Prompt, Server
from comfyui.models import CONFIGS
from PIL import Image

TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
# The small model that takes the place of a file which the user has to bring.
FIXTURES = {
    "builtin: DiffIR x4 (small)": "sr_x4.safetensors",
    "DiffIRS2-deblur.pth": "deblur.safetensors",
    "DiffIRS2-place.ckpt": "inpainting.safetensors",
}
SIZE = (48, 40)  # width and height

each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)


def load_prompt(template: Path) -> Prompt:
    path = template.parent / "api" / template.name
    prompt: Prompt = json.loads(path.read_text(encoding="utf-8"))
    return prompt


def test_templates_are_found() -> None:
    assert [path.stem for path in TEMPLATES] == [
        "DiffIR_deblur",
        "DiffIR_inpainting",
        "DiffIR_super_resolution",
    ]


@each_template
def test_api_workflow_runs(server: Server, template: Path) -> None:
    picture = Image.effect_noise(SIZE, 40).convert("RGB")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE).point(lambda v: 255 * (v > 80)))
    picture.save(server.base / "input" / f"{template.stem}.png")
    prompt = load_prompt(template)
    for entry in prompt.values():
        for name, value in entry["inputs"].items():
            if name == "model_name":
                entry["inputs"][name] = FIXTURES[value]
            elif value == "example.png":
                entry["inputs"][name] = f"{template.stem}.png"
    outputs = server.run(prompt)
    (saved,) = outputs["4"]["images"]
    with Image.open(server.base / "output" / saved["filename"]) as result:
        loader = next(e["inputs"] for e in prompt.values() if e["class_type"] == "DiffIRLoader")
        scale = CONFIGS[loader["model_name"].removesuffix(".safetensors")].scale
        assert result.size == (SIZE[0] * scale, SIZE[1] * scale)
        assert np.asarray(result).std() > 1


@each_template
def test_interface_and_api_form_give_the_same_prompt(server: Server, template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    assert to_prompt(workflow, server.get("/object_info")) == load_prompt(template)


@each_template
def test_links_of_the_interface_form_are_complete(template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    nodes = {entry["id"]: entry for entry in workflow["nodes"]}
    assert workflow["last_node_id"] == max(nodes)
    assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])
    for link, source, output, target, socket, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[source]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][socket]["link"] == link
        assert nodes[target]["inputs"][socket]["type"] == kind


@each_template
def test_template_is_offered_with_its_picture(server: Server, template: Path) -> None:
    assert template.stem in server.get("/workflow_templates")[server.pack_name]
    address = f"/api/workflow_templates/{server.pack_name}/{template.stem}"
    assert json.loads(server.fetch(address + ".json"))["nodes"]
    thumbnail = template.with_suffix(".jpg")
    assert server.fetch(address + ".jpg") == thumbnail.read_bytes()
    with Image.open(thumbnail) as picture:
        assert picture.size == (512, 512)


@each_template
def test_note_says_which_file_goes_where(template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    (note,) = [e["widgets_values"][0] for e in workflow["nodes"] if e["type"] == "MarkdownNote"]
    assert "models/upscale_models" in note or "models/diffir" in note


def test_super_resolution_runs_without_any_file(server: Server) -> None:
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    picture.save(server.base / "input" / "example.png")
    outputs = server.run(load_prompt(PACK / "workflows" / "DiffIR_super_resolution.json"))
    (saved,) = outputs["4"]["images"]
    with Image.open(server.base / "output" / saved["filename"]) as result:
        assert result.size == (64, 64)
