"""The real interface in a headless browser: templates and help pages as a user meets them.

Needs the Python package playwright and an installed Chromium; skipped without them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from comfyui.harness import FAILED, PACK, Server
from progress import bounded

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="no browser tests: the package playwright is not installed"
)
TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
HELP_PAGES = sorted((PACK / "nodes" / "web" / "docs").glob("*.md"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREEN: "sync_api.ViewportSize" = {"width": 1600, "height": 1000}
SMALL_SCREEN: "sync_api.ViewportSize" = {"width": 1280, "height": 800}
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
}
# What people type into the search box, and the title of a node of ours that they should find.
FOUND = {
    "remove noise": "Restore Photo",
    "denoise": "Restore Image (DiffIR)",
    "old photo": "Restore Photo",
    "photo restoration": "Restore Photo",
    "repair": "Restore Image (DiffIR)",
    "scratch": "Restore Image (DiffIR)",
    "face": "DiffBIR Sampler",
    "restore face": "Restore Photo",
    "blurry": "Restore Image (DiffIR)",
    "unblur": "Restore Photo",
    "sharpen": "Restore Image (DiffIR)",
    "deblur": "Restore Image (DiffIR)",
    "jpeg artifacts": "Restoration Module (DiffBIR Stage 1)",
    "upscale": "Restore Photo",
    "psnr": "Measure Restoration (BIR)",
    "compare": "Measure Restoration (BIR)",
    "degrade": "Degrade Image (BIR)",
}
READY = "window.app?.vueAppReady && app.isGraphReady && !document.querySelector('#splash-loader')"
RENDERERS = ("canvas", "nodes 2.0")
# Boxes of the nodes, once ten frames in a row have left them as they are.
SETTLED_BOXES = """async () => {
    const boxes = () => JSON.stringify(
        app.rootGraph.nodes.map(node => Array.from(node.boundingRect)))
    let last = boxes()
    for (let same = 0; same < 10; same++) {
        await new Promise(requestAnimationFrame)
        if (boxes() !== last) {
            last = boxes()
            same = 0
        }
    }
    return JSON.parse(last)
}"""
# Of the help that is shown: the width of the panel, those of what is in it, of tables with what is
# scrolled away, and of each picture the natural one, which is 0 where it cannot be shown.
PANEL = """() => {
    const content = document.querySelector('.markdown-content')
    const all = content.querySelectorAll('table, img, pre')
    const width = each => Math.max(each.offsetWidth, each.scrollWidth)
    return {
        panel: content.offsetWidth,
        widths: Array.from(all, width),
        pictures: Array.from(content.querySelectorAll('img'), each => each.naturalWidth),
    }
}"""
# Processor seconds of the browser for one test, which needs a few. It spends some while it waits.
ENOUGH = 120.0


class Interface:
    """A browser with the interface in its page, opened again where a test has spoilt it."""

    def __init__(self, chromium: "sync_api.BrowserType", path: str, address: str) -> None:
        self.chromium = chromium
        self.path = path
        self.address = address
        self.errors: list[str] = []
        self.page: sync_api.Page | None = None

    def launch(self) -> None:
        others = set(psutil.Process().children(recursive=True))
        self.browser = self.chromium.launch(
            executable_path=self.path,
            timeout=0,
            args=[
                *("--no-sandbox", "--disable-gpu"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        started = set(psutil.Process().children(recursive=True)) - others
        numbers = {process.pid for process in started}
        # Those of the others come with them.
        self.pids = [process.pid for process in started if process.ppid() not in numbers]

    def ready_page(self) -> "sync_api.Page":
        if self.page is None:
            self.errors.clear()
            self.page = self.browser.new_page(viewport=SCREEN)
            self.page.set_default_timeout(0)
            self.page.on("pageerror", lambda error: self.errors.append(str(error)))
            self.page.goto(self.address)
            self.page.wait_for_function(READY)
        return self.page

    def close_page(self) -> None:
        """And the browser with it, from which a page may not part."""
        self.page = None
        self.browser.close()


@pytest.fixture(scope="module")
def interface(server: Server) -> Iterator[Interface]:
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.skip("no browser tests: no Chromium is installed")
    server.post("/api/settings", SETTINGS)
    with sync_api.sync_playwright() as playwright:
        opened = Interface(playwright.chromium, browser_path, server.url)
        yield opened
        if opened.page is not None:
            opened.close_page()


@pytest.fixture
def page(interface: Interface, request: pytest.FixtureRequest) -> Iterator["sync_api.Page"]:
    """The interface, ready to use; at the end it must not have met a script error."""
    if interface.page is None:
        interface.launch()
    try:
        with bounded("what the test waits for in the browser", *interface.pids, enough=ENOUGH):
            yield interface.ready_page()
        assert interface.errors == []
    except BaseException:
        interface.close_page()
        raise
    if request.node.stash.get(FAILED, False):
        interface.close_page()


def open_workflow(page: "sync_api.Page", template: Path, renderer: str) -> None:
    page.evaluate(
        "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)",
        renderer == "nodes 2.0",
    )
    workflow = json.loads(template.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_interface_queues_what_the_api_form_says(
    page: "sync_api.Page", template: Path, renderer: str
) -> None:
    open_workflow(page, template, renderer)
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    api_form = template.parent / "api" / template.name
    assert prompt == json.loads(api_form.read_text(encoding="utf-8"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_nodes_do_not_overlap(page: "sync_api.Page", template: Path, renderer: str) -> None:
    open_workflow(page, template, renderer)
    boxes = page.evaluate(SETTLED_BOXES)
    for index, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[index + 1 :]:
            apart = (
                x + width <= other_x
                or other_x + other_width <= x
                or y + height <= other_y
                or other_y + other_height <= y
            )
            assert apart


def test_template_address_opens_it(page: "sync_api.Page", server: Server) -> None:
    page.goto(
        f"{server.url}/?template=Inpaint_photo_scratches_and_holes_DiffIR&source={server.pack_name}"
    )
    page.wait_for_function(READY)
    page.wait_for_function("app.rootGraph.nodes.some(node => node.type === 'DiffIRRestore')")


@pytest.mark.parametrize("help_page", HELP_PAGES, ids=lambda path: path.stem)
def test_help_page_fits_its_panel(page: "sync_api.Page", help_page: Path) -> None:
    page.set_viewport_size(SMALL_SCREEN)  # the panel has a fifth of its width
    page.evaluate(
        """type => {
            app.rootGraph.clear()
            const node = LiteGraph.createNode(type)
            app.rootGraph.add(node)
            // In the middle, where nothing covers its toolbox, whatever was shown before.
            node.pos = [500, 300]
            app.canvas.ds.reset()
            app.canvas.deselectAll()
            app.canvas.selectNode(node)
        }""",
        help_page.stem,
    )
    page.locator("[data-testid=info-button]").click()
    title = help_page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    page.locator(".markdown-content h1", has_text=title).wait_for()
    page.wait_for_function(
        "Array.from(document.querySelectorAll('.markdown-content img')).every(i => i.complete)"
    )
    shown = page.evaluate(PANEL)
    page.set_viewport_size(SCREEN)
    assert shown["pictures"] and all(shown["pictures"])
    assert shown["widths"] and max(shown["widths"]) <= shown["panel"]


def test_everyday_words_find_nodes_in_the_search_box(page: "sync_api.Page") -> None:
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = page.get_by_role("combobox", name="Add a node...")
    found = page.get_by_test_id("result-item")
    for word, title in FOUND.items():
        # Nothing of the last word is left when the next one is typed.
        box.fill("qqqqqqqq")
        found.first.wait_for(state="detached")
        box.fill(word)
        found.filter(has_text=title).first.wait_for(state="attached")
    page.keyboard.press("Escape")
    box.wait_for(state="detached")
