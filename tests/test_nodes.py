"""What can be said of the node files without ComfyUI."""

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).parents[1] / "nodes"
PRIVATE = {"comfy", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}


def absolute_imports(path: Path) -> set[str]:
    """First parts of the modules that a file imports by absolute name."""
    modules = set()
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            modules.add(str(statement.module).partition(".")[0])
    return modules


def test_only_the_host_files_use_private_parts_of_comfyui():
    users = {path for path in NODES.rglob("*.py") if absolute_imports(path) & PRIVATE}
    assert {path.relative_to(NODES).parts[0] for path in users} == {"host"}


def test_every_node_tells_its_errors_as_sentences():
    """By its base, which does that for all of them."""
    bases = {
        (path.name, ast.unparse(base))
        for path in NODES.rglob("*.py")
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ClassDef)
        and any(getattr(part, "name", "") == "define_schema" for part in statement.body)
        for base in statement.bases
    }
    assert len(bases) > 5 and {base for _, base in bases} == {"Node"}


EVERYDAY = (
    *("remove noise", "denoise", "old photo", "photo restoration", "repair", "scratch", "face"),
    *("restore face", "blurry", "unblur", "sharpen", "deblur", "jpeg artifacts", "upscale"),
    *("psnr", "compare", "degrade"),
)


def found_by() -> set[str]:
    """What the search box reads of our nodes: their ids, titles and aliases, in small letters."""
    calls = (
        call
        for path in NODES.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema"
    )
    return {
        str(constant.value).lower()
        for call in calls
        for keyword in call.keywords
        if keyword.arg in ("node_id", "display_name", "search_aliases")
        for constant in ast.walk(keyword.value)
        if isinstance(constant, ast.Constant)
    }


@pytest.mark.parametrize("word", EVERYDAY)
def test_everyday_words_find_a_node(word):
    assert word in found_by()
