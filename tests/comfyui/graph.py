"""A workflow file of the interface (format 0.4) to the prompt that the interface would queue."""

from typing import Any

from comfyui.harness import Prompt

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOX")
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"  # a choice that has widgets of its own, which follow it
NOTES = ("Note", "MarkdownNote")


def widgets(groups: dict[str, Any], values: list[Any], prefix: str = "") -> list[str | None]:
    """Names in the order of `widgets_values`; None for a value that only the interface uses.

    Args:
        groups: the inputs, of `object_info`.
        values: of the node, from the first of these inputs on.
    """
    names: list[str | None] = []
    for group in ("required", "optional"):
        for name, (kind, *options) in groups.get(group, {}).items():
            settings = options[0] if options else {}
            if not isinstance(kind, list) and kind not in (*WIDGET_TYPES, DYNAMIC):
                continue
            if settings.get("forceInput"):
                continue
            names.append(prefix + name)
            if kind == DYNAMIC:
                chosen = values[len(names) - 1]
                (own,) = (each["inputs"] for each in settings["options"] if each["key"] == chosen)
                names += widgets(own, values[len(names) :], f"{prefix}{name}.")
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
        values = entry.get("widgets_values", [])
        names = widgets(object_info[entry["type"]]["input"], values)
        assert len(names) == len(values), f"{entry['type']} has {names}, the file {values}"
        inputs = {name: value for name, value in zip(names, values, strict=True) if name}
        for socket in entry["inputs"]:
            if socket["link"] is not None:
                inputs[socket["name"]] = sources[socket["link"]]
        prompt[str(entry["id"])] = {"class_type": entry["type"], "inputs": inputs}
    return prompt
