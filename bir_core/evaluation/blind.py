"""A page for blind comparisons, as the user studies of papers: the same picture by two or three
methods side by side, which is which hidden, and the answers as CSV. One file, without a network."""

import base64
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..atomic_files import complete_file, writing
from ..errors import BIRError
from ..images import extend_opaque
from ..pictures.files import Picture, read_picture, write_picture
from .samples import by_stem

SIDES = (2, 3)


def matched_pictures(sides: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """The pictures of each side by their names: folders with the same names (suffixes apart), or a
    single picture each.

    Raises:
        BIRError: not two or three different sides, files and folders mixed, a missing pair, two
            pictures of one name, or none.
    """
    if len(sides) not in SIDES:
        raise BIRError(
            f"Expected two or three sides for a blind comparison, but {len(sides)} came; give as "
            "many pictures or folders."
        )
    if len(set(sides)) < len(sides):
        raise BIRError(
            f"Expected different sides, but one of {', '.join(map(str, sides))} came twice; the "
            "answers could not tell them apart: leave it out once."
        )
    folders = [side.is_dir() for side in sides]
    if not any(folders):
        return [(sides[0].stem, list(sides))]
    if not all(folders):
        raise BIRError(
            f"Expected folders only or pictures only, but {sides[folders.index(False)]} is no "
            "folder and another side is one; give the same kind."
        )
    found = [by_stem(side) for side in sides]
    names = sorted(set().union(*found))
    if not names:
        raise BIRError(
            f"Expected pictures in {sides[0]}, but there are none; choose other folders."
        )
    for name in names:
        for side, pictures in zip(sides, found, strict=True):
            if name not in pictures:
                raise BIRError(
                    f"Expected the picture {name} in every folder, but {side} lacks it; add it "
                    "there or remove it elsewhere."
                )
    return [(name, [pictures[name] for pictures in found]) for name in names]


def write_study(path: Path, sides: Sequence[Path], seed: int) -> int:
    """Write the page.

    Args:
        path: replaced if it exists.
        sides: two or three pictures, or folders of them.
        seed: of the order of the pictures, and of the places of the sides for each.

    Returns:
        How many pictures it asks about.

    Raises:
        BIRError: as `matched_pictures`, unreadable pictures, sides of different sizes, or a page
            that cannot be written.
    """
    matched = matched_pictures(sides)
    drawn = random.Random(seed)
    drawn.shuffle(matched)
    trials = []
    for name, paths in matched:
        order = list(range(len(paths)))
        drawn.shuffle(order)
        pictures = _embedded(paths)
        shown = [pictures[place] for place in order]
        trials.append({"name": name, "order": order, "pictures": shown})
    data = json.dumps({"sides": [str(side) for side in sides], "seed": seed, "trials": trials})
    page = PAGE.replace("DATA", data.replace("<", "\\u003c"))
    with writing(path, "the page"), complete_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return len(trials)


def _embedded(paths: Sequence[Path]) -> list[str]:
    """The pixels as PNG in data addresses, without what else files say.

    Raises:
        BIRError: pictures of different sizes.
    """
    read = [read_picture(path) for path in paths]
    sizes = [tuple(picture.image.shape[-2:]) for picture in read]
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            raise BIRError(
                f"Expected {sizes[0][1]} x {sizes[0][0]} pixels as in {paths[0]}, but {path} has "
                f"{size[1]} x {size[0]}; a difference of size would tell them apart: resize it."
            )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "picture.png"
        for picture in read:
            image = extend_opaque(picture.image, picture.alpha)
            write_picture(plain, Picture(image), overwrite=True)
            encoded = base64.b64encode(plain.read_bytes()).decode("ascii")
            found.append(f"data:image/png;base64,{encoded}")
    return found


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Blind comparison</title>
<style>
body { margin: 0; background: #777; color: #fff; font: 16px sans-serif; text-align: center }
#pictures { display: flex; justify-content: center; gap: 8px }
figure { margin: 0; flex: 0 1 auto; min-width: 0; cursor: pointer }
img { max-width: 100%; max-height: 85vh }
button { font: inherit; margin: 4px }
</style></head><body>
<p id="progress"></p>
<div id="pictures"></div>
<p><button id="equal">= no difference</button> <button id="back">Backspace: one back</button>
<button id="save">Save the answers (CSV)</button></p>
<p>Which is best? Press its number, or = if you see no difference.</p>
<script type="application/json" id="data">DATA</script>
<script>
"use strict";
const study = JSON.parse(document.getElementById("data").textContent);
const answers = [];
const progress = document.getElementById("progress");
const pictures = document.getElementById("pictures");

function show() {
  const done = answers.length, all = study.trials.length;
  progress.textContent = done < all ? `${done + 1} of ${all}` : `All ${all} done: save the answers`;
  pictures.replaceChildren();
  if (done === all) return;
  study.trials[done].pictures.forEach((source, place) => {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const label = document.createElement("figcaption");
    image.src = source;
    label.textContent = place + 1;
    figure.append(image, label);
    figure.onclick = () => answer(String(place + 1));
    pictures.append(figure);
  });
}

function answer(key) {
  const trial = study.trials[answers.length];
  if (!trial || (key !== "=" && !trial.pictures[Number(key) - 1])) return;
  answers.push(key);
  show();
}

function back() { answers.pop(); show(); }

function quoted(value) { return `"${String(value).replaceAll('"', '""')}"`; }

function table() {
  const places = study.sides.map((side, place) => `shown_${place + 1}`);
  const rows = [["number", "picture", "key", "chosen", ...places]];
  answers.forEach((key, number) => {
    const trial = study.trials[number], shown = trial.order.map(place => study.sides[place]);
    const chosen = key === "=" ? "=" : shown[Number(key) - 1];
    rows.push([number + 1, trial.name, key, chosen, ...shown]);
  });
  return rows.map(row => row.map(quoted).join(",")).join("\\r\\n") + "\\r\\n";
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], {type: "text/csv"}));
  link.download = "answers.csv";
  link.click();
}

document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (["1", "2", "3", "="].includes(event.key)) answer(event.key);
  if (event.key === "Backspace") back();
});
document.getElementById("equal").onclick = () => answer("=");
document.getElementById("back").onclick = back;
document.getElementById("save").onclick = save;
show();
</script></body></html>
"""
