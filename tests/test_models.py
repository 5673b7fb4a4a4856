"""The table of known files: what it says, what reads it, and where files are found."""

import os
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from command_line import ROOT, run_here
from progress import run

from bir_core.commands.models import markdown
from bir_core.diffbir.versions import VERSIONS, Task, official_files
from bir_core.errors import BIRError
from bir_core.models import (
    KNOWN_FILES,
    file_named,
    find_file,
    find_model,
    known_file,
    models_folder,
)
from bir_core.weights import BUILTIN_NAMES, NAMES_APART, builtin_model_path

CONTROL = "DiffBIR_v2.1.pt"
# Of training, or of other programs, in documents that name them.
OTHER_FILES = re.compile(r"(deblur|absent|model|mine|last)\.(pth|ckpt)")


@pytest.fixture(autouse=True)
def no_folder_of_this_machine(monkeypatch):
    monkeypatch.delenv("BIR_MODELS", raising=False)


def place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def test_rows():
    names = [known.name for known in KNOWN_FILES]
    assert len(set(names)) == len(names) and {*BUILTIN_NAMES, *NAMES_APART} <= set(names)
    for known in KNOWN_FILES:
        assert known.purpose and known.source and known.licence
        assert (known.folder == "") == (known.name in (*BUILTIN_NAMES, *NAMES_APART))
        assert known.commercial in known.description


def test_the_versions_of_diffbir_name_rows():
    for version in VERSIONS:
        for task in get_args(Task):
            files = official_files(task, version)
            folders = [file_named(name).folder for name in vars(files).values()]
            assert folders == ["checkpoints", "controlnet", "upscale_models"]


def test_known_by_the_end_of_a_path():
    assert known_file(Path("a") / "b" / CONTROL) is file_named(CONTROL)
    assert known_file("DiffIRS2-place/models/last.ckpt").purpose.endswith("holes in scenes")
    assert known_file("last.ckpt") is None and known_file("mine.pth") is None
    assert known_file("builtin-x4").commercial == "yes"


def test_found_first_where_it_belongs(tmp_path):
    assert find_file(CONTROL, tmp_path) is None and find_file(CONTROL, None) is None
    deep = place(tmp_path / "sets" / "of" / CONTROL)
    assert find_file(CONTROL, tmp_path) == deep
    flat = place(tmp_path / CONTROL)
    assert find_file(CONTROL, tmp_path) == flat
    converted = place(tmp_path / "controlnet" / "DiffBIR_v2.1.safetensors")
    assert find_file(CONTROL, tmp_path) == converted
    original = place(tmp_path / "controlnet" / CONTROL)
    assert find_file(CONTROL, tmp_path) == original
    assert find_file("builtin-x2", tmp_path) == builtin_model_path("builtin-x2")


def test_found_with_the_folders_that_tell_it(tmp_path):
    name = "DiffIRS2-celeba/models/last.ckpt"
    place(tmp_path / "diffir" / "last.ckpt")
    assert find_file(name, tmp_path) is None
    told = place(tmp_path / "elsewhere" / name)
    assert find_file(name, tmp_path) == told


def test_models_by_their_names(tmp_path, monkeypatch):
    own = place(tmp_path / "upscale_models" / "own.pth")
    assert find_model("own.pth", tmp_path) == str(own)
    for name in (None, "builtin-x4", "absent.pth", f"folder{os.sep}own.pth"):
        assert find_model(name, tmp_path) == name
    monkeypatch.chdir(own.parent)
    assert find_model("own.pth", tmp_path) == "own.pth"  # what lies here comes first


def test_the_folder_that_was_named_comes_first(tmp_path, monkeypatch):
    assert models_folder() is None
    monkeypatch.setenv("BIR_MODELS", str(tmp_path))
    assert models_folder() == tmp_path
    (tmp_path / "other").mkdir()
    assert models_folder(tmp_path / "other") == tmp_path / "other"


def test_a_folder_that_is_none(tmp_path, monkeypatch):
    with pytest.raises(BIRError, match=r"--models names, but found nothing; check the path\."):
        models_folder(tmp_path / "absent")
    monkeypatch.setenv("BIR_MODELS", str(place(tmp_path / "file")))
    with pytest.raises(BIRError, match=r"the variable BIR_MODELS names, but found a file"):
        models_folder()


def test_those_of_the_comfyui_around_it(tmp_path):
    pack = tmp_path / "custom_nodes" / "pack"
    pack.mkdir(parents=True)
    (pack / "bir_core").symlink_to(ROOT / "bir_core")
    control = place(tmp_path / "models" / "controlnet" / CONTROL)
    environment = {**os.environ, "PYTHONPATH": str(pack)}
    done = run([sys.executable, "-m", "bir_core", "models"], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"at hand:  {control}\n" in done.stdout
    assert f"Folder of models: {tmp_path / 'models'}\n" in done.stdout


def test_the_list(tmp_path):
    control = place(tmp_path / "controlnet" / CONTROL)
    done = run_here("models", "--models", tmp_path)
    assert done.returncode == 0, done.stderr
    entries = {entry.splitlines()[0]: entry for entry in done.stdout.split("\n\n")}
    for known in KNOWN_FILES:
        entry = entries[known.name]
        for fact in (known.purpose, known.source, known.licence):
            assert fact in entry
        assert f"commercial use: {known.commercial}\n" in entry
    assert f"at hand:  {control}" in entries[CONTROL]
    assert "at hand:  yes" in entries["builtin-x4"] and "at hand:  no" in entries["BSRNet.pth"]
    assert run_here("models", "--markdown").stdout.splitlines() == list(markdown())
    assert "name one by --models or the variable BIR_MODELS" in run_here("models").stdout


def test_the_readme_has_the_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(markdown()) in readme


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "nodes" / "web" / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_known_files(document):
    named = re.findall(r"[\w.-]+\.(?:pth|pt|ckpt)\b", document.read_text(encoding="utf-8"))
    unknown = [each for each in named if known_file(each) is None]
    assert [each for each in unknown if not OTHER_FILES.fullmatch(each)] == []


def test_inspecting_says_what_the_name_says():
    done = run_here("inspect", "builtin-x1")
    assert "removes noise and JPEG traces" in done.stdout
    assert re.search(r"^commercial use: +yes$", done.stdout, re.MULTILINE)
    assert '"licence": "Apache-2.0"' in run_here("inspect", "builtin-x1", "--json").stdout
