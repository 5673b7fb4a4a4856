"""`bir compare --blind`: the page in Chromium, and what is refused."""

import csv
import io
import shutil
from pathlib import Path

import pytest
import torch
from command_line import run_here

from bir_core.evaluation.blind import write_study
from bir_core.pictures.files import Picture, write_picture

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SHADES = {"a": 0.2, "b": 0.6, "c": 1.0}
NAMES = ("one", "three", "two")


def paint(path, shade, size=8):
    path.parent.mkdir(exist_ok=True)
    write_picture(path, Picture(torch.full((1, 3, size, size), shade)))


@pytest.fixture
def sides(tmp_path):
    for side, shade in SHADES.items():
        for name in NAMES:
            paint(tmp_path / side / f"{name}.png", shade)
    return [tmp_path / side for side in SHADES]


def blind(*words):
    return run_here("compare", "--blind", *words)


# The mean red of each picture that is shown.
SHOWN = """() => Promise.all([...document.images].map(async image => {
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, 1, 1).data[0] / 255;
}))"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_keys_give_the_answers(sides, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = tmp_path / "study.html"
    done = blind(*sides, "--out", page_file, "--seed", 3)
    assert (done.returncode, done.stderr) == (0, "") and "3 pictures" in done.stdout
    keys, seen = ("2", "=", "3"), []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        page.keyboard.press("1")
        page.keyboard.press("Backspace")
        for number, key in enumerate(keys):
            assert page.inner_text("#progress") == f"{number + 1} of 3"
            seen.append(page.evaluate(SHOWN))
            page.keyboard.press("9")
            page.keyboard.press(key)
        assert "done" in page.inner_text("#progress")
        page.keyboard.press("1")
        assert not any(str(side) in page.inner_text("body") for side in sides)
        with page.expect_download() as waiting:
            page.click("#save")
        text = waiting.value.path().read_text()
        browser.close()
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sorted(row["picture"] for row in rows) == sorted(NAMES)
    assert [row["key"] for row in rows] == list(keys)
    for row, shades in zip(rows, seen, strict=True):
        shown = [row[f"shown_{place}"] for place in (1, 2, 3)]
        expected = [SHADES[Path(side).name] for side in shown]
        assert shades == pytest.approx(expected, abs=0.01)
        assert row["chosen"] == ("=" if row["key"] == "=" else shown[int(row["key"]) - 1])


def test_the_seed_decides_the_order(sides, tmp_path):
    pages = []
    for index, seed in enumerate((1, 1, 2)):
        write_study(tmp_path / f"{index}.html", sides, seed)
        pages.append((tmp_path / f"{index}.html").read_text().partition('"trials"')[2])
    assert pages[0] == pages[1] != pages[2]


def test_single_pictures(sides, tmp_path):
    files = [side / "one.png" for side in sides[:2]]
    done = blind(*files, "--out", tmp_path / "study.html")
    assert done.returncode == 0 and done.stdout.endswith(": 1 picture\n")


def test_an_existing_page_is_kept(sides, tmp_path):
    page = tmp_path / "study.html"
    page.write_text("kept")
    done = blind(*sides, "--out", page)
    assert done.returncode == 2 and "--overwrite" in done.stderr and page.read_text() == "kept"
    assert blind(*sides, "--out", page, "--overwrite").returncode == 0
    assert page.read_text() != "kept"


def test_what_does_not_belong_together_is_refused(sides, tmp_path):
    out = ("--out", tmp_path / "study.html")

    def refused(sentence, *words):
        done = blind(*words)
        assert done.returncode == 2 and sentence in done.stderr
        assert not (tmp_path / "study.html").exists()

    refused("two or three", *sides, sides[0], *out)
    refused("pictures only", sides[0], sides[1] / "one.png", *out)
    refused("Expected --out", *sides)
    refused("no --border", *sides, *out, "--border", 2)
    refused("different sides", sides[0], sides[0], *out)
    paint(sides[0] / "one.jpg", 0.5)
    refused("one.jpg and one.png; remove one", *sides, *out)
    (sides[0] / "one.jpg").unlink()
    paint(sides[0] / "other.png", 0.5)
    refused("lacks it", *sides, *out)
    for side in sides[1:]:
        paint(side / "other.png", 0.5, size=9)
    refused("8 x 8", *sides, *out)
    done = run_here("compare", *sides, *out)
    assert done.returncode == 2 and "Expected --blind" in done.stderr
