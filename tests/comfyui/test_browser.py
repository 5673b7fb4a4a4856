"""The real interface in a headless browser: templates and help pages as a user meets them.

Needs the Python package playwright and an installed Chromium; skipped without them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfyui.harness import PACK, Server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="no browser tests: the package playwright is not installed"
)
TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
}
READY = "window.app?.vueAppReady && app.isGraphReady && !document.querySelector('#splash-loader')"


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator["sync_api.Page"]:
    """The interface, ready to use; at the end it must not have met a script error."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.skip("no browser tests: no Chromium is installed")
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path,
            args=[
                *("--no-sandbox", "--disable-gpu"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.on("pageerror", lambda error: errors.append(str(error)))
        server.post("/api/settings", SETTINGS)
        page.goto(server.url)
        page.wait_for_function(READY, timeout=60_000)
        yield page
        browser.close()
    assert errors == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("renderer", ["canvas", "nodes 2.0"])
def test_interface_queues_what_the_api_form_says(
    page: "sync_api.Page", template: Path, renderer: str
) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    page.evaluate(
        "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)",
        renderer == "nodes 2.0",
    )
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    for entry in prompt.values():
        del entry["_meta"]
    api_form = template.parent / "api" / template.name
    assert prompt == json.loads(api_form.read_text(encoding="utf-8"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_nodes_do_not_overlap(page: "sync_api.Page", template: Path) -> None:
    workflow = json.loads(template.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(300)
    boxes = page.evaluate("app.rootGraph.nodes.map(node => Array.from(node.boundingRect))")
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
    page.goto(f"{server.url}/?template=DiffIR_deblur&source={server.pack_name}")
    page.wait_for_function(READY, timeout=60_000)
    page.wait_for_function(
        "app.rootGraph.nodes.some(node => node.type === 'DiffIRRestore')", timeout=20_000
    )


@pytest.mark.parametrize(
    "node_type", ["DiffIRLoader", "DiffIRRestore", "DiffBIRSampler", "DiffBIRGuidance"]
)
def test_help_page_opens(page: "sync_api.Page", node_type: str) -> None:
    workflows = (path.read_text(encoding="utf-8") for path in TEMPLATES)
    template = next(text for text in workflows if f'"type": "{node_type}"' in text)
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(template))
    page.evaluate(
        """type => {
            app.canvas.deselectAll()
            app.canvas.selectNode(app.rootGraph.nodes.find(node => node.type === type))
        }""",
        node_type,
    )
    page.locator("[data-testid=info-button]").click()
    text = (PACK / "nodes" / "web" / "docs" / f"{node_type}.md").read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    page.locator(".markdown-content h1", has_text=title).wait_for(timeout=10_000)
