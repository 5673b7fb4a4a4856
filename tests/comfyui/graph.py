"""A workflow file of the interface (format 0.4) to the prompt that the interface would queue."""

from typing import Any

from comfyui.harness import Prompt

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("Note", "MarkdownNote")


def widgets(object_info: dict[str, Any]) -> list[str | None]:
    """Names in the order of `widgets_values`; None for a value that only the interface uses."""
    names: list[str | None] = []
    for group in ("required", "optional"):
        for name, (kind, *options) in object_info["input"].get(group, {}).items():
            if not isinstance(kind, list) and kind not in WIDGET_TYPES:
                continue
            names.append(name)
            settings = options[0] if options else {}
            if settings.get("control_after_generate") or settings.get("image_upload"):
                names.append(None)
    return names


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """The API form of a workflow; notes are left out."""
    assert workflow["version"] == 0.4
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for entry in workflow["nodes"]:
        if entry["type"] in NOTES:
            continue
        names = widgets(object_info[entry["type"]])
        values = entry.get("widgets_values", [])
        assert len(names) == len(values), f"{entry['type']} has {names}, the file {values}"
        inputs = {name: value for name, value in zip(names, values, strict=True) if name}
        for socket in entry["inputs"]:
            if socket["link"] is not None:
                inputs[socket["name"]] = sources[socket["link"]]
        prompt[str(entry["id"])] = {"class_type": entry["type"], "inputs": inputs}
    return prompt
