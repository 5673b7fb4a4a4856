"""The shape of the repository: what lies where, and that the documents say what is there."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import bir_core
from bir_core.cli import COMMANDS

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    ".ci",
    ".comfyignore",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "__init__.py",
    "bir_core",
    "constraints.txt",
    "nodes",
    "pyproject.toml",
    "tests",
    "workflows",
}
MEGABYTE = 2**20
DOCS = ROOT / "nodes" / "web" / "docs"
# Bytes of a picture in a help page.
LARGEST_PICTURE = 30_000
BINARY = {".jpg", ".png", ".safetensors", ".webp"}
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes"}
# Folders of one machine: a home folder, a work folder, a Windows user.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|root|Users|work|mnt|tmp)/\w|[A-Z]:\\+Users\\")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files of the repository, as paths below its root."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [Path(name) for name in listing.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).exists()]


def project_version() -> str:
    """The version in pyproject.toml, which Python 3.10 cannot parse by itself."""
    found = re.search(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert found is not None
    return found[1]


def imported_modules(source: str) -> set[str]:
    """The first parts of all modules that a file imports by absolute name."""
    names: set[str] = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names.add(str(statement.module))
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def node_ids(tracked: list[Path]) -> set[str]:
    """The node ids that the schemas in nodes/ declare."""
    files = [path for path in tracked if path.parts[0] == "nodes" and path.suffix == ".py"]
    sources = [(ROOT / path).read_text(encoding="utf-8") for path in files]
    return {name for source in sources for name in re.findall(r'node_id="(\w+)"', source)}


def markdown_targets(path: Path) -> list[str]:
    """The relative targets of the links and pictures of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [
        target.partition("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)
    ]


def test_top_level_holds_only_what_belongs_there(tracked: list[Path]) -> None:
    assert {path.parts[0] for path in tracked} - TOP_LEVEL == set()


def test_no_file_is_above_ten_megabytes(tracked: list[Path]) -> None:
    assert [path for path in tracked if (ROOT / path).stat().st_size > 10 * MEGABYTE] == []


def test_test_data_stays_small(tracked: list[Path]) -> None:
    data = [path for path in tracked if path.parts[:2] == ("tests", "data")]
    assert 0 < sum((ROOT / path).stat().st_size for path in data) < 6 * MEGABYTE


def test_texts_can_be_shown_on_any_console(tracked: list[Path]) -> None:
    for path in tracked:
        if path.suffix not in BINARY:
            (ROOT / path).read_text(encoding="utf-8").encode("cp1252")


def test_no_text_names_a_folder_of_one_machine(tracked: list[Path]) -> None:
    texts = {
        path: (ROOT / path).read_text(encoding="utf-8")
        for path in tracked
        if path.suffix not in BINARY and path.name != "LICENSE"
    }
    assert {path: MACHINE_PATH.findall(text) for path, text in texts.items()} == {
        path: [] for path in texts
    }


@pytest.mark.parametrize(
    "text",
    # In parts, so that this file itself names none.
    ["see /" + "home/ann/data", '"/' + 'work/x"', r"C:\Users" + r"\ann", "(/" + "root/models)"],
)
def test_a_folder_of_one_machine_is_recognised(text: str) -> None:
    assert MACHINE_PATH.search(text)


def test_bir_core_imports_nothing_of_comfyui() -> None:
    imports = {
        path: imported_modules(path.read_text(encoding="utf-8"))
        for path in (ROOT / "bir_core").rglob("*.py")
    }
    assert {path for path, modules in imports.items() if modules & HOST_MODULES} == set()
    # It runs inside ComfyUI under another name, so it may not call itself by its own.
    assert {path for path, modules in imports.items() if "bir_core" in modules} == set()


def test_the_package_has_the_version() -> None:
    assert bir_core.__version__ == project_version()


def test_readme_names_every_extra() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE)) - {"comfy", "dev"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r'pip install "\.\[([\w,]+)\]"', readme)
    assert {each for names in named for each in names.split(",")} == extras


def test_changelog_has_the_version() -> None:
    assert f"## {project_version()}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_node_has_a_help_page(tracked: list[Path], node_ids: set[str]) -> None:
    docs = Path("nodes", "web", "docs")
    pages = {path.stem for path in tracked if path.parent == docs and path.suffix == ".md"}
    assert pages
    assert node_ids == pages


def test_node_archive_has_the_weights_and_no_tests(tracked: list[Path]) -> None:
    listing = ["git", "ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    left_out = set(names.splitlines())
    archive = [path for path in tracked if path.as_posix() not in left_out]
    assert {path.parts[0] for path in archive} & {"tests", ".ci", ".github"} == set()
    weights = Path("bir_core", "weights")
    assert [path for path in tracked if path.parent == weights and path not in archive] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_help_page_has_a_picture_and_says_when_not_and_at_what_cost(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures
    assert all((DOCS / picture).stat().st_size <= LARGEST_PICTURE for picture in pictures)
    assert {"## When not", "## Cost"} <= set(text.splitlines())


def test_readme_lists_every_node(node_ids: set[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in node_ids if f"`{name}`" not in readme} == set()


def test_readme_names_the_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bbir ([a-z]+)\b", readme))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    targets = markdown_targets(ROOT / name)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_continuous_integration_runs_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("make test")
