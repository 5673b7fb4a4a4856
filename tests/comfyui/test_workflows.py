"""Every workflow file: it runs, both forms say the same, and ComfyUI offers it as a template."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui.graph import NOTES, to_prompt
from comfyui.harness import PACK, Prompt, Server, node
from comfyui.sdxl_models import write_sdxl_models
from PIL import Image

from bir_core.diffbir.versions import VERSIONS

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
    "controlnet-tile-sdxl-1.0.safetensors": "sdxl_tile.safetensors",
}
PIECE = 64  # pixels of the result, of the template that restores a piece
# What keeps the runs short: a small picture, few steps, several small tiles.
SHORTER = {
    "BIRRestorationModule": {"short_side": 0},
    "DiffBIRSampler": {"steps": 2, "tile_size": 128, "overlap": 64},
    "DiffBIRTiledDiffusion": {"tile_size": 128, "overlap": 64},
    "KSampler": {"steps": 2},
    "BIRTilePrompts": {"lines": "for all tiles"},
    "BIRTryCrop": {"side": PIECE, "place": {"x": 8, "y": 8, "width": 16, "height": 16}},
}
SIZE = (48, 40)  # width and height
FACE = [[18, 15], [30, 15], [24, 21], [19, 27], [29, 27]]  # eyes, nose, corners of the mouth
SAME_SIZE = (
    "Clean_photo_remove_noise_and_jpeg_artifacts",
    "Compare_two_methods_with_numbers",
    "Deblur_photo_motion_blur_DiffIR",
    "First_run_degrade_restore_compare",
    "Inpaint_photo_scratches_and_holes_DiffIR",
    "Prompt_for_every_tile_DiffBIR",
    "Remove_noise_DiffBIR",
    "Restore_single_face_DiffBIR",
)
# Of those that are not here: 4.
SCALES = {
    **dict.fromkeys(SAME_SIZE, 1),
    "Group_photo_restore_faces": 2,
    "Restore_old_photo_scratches_fading_noise": 2,
}
RESULTS = {"Compare_two_methods_with_numbers": 2, "Guidance_side_by_side_DiffBIR": 3}
# They run without a file from elsewhere; the folder needs one.
BUILT_IN = (
    "Clean_photo_remove_noise_and_jpeg_artifacts",
    "Compare_two_methods_with_numbers",
    "Enlarge_photo",
    "Enlarge_photo_DiffIR",
    "First_run_degrade_restore_compare",
    "Restore_old_photo_scratches_fading_noise",
    "Restore_photo",
)
APPS = (
    "Clean_photo_remove_noise_and_jpeg_artifacts",
    "Deblur_photo_motion_blur_DiffIR",
    "Enlarge_photo",
    "Remove_noise_DiffBIR",
    "Restore_single_face_DiffBIR",
)
MOST_VISIBLE = 6  # nodes of a DiffBIR template, but for its single steps and notes

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
            name = "sdxl" if inputs["ckpt_name"].startswith("sd_xl") else "sd21"
            small[key] = node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default")
            small["vae"] = node("VAELoader", vae_name="tiny.safetensors")
            small["clip"] = node("TestTextEncoder")
        elif kind == "CLIPTextEncode":
            small[key] = node("TestZeroConditioning", value=len(inputs["text"]) / 500)
        elif kind == "CLIPTextEncodeSDXL":
            value = len(inputs["text_g"]) / 500
            small[key] = node("TestZeroConditioning", value=value, channels=2048)
        elif kind == "BIRDetectFaces":
            where = {"landmarks": json.dumps([[FACE]]), "boxes": "[[]]"}
            small[key] = node("TestFaces", image=inputs["image"], **where)
        else:
            small[key] = node(kind, **{**inputs, **SHORTER.get(kind, {})})
    base = next((k for k, e in prompt.items() if e["class_type"] == "CheckpointLoaderSimple"), None)
    for entry in small.values():
        for name, value in entry["inputs"].items():
            if value in ([base, 1], [base, 2]):
                entry["inputs"][name] = ["clip" if value[1] == 1 else "vae", 0]
    return small


def of_piece(prompt: Prompt) -> bool:
    return any(entry["class_type"] == "BIRTryCrop" for entry in prompt.values())


def nodes_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the workflow and its subgraphs."""
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    return workflow["nodes"] + [entry for each in subgraphs for entry in each["nodes"]]


def test_templates_are_found() -> None:
    assert len(TEMPLATES) >= 14
    assert {*SAME_SIZE, *RESULTS, *BUILT_IN, *APPS} <= {path.stem for path in TEMPLATES}
    assert {path.name for path in TEMPLATES} == {
        path.name for path in (PACK / "workflows" / "api").glob("*.json")
    }


@each_template
def test_api_workflow_runs(diffbir_server: Server, template: Path) -> None:
    picture = Image.effect_noise(SIZE, 40).convert("RGB")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE).point(lambda v: 255 * (v > 80)))
    picture.save(diffbir_server.base / "input" / f"{template.stem}.png")
    (diffbir_server.base / "input" / "photos").mkdir(exist_ok=True)
    picture.save(diffbir_server.base / "input" / "photos" / "mine.png")
    if "SDXL" in template.stem:
        write_sdxl_models(diffbir_server.base / "models")
    prompt = runnable(load_prompt(template), f"{template.stem}.png")
    outputs = diffbir_server.run(prompt)
    saves = [key for key, entry in prompt.items() if entry["class_type"] == "SaveImage"]
    assert len(saves) == RESULTS.get(template.stem, 1)
    scale = SCALES.get(template.stem, 4)
    size = (PIECE, PIECE) if of_piece(prompt) else (SIZE[0] * scale, SIZE[1] * scale)
    for key in saves:
        (saved,) = outputs[key]["images"]
        with Image.open(diffbir_server.base / "output" / saved["filename"]) as result:
            assert result.size == size
            assert np.asarray(result).std() > 1


def test_another_version_is_other_files_and_nothing_else() -> None:
    newest, older = (
        load_prompt(PACK / "workflows" / f"{name}.json")
        for name in ("Restore_old_photo_DiffBIR", "Restore_old_photo_DiffBIR_v2")
    )
    differing = {
        (entry["class_type"], name)
        for key, entry in newest.items()
        for name, value in entry["inputs"].items()
        if older[key]["inputs"][name] != value
    }
    assert differing == {
        ("CLIPTextEncode", "text"),
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
    assert workflow["last_link_id"] >= max(link[0] for link in workflow["links"])
    for link, source, output, target, socket, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[source]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][socket]["link"] == link
        # A socket that takes several types names them all.
        assert kind in nodes[target]["inputs"][socket]["type"].split(",") or kind == "STRING"


@each_template
def test_nodes_say_where_they_come_from(template: Path) -> None:
    """So that the interface can offer the pack to somebody who lacks it."""
    workflow = json.loads(template.read_text(encoding="utf-8"))
    project = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    subgraphs = {each["id"] for each in workflow.get("definitions", {}).get("subgraphs", [])}
    for entry in nodes_of(workflow):
        if entry["type"] in NOTES or entry["type"] in subgraphs:
            continue
        ours = entry["type"].startswith(("BIR", "Diff"))
        properties = entry["properties"]
        if ours:
            assert f'name = "{properties["cnr_id"]}"\nversion = "{properties["ver"]}"' in project
        else:
            assert properties["cnr_id"] == "comfy-core"


@each_template
def test_a_template_is_easily_taken_in(template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    kinds = [entry["type"] for entry in workflow["nodes"]]
    assert {"MarkdownNote", "SaveImage"} <= set(kinds)
    assert len(workflow["groups"]) >= 3
    if "DiffBIR" in template.stem and not template.stem.endswith("single_steps"):
        assert len([kind for kind in kinds if kind not in NOTES]) <= MOST_VISIBLE


def test_five_templates_are_apps() -> None:
    """And what an app shows are widgets and results that the graph has."""
    opened = []
    for template in TEMPLATES:
        workflow = json.loads(template.read_text(encoding="utf-8"))
        nodes = {str(entry["id"]): entry for entry in workflow["nodes"]}
        extra = workflow["extra"]
        if extra.get("linearMode"):
            opened.append(template.stem)
        for number, name in extra.get("linearData", {"inputs": []})["inputs"]:
            assert name in {each.get("widget", {}).get("name") for each in nodes[number]["inputs"]}
        for number in extra.get("linearData", {"outputs": []})["outputs"]:
            assert nodes[number]["type"] == "SaveImage"
    assert sorted(opened) == sorted(APPS)


def test_the_authors_prompts_are_in_the_templates() -> None:
    for template in TEMPLATES:
        prompt = load_prompt(template)
        control = [e for e in prompt.values() if e["class_type"] == "DiffBIRControlNetLoader"]
        if not control:
            continue
        name = control[0]["inputs"]["control_net_name"]
        version = VERSIONS["v2" if name == "v2.pth" else "v2.1"]
        texts = [e["inputs"]["text"] for e in prompt.values() if "text" in e["inputs"]]
        own_words = any(e["class_type"] == "BIRTilePrompts" for e in prompt.values())
        assert set(version.prompts[1:] if own_words else version.prompts) <= set(texts)


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
    note = "\n".join(
        entry["widgets_values"][0] for entry in workflow["nodes"] if entry["type"] in NOTES
    )
    if "DiffBIR" not in template.stem:
        assert template.stem in BUILT_IN or "models/" in note or "Folder" in template.stem
        return
    models = [model for e in nodes_of(workflow) for model in e["properties"].get("models", [])]
    assert len(models) >= 2
    for model in models:
        assert f"models/{model['directory']}/{model['name']}" in note
        assert model["url"] in note and model["url"].endswith("/" + model["name"])
    values = [
        v for e in nodes_of(workflow) for v in e.get("widgets_values", []) if isinstance(v, str)
    ]
    endings = (".pth", ".pt", ".ckpt")
    files = {v for v in values if isinstance(v, str) and v.endswith(endings)}
    named = {model["name"] for model in models}
    # Stable Diffusion 2.1 base has no official page any more; the note says so.
    assert files - named <= {"v2-1_512-ema-pruned.ckpt"}
    assert all(name in note for name in files)


@pytest.mark.parametrize("name", BUILT_IN)
def test_runs_without_any_file(server: Server, name: str) -> None:
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    picture.save(server.base / "input" / "example.png")
    prompt = load_prompt(PACK / "workflows" / f"{name}.json")
    outputs = server.run(prompt)
    side = 16 * SCALES.get(name, 4)
    saves = [key for key, entry in prompt.items() if entry["class_type"] == "SaveImage"]
    for key in saves:
        (saved,) = outputs[key]["images"]
        with Image.open(server.base / "output" / saved["filename"]) as result:
            assert result.size == (side, side)
