"""Every workflow file: it runs, both forms say the same, and ComfyUI offers it as a template."""

import json
from pathlib import Path

import numpy as np
import pytest
from comfyui.graph import to_prompt
from comfyui.harness import PACK, Prompt, Server, node
from PIL import Image

TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
# The small model that takes the place of a file which the user has to bring.
FIXTURES = {
    "builtin: DiffIR x4 (small)": "sr_x4.safetensors",
    "DiffIRS2-deblur.pth": "deblur.safetensors",
    "DiffIRS2-place.ckpt": "inpainting.safetensors",
    "DiffBIR_v2.1.pt": "mini_DiffBIR_v2.1.safetensors",
    "v2.pth": "mini_v2.safetensors",
    "realesrgan_s4_swinir_100k.pth": "swinir.safetensors",
    "face_swinir_v1.ckpt": "swinir.safetensors",
    "BSRNet.pth": "sr_x4.safetensors",
}
# What keeps the runs short: a small picture, few steps, several small tiles.
SHORTER = {
    "BIRRestorationModule": {"short_side": 0},
    "DiffBIRSampler": {"steps": 2, "tile_size": 128, "overlap": 64},
    "DiffBIRTiledDiffusion": {"tile_size": 128, "overlap": 64},
    "KSampler": {"steps": 2},
}
SIZE = (48, 40)  # width and height
SCALES = {
    "DiffIR_deblur": 1,
    "DiffIR_inpainting": 1,
    "DiffBIR_denoise": 1,
    "DiffBIR_face": 1,
}  # of the others: 4

each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)


def load_prompt(template: Path) -> Prompt:
    path = template.parent / "api" / template.name
    prompt: Prompt = json.loads(path.read_text(encoding="utf-8"))
    return prompt


def runnable(prompt: Prompt, picture: str) -> Prompt:
    """A workflow on the small models. They have no text encoder, so prompts become embeddings, and
    the checkpoint its parts."""
    small: Prompt = {}
    for key, entry in prompt.items():
        kind, inputs = entry["class_type"], dict(entry["inputs"])
        for name, value in inputs.items():
            if isinstance(value, str):
                inputs[name] = FIXTURES.get(value, picture if value == "example.png" else value)
        if kind == "CheckpointLoaderSimple":
            small[key] = node("UNETLoader", unet_name="sd21.safetensors", weight_dtype="default")
            small["vae"] = node("VAELoader", vae_name="tiny.safetensors")
        elif kind == "CLIPTextEncode":
            small[key] = node("TestZeroConditioning", value=len(inputs["text"]) / 100)
        else:
            small[key] = node(kind, **{**inputs, **SHORTER.get(kind, {})})
    base = next((k for k, e in prompt.items() if e["class_type"] == "CheckpointLoaderSimple"), None)
    for entry in small.values():
        for name, value in entry["inputs"].items():
            if value == [base, 2]:
                entry["inputs"][name] = ["vae", 0]
    return small


def test_templates_are_found() -> None:
    assert [path.stem for path in TEMPLATES] == [
        "DiffBIR_denoise",
        "DiffBIR_face",
        "DiffBIR_guidance",
        "DiffBIR_large_picture",
        "DiffBIR_super_resolution",
        "DiffBIR_v2_super_resolution",
        "DiffBIR_with_DiffIR",
        "DiffIR_deblur",
        "DiffIR_inpainting",
        "DiffIR_super_resolution",
        "Enlarge_photo",
        "Restore_photo",
    ]


@each_template
def test_api_workflow_runs(diffbir_server: Server, template: Path) -> None:
    picture = Image.effect_noise(SIZE, 40).convert("RGB")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE).point(lambda v: 255 * (v > 80)))
    picture.save(diffbir_server.base / "input" / f"{template.stem}.png")
    prompt = runnable(load_prompt(template), f"{template.stem}.png")
    outputs = diffbir_server.run(prompt)
    saves = [key for key, entry in prompt.items() if entry["class_type"] == "SaveImage"]
    assert len(saves) == (3 if template.stem == "DiffBIR_guidance" else 1)
    scale = SCALES.get(template.stem, 4)
    for key in saves:
        (saved,) = outputs[key]["images"]
        with Image.open(diffbir_server.base / "output" / saved["filename"]) as result:
            assert result.size == (SIZE[0] * scale, SIZE[1] * scale)
            assert np.asarray(result).std() > 1


def test_another_version_is_other_files_and_nothing_else() -> None:
    newest, older = (
        load_prompt(PACK / "workflows" / f"{name}.json")
        for name in ("DiffBIR_super_resolution", "DiffBIR_v2_super_resolution")
    )
    differing = {
        (entry["class_type"], name)
        for key, entry in newest.items()
        for name, value in entry["inputs"].items()
        if older[key]["inputs"][name] != value
    }
    assert differing == {
        ("CheckpointLoaderSimple", "ckpt_name"),
        ("DiffBIRControlNetLoader", "control_net_name"),
        ("UpscaleModelLoader", "model_name"),
        ("SaveImage", "filename_prefix"),
    }


@each_template
def test_interface_and_api_form_give_the_same_prompt(server: Server, template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    api_form = load_prompt(template)
    titles = {key: entry.pop("_meta")["title"] for key, entry in api_form.items()}
    assert to_prompt(workflow, server.get("/object_info")) == api_form
    assert all(titles.values())  # they are those that the interface gives, see `test_browser.py`


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
    """And the loaders tell the interface where to get a file, so that it can offer to."""
    workflow = json.loads(template.read_text(encoding="utf-8"))
    (note,) = [e["widgets_values"][0] for e in workflow["nodes"] if e["type"] == "MarkdownNote"]
    if not template.stem.startswith("DiffBIR"):
        assert "models/upscale_models" in note or "models/diffir" in note
        return
    models = [model for e in workflow["nodes"] for model in e["properties"].get("models", [])]
    assert len(models) >= 2
    for model in models:
        assert f"models/{model['directory']}/{model['name']}" in note
        assert model["url"] in note and model["url"].endswith("/" + model["name"])
    values = [v for e in workflow["nodes"] for v in e["widgets_values"] if isinstance(v, str)]
    files = {v for v in values if v.endswith((".pth", ".pt", ".ckpt"))}
    named = {model["name"] for model in models}
    # Stable Diffusion 2.1 base has no official page any more; the note says so.
    assert files - named <= {"v2-1_512-ema-pruned.ckpt"}
    assert all(name in note for name in files)


@pytest.mark.parametrize("name", ["DiffIR_super_resolution", "Enlarge_photo", "Restore_photo"])
def test_super_resolution_runs_without_any_file(server: Server, name: str) -> None:
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    picture.save(server.base / "input" / "example.png")
    outputs = server.run(load_prompt(PACK / "workflows" / f"{name}.json"))
    (saved,) = outputs["4"]["images"]
    with Image.open(server.base / "output" / saved["filename"]) as result:
        assert result.size == (64, 64)
