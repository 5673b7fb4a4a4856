"""WebDataset shards, written by webdataset itself."""

import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_pictures import write_pictures

from bir_core.errors import BIRError
from bir_core.training.data import (
    BatchSource,
    ExampleDataset,
    open_source,
    open_split,
    shard_index,
)
from bir_core.training.data.captions import Captions
from bir_core.training.recipe import CaptionRecipe, DataRecipe, ValidationRecipe

CPU = torch.device("cpu")


def recipe(**changes):
    return DataRecipe(**{"degradation": "simple_x4", "patch": 32, "batch": 2, **changes})


def examples(path, data, **options):
    return ExampleDataset(open_source(path, data, **options), data, scale=4, seed=0)


def write_shards(folder, members, size=3):
    """Shards of `size` examples; `members` has a dictionary of suffixes and bytes for each."""
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / "set-%03d.tar"), maxcount=size, verbose=0) as writer:
        for number, content in enumerate(members):
            writer.write({"__key__": f"{number:04d}", **content})
    return sorted(folder.glob("*.tar"))


def grey(value, size=40):
    """A picture of one colour: what comes out says which example it was."""
    content = io.BytesIO()
    Image.new("RGB", (size, size), (value,) * 3).save(content, "PNG")
    return content.getvalue()


def value_of(example):
    return int(example.hq[0, 0, 0])


def skipped(dataset):
    return {name for k in range(len(dataset)) for name in dataset[k].skipped}


@pytest.fixture
def pictures(tmp_path):
    paths = write_pictures(tmp_path / "pictures", count=7)
    for path in paths[2:]:
        path.with_suffix(".txt").write_text(f"picture {path.stem}")
    return paths


def packed(paths):
    """Members of shards that hold the same as the files."""
    for path in paths:
        text = path.with_suffix(".txt")
        yield {"png": path.read_bytes(), **({"txt": text.read_text()} if text.exists() else {})}


def test_the_lines_of_the_readme_make_shards(tmp_path):
    """The first Python lines of the page, run in a folder with `pictures`."""
    page = (Path(shard_index.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    lines = page.split("```python\n")[1].split("```")[0]
    assert "ShardWriter" in lines
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for value in range(3):
        Image.new("L", (40, 40), value).save(tmp_path / "pictures" / "deep" / f"{value}.jpg")
        text = tmp_path / "pictures" / "deep" / f"{value}.txt"
        text.write_text(f"größer {value}", encoding="utf-8")
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True, capture_output=True)
    source = open_source(tmp_path / "shards", recipe(captions=CaptionRecipe()))
    read = [source.read(index) for index in range(3)]
    assert [example.captions.short for example in read] == ["größer 0", "größer 1", "größer 2"]
    assert [int(example.hq[0, 0, 0]) for example in read] == [0, 1, 2]


@pytest.mark.parametrize("window", [0, 100])
def test_shards_train_as_the_folder_does(pictures, tmp_path, window):
    write_shards(tmp_path / "shards", packed(pictures))
    data = recipe(captions=CaptionRecipe(), shuffle_window=window)
    one, other = examples(tmp_path / "pictures", data), examples(tmp_path / "shards", data)
    assert len(one) == len(other) == 7
    for position in range(20):
        assert torch.equal(one[position].hq, other[position].hq)
        assert one[position].caption == other[position].caption


def test_pairs_in_shards_train_as_the_folder_does(tmp_path):
    hq = write_pictures(tmp_path / "files" / "hq", size=(80, 100))
    lq = write_pictures(tmp_path / "files" / "lq", size=(20, 25))
    members = [
        {"hq.png": a.read_bytes(), "lq.png": b.read_bytes()} for a, b in zip(hq, lq, strict=True)
    ]
    write_shards(tmp_path / "shards", members)
    data = recipe(degradation="pairs")
    one, other = examples(tmp_path / "files", data), examples(tmp_path / "shards", data)
    for position in range(9):
        assert torch.equal(one[position].hq, other[position].hq)
        assert torch.equal(one[position].lq, other[position].lq)
    unpaired = examples(tmp_path / "shards", recipe())
    assert unpaired[0].lq is None


def test_examples_are_those_that_webdataset_reads(tmp_path):
    """Keys in folders, long ones (in headers of their own), dots in suffixes, other members."""
    files = write_shards(
        tmp_path,
        [
            {"__key__": "a/b.c/" + "long" * 40, "jpg": grey(1), "txt": "one"},
            {"__key__": "a/b", "seg.png": grey(9), "JPG": grey(2), "cls": b"5"},
            {"__key__": "a/ä", "json": b'{"caption": "three"}', "webp": grey(3)},
        ],
    )
    with tarfile.open(files[0], "a") as archive:
        archive.addfile(_directory("folder"))
        archive.addfile(*_member("4.png", grey(4)))
    theirs = list(webdataset.WebDataset(str(files[0]), shardshuffle=False))
    source = open_source(files[0], recipe(captions=CaptionRecipe()))
    assert source.sizes == (len(theirs),) == (4,)
    read = [source.read(index) for index in range(4)]
    assert [int(example.hq[0, 0, 0]) for example in read] == [1, 2, 3, 4]
    assert [example.captions.short for example in read] == ["one", "", "three", ""]


def _directory(name):
    header = tarfile.TarInfo(name)
    header.type = tarfile.DIRTYPE
    return header


def _member(name, content):
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header, io.BytesIO(content)


def test_captions_of_shards(tmp_path):
    both = {"caption": "short", "long_caption": "long"}
    files = write_shards(
        tmp_path,
        [
            {"png": grey(0), "txt": "text", "json": both},
            {"png": grey(1), "txt": "text ", "json": {"long_caption": "long", "width": 40}},
            {"png": grey(2)},
        ],
    )
    source = open_source(files[0], recipe(captions=CaptionRecipe()))
    assert [source.read(index).captions for index in range(3)] == [
        Captions("short", "long"),
        Captions("text", "long"),
        Captions(),
    ]
    assert open_source(files[0], recipe()).read(0).captions == Captions()


def test_damaged_members_are_skipped_and_named(tmp_path):
    whole = [{"png": grey(value), "json": {"caption": "a"}} for value in range(8)]
    whole[1]["png"] = b"no picture"
    whole[3] = {"txt": "a caption without its picture"}
    whole[4]["json"] = b"{"
    whole[5]["json"] = b"[3]"
    write_shards(tmp_path, whole)
    data = recipe(captions=CaptionRecipe())
    names = {
        "set-000.tar/0001.json",
        "set-001.tar/0003.txt",
        "set-001.tar/0004.json",
        "set-001.tar/0005.json",
    }
    dataset = examples(tmp_path, data)
    assert skipped(dataset) == names
    assert {value_of(dataset[k]) for k in range(8)} == {0, 2, 6, 7}
    source = BatchSource(dataset, data, lambda hq, _: (hq[..., ::4, ::4], hq), CPU, 0)
    assert len(list(source.iterations(1, 4))) == 4
    assert source.skipped == names


def headers(path):
    """Where the members of an archive and their contents begin."""
    with tarfile.open(path) as archive:
        return [(member.offset, member.offset_data) for member in archive]


def test_a_shard_that_is_cut_off_gives_what_it_has(tmp_path, caplog):
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(6)])
    files[0].write_bytes(files[0].read_bytes()[: headers(files[0])[1][1] + 50])
    dataset = examples(tmp_path, recipe())
    assert "set-000.tar is damaged or cut off; 2 examples" in caplog.text
    assert "set-001" not in caplog.text
    assert {value_of(dataset[k]) for k in range(10)} == {0, 3, 4, 5}
    assert skipped(dataset) == {"set-000.tar/0001.png"}


@pytest.mark.parametrize("extended", [False, True])
def test_after_a_damaged_header_the_next_example_is_found(tmp_path, caplog, extended):
    """webdataset writes an extended header (with times) before the one of a member."""
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(6)])
    start, end = headers(files[0])[1]
    data = bytearray(files[0].read_bytes())
    data[end - 512 : end] = b"x" * 512
    if not extended:
        data[start:end] = b"x" * (end - start)
    files[0].write_bytes(data)
    dataset = examples(tmp_path, recipe())
    assert "set-000.tar is damaged or cut off; 2 examples" in caplog.text
    assert {value_of(dataset[k]) for k in range(10)} == {0, 2, 3, 4, 5}
    assert not skipped(dataset)


@pytest.mark.parametrize("content", [b"", b"no archive" * 300])
def test_a_shard_that_is_none(tmp_path, caplog, content):
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(6)])
    files[0].write_bytes(content)
    dataset = examples(tmp_path, recipe())
    assert len(dataset) == 3
    assert "set-000.tar is damaged or cut off; 0 examples" in caplog.text
    with pytest.raises(BIRError, match="Expected examples in 1 shards"):
        open_source(files[0], recipe())


def test_whole_shards_are_taken_without_a_word(tmp_path, caplog):
    """Also one that was joined of two."""
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(5)])
    files[0].write_bytes(files[0].read_bytes() + files[1].read_bytes())
    assert open_source(tmp_path, recipe()).sizes == (5, 2)
    assert not caplog.records


def test_a_pattern_names_shards(tmp_path):
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(9)], size=2)
    source = open_source(tmp_path / "set-{001..003}.tar", recipe())
    assert source.shards == files[1:4]
    with pytest.raises(BIRError, match=r"set-005.tar, but found nothing"):
        open_source(tmp_path / "set-{000..005}.tar", recipe())
    with pytest.raises(BIRError, match="close each brace"):
        open_source(tmp_path / "set-{000..005.tar", recipe())


def test_pictures_and_shards_in_one_folder(tmp_path):
    write_shards(tmp_path, [{"png": grey(1)}])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(grey(1))
    with pytest.raises(BIRError, match="it has both, a.png and set-000.tar"):
        open_source(tmp_path, recipe())


def test_shards_hold_nothing_out(tmp_path, caplog):
    write_shards(tmp_path, [{"png": grey(1)}])
    validation = ValidationRecipe(held_out=("a.png",))
    source, tested = open_split(tmp_path, recipe(), validation)
    assert sum(source.sizes) == 1 and tested is None
    assert "--val" in caplog.text


def test_pairs_without_lq(tmp_path):
    write_shards(tmp_path, [{"png": grey(1)}])
    data = recipe(degradation="pairs")
    with pytest.raises(BIRError, match="a member .lq.png or the like .* it has png"):
        examples(tmp_path, data)[0]


def test_a_shard_that_vanishes_is_skipped(tmp_path):
    files = write_shards(tmp_path, [{"png": grey(value)} for value in range(4)], size=2)
    dataset = examples(tmp_path, recipe())
    files[1].unlink()
    assert {value_of(dataset[k]) for k in range(4)} == {0, 1}
    assert {name.partition(" ")[0] for name in skipped(dataset)} == {"set-001.tar"}


def test_the_index_is_kept_and_made_again_when_shards_change(tmp_path, monkeypatch):
    files = write_shards(tmp_path / "shards", [{"png": grey(value)} for value in range(6)])
    index = tmp_path / "output" / "index.safetensors"
    scanned = []
    scan = shard_index.example_bounds
    monkeypatch.setattr(
        shard_index, "example_bounds", lambda path: scanned.append(path) or scan(path)
    )

    def opened():
        scanned.clear()
        dataset = examples(tmp_path / "shards", recipe(), index=index)
        return [value_of(dataset[k]) for k in range(len(dataset))]

    first = opened()
    assert sorted(scanned) == files
    assert opened() == first
    assert not scanned
    write_shards(tmp_path / "shards", [{"png": grey(value)} for value in range(10, 17)])
    assert sorted(opened()) == list(range(10, 17))
    assert len(scanned) == 3
    index.write_bytes(b"half")
    assert sorted(opened()) == list(range(10, 17))
    assert len(scanned) == 3


def test_reading_processes_make_the_same_index(forty):
    one, other = (open_source(forty, recipe(workers=workers)) for workers in (0, 2))
    assert one.sizes == other.sizes == (7, 7, 7, 7, 7, 5)
    assert torch.equal(one.bounds, other.bounds)


def test_data_sets_go_to_spawned_reading_processes(tmp_path):
    write_shards(tmp_path, [{"png": grey(value)} for value in range(6)])
    dataset = examples(tmp_path, recipe())
    assert value_of(pickle.loads(pickle.dumps(dataset))[4]) == value_of(dataset[4])


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """Forty examples in six shards, and an index of them."""
    folder = tmp_path_factory.mktemp("forty")
    write_shards(folder, [{"png": grey(value)} for value in range(40)], size=7)
    return folder


@settings(max_examples=25)
@given(
    window=st.integers(0, 50),
    batch=st.integers(1, 3),
    processes=st.integers(1, 3),
    accumulate=st.integers(1, 2),
    first=st.integers(1, 6),
)
def test_all_processes_together_see_every_example_once_in_a_pass(
    forty, window, batch, processes, accumulate, first
):
    """And what one process sees, in the order of the micro-batches, wherever they begin."""
    data = recipe(patch=4, batch=batch, accumulate=accumulate, shuffle_window=window)

    def seen(rank, count, data, begin):
        dataset = ExampleDataset(open_source(forty, data), data, scale=1, seed=5)
        source = BatchSource(dataset, data, lambda hq, _: (hq, hq), CPU, 5, rank, count)
        for parts in source.iterations(begin, end):
            for part in parts:
                yield (part.hq[:, 0, 0, 0] * 255).round().int().tolist()

    end = -(-40 // (batch * processes * accumulate)) + first
    ranks = [list(seen(rank, processes, data, first)) for rank in range(processes)]
    together = [batch for step in zip(*ranks, strict=True) for batch in step]
    alone = recipe(patch=4, batch=batch, accumulate=accumulate * processes, shuffle_window=window)
    whole = list(seen(0, 1, alone, 1))
    assert together == whole[(first - 1) * accumulate * processes :]
    values = [value for batch in whole for value in batch]
    assert sorted(values[:40]) == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_start_inside_a_shard_gives_the_same_batches(forty, workers):
    data = recipe(patch=4, shuffle_window=10, pool=4, captions=CaptionRecipe())
    later = recipe(**{**vars(data), "workers": workers})

    def source(data):
        dataset = ExampleDataset(open_source(forty, data), data, scale=1, seed=0)
        return BatchSource(dataset, data, lambda hq, _: (hq, hq), CPU, 0)

    one, other = source(data), source(later)
    batches = [part for parts in one.iterations(1, 30) for part in parts]
    half = source(data)
    for _ in half.iterations(1, 13):
        pass
    other.pool.load(half.pool.state(), CPU)
    rest = [part for parts in other.iterations(14, 30) for part in parts]
    assert len(rest) == 17
    for ours, theirs in zip(rest, batches[13:], strict=True):
        assert torch.equal(ours.hq, theirs.hq)
        assert ours.captions == theirs.captions
