"""Which pictures of a large set are kept."""

import json

import pytest
from PIL import Image

from bir_core.errors import BIRError
from bir_core.preparation.filtering import Filter, filter_jobs, write_list
from bir_core.preparation.jobs import run_jobs
from bir_core.training.data.files import FileList

RULE = Filter(least_side=20, most_aspect=2.0, least_words=2)


def refuse(path, error):
    raise error


def described(folder, name, size, text=None, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(folder / f"{name}.jpg")
    if text is not None:
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    if fields:
        (folder / f"{name}.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "size, caption, reason",
    [
        ((20, 40), "a cat", ""),
        ((19, 30), "a cat", "small"),
        ((20, 41), "a cat", "long"),
        ((20, 20), " cat ", "undescribed"),
    ],
)
def test_the_rule_at_its_bounds(size, caption, reason):
    assert RULE.refuses(size, caption) == RULE.refuses(size[::-1], caption) == reason


def test_the_list_is_what_a_training_reads(tmp_path):
    folder = tmp_path / "in"
    described(folder / "00000", "a", (30, 20), "text beside", caption="caption of json")
    described(folder / "00000", "b", (30, 20), "ein Käfer")
    described(folder / "00000", "c", (10, 10), "too small")
    described(folder / "00001", "d", (50, 20), "too long")
    described(folder / "00001", "e", (30, 30))
    (folder / "00001" / "f.jpg").write_bytes(b"broken")
    jobs = filter_jobs(folder, tmp_path / "out", RULE)
    list(run_jobs(jobs, 2, refuse))
    counts = write_list(jobs, tmp_path / "out")
    assert counts == {"kept": 2, "small": 1, "long": 1, "undescribed": 1, "unreadable": 1}
    lines = (tmp_path / "out" / "list.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["caption"] for line in lines] == ["caption of json", "ein Käfer"]
    examples = FileList(tmp_path / "out" / "list.jsonl", paired=False, captions=True)
    assert examples.sizes == (2,)
    read = examples.read(1)
    assert read.hq.shape == (3, 20, 30) and read.captions.short == "ein Käfer"


def test_a_caption_that_cannot_be_read_is_said(tmp_path):
    described(tmp_path / "0", "a", (30, 30))
    (tmp_path / "0" / "a.json").write_text("{")
    jobs = filter_jobs(tmp_path, tmp_path / "out", RULE)
    with pytest.raises(BIRError, match="caption of .*a.jpg in the file beside it"):
        list(run_jobs(jobs, 1, refuse))


def test_archives_alone_are_said(tmp_path):
    (tmp_path / "00000.tar").write_bytes(b"")
    with pytest.raises(BIRError, match="found only archives.*--output_format files"):
        filter_jobs(tmp_path, tmp_path / "out", RULE)


@pytest.mark.parametrize("aspect", [0.5, float("nan")])
def test_an_impossible_aspect_is_refused(aspect):
    with pytest.raises(BIRError, match="aspect of at least 1"):
        Filter(most_aspect=aspect)
