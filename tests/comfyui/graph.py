"""A workflow file of the interface (format 0.4) to the prompt that the interface would queue."""

from dataclasses import dataclass
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
    """The API form of a workflow; notes are left out, and subgraphs become their nodes."""
    assert workflow["version"] == 0.4
    links = [dict(zip(LINK, link, strict=True)) for link in workflow["links"]]
    kinds = {kind["id"]: kind for kind in workflow.get("definitions", {}).get("subgraphs", [])}
    prompt: Prompt = {}
    _Graph(workflow["nodes"], links, kinds, object_info).add_to(prompt)
    return prompt


LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
INPUTS, OUTPUTS = -10, -20  # ids of what a subgraph is given and gives, among its nodes


@dataclass
class _Graph:
    """The nodes of a workflow, or those of a subgraph in the place of the node `prefix`.

    Attributes:
        given: by place of an input of the subgraph, what feeds it: a value, or [id, output].
    """

    nodes: list[dict[str, Any]]
    links: list[dict[str, Any]]
    kinds: dict[str, Any]
    object_info: dict[str, Any]
    prefix: str = ""
    given: tuple[Any, ...] = ()

    def add_to(self, prompt: Prompt) -> None:
        for entry in self.nodes:
            if entry["type"] in self.kinds:
                self.inside(entry).add_to(prompt)
            elif entry["type"] not in NOTES:
                inputs = self.widget_values(entry) | self.fed(entry)
                prompt[self.key(entry["id"])] = {"class_type": entry["type"], "inputs": inputs}

    def key(self, number: int) -> str:
        return f"{self.prefix}{number}"

    def inside(self, entry: dict[str, Any]) -> "_Graph":
        kind = self.kinds[entry["type"]]
        values = dict(
            zip(
                [each["name"] for each in entry["inputs"] if "widget" in each],
                entry["widgets_values"],
                strict=True,
            )
        )
        fed = self.fed(entry)
        given = tuple(fed.get(each["name"], values.get(each["name"])) for each in entry["inputs"])
        assert [each["name"] for each in entry["inputs"]] == [i["name"] for i in kind["inputs"]]
        prefix = f"{self.key(entry['id'])}:"
        nodes, links = kind["nodes"], kind["links"]
        return _Graph(nodes, links, self.kinds, self.object_info, prefix, given)

    def widget_values(self, entry: dict[str, Any]) -> dict[str, Any]:
        values = entry.get("widgets_values", [])
        groups = self.object_info[entry["type"]]["input"]
        names = widgets(groups, values)
        assert len(names) == len(values), f"{entry['type']} has {names}, the file {values}"
        drawn = {
            name: {"__value__": ["", ""]}  # what the interface sends for a picture it draws
            for group in groups.values()
            for name, (kind, *_) in group.items()
            if kind == "IMAGECOMPARE"
        }
        return {name: value for name, value in zip(names, values, strict=True) if name} | drawn

    def fed(self, entry: dict[str, Any]) -> dict[str, Any]:
        """What its inputs are linked to."""
        by_id = {link["id"]: link for link in self.links}
        return {
            socket["name"]: self.source(by_id[socket["link"]])
            for socket in entry["inputs"]
            if socket["link"] is not None
        }

    def source(self, link: dict[str, Any]) -> Any:
        if link["origin_id"] == INPUTS:
            return self.given[link["origin_slot"]]
        (origin,) = (entry for entry in self.nodes if entry["id"] == link["origin_id"])
        if origin["type"] not in self.kinds:
            return [self.key(origin["id"]), link["origin_slot"]]
        inner = self.inside(origin)
        (last,) = (
            each
            for each in inner.links
            if (each["target_id"], each["target_slot"]) == (OUTPUTS, link["origin_slot"])
        )
        return inner.source(last)
