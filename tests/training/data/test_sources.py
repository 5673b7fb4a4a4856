"""Folders and lists of files."""

import json
import pickle
import struct

import pytest
import torch
from training_pictures import write_pictures

from bir_core.errors import BIRError
from bir_core.pictures.containers import png_chunk, png_with
from bir_core.training.data import ExampleDataset, open_source, open_split
from bir_core.training.data.captions import Captions
from bir_core.training.data.pictures import read_training_picture
from bir_core.training.recipe import CaptionRecipe, DataRecipe, ValidationRecipe


def recipe(**changes):
    return DataRecipe(**{"degradation": "simple_x4", "patch": 32, "batch": 2, **changes})


def examples(path, data):
    return ExampleDataset(open_source(path, data), data, scale=4, seed=0)


def assert_same_training(one, other):
    """The same sequence of examples, over two passes and a bit."""
    assert len(one) == len(other)
    for position in range(2 * len(one) + 1):
        ours, theirs = one[position], other[position]
        assert torch.equal(ours.hq, theirs.hq)
        assert (ours.lq is None) == (theirs.lq is None)
        assert ours.lq is None or torch.equal(ours.lq, theirs.lq)
        assert ours.caption == theirs.caption


@pytest.fixture
def folder(tmp_path):
    """Four pictures, all but the last with a caption beside it."""
    paths = write_pictures(tmp_path / "pictures" / "of" / "waves")
    for number, path in enumerate(paths[:-1]):
        path.with_suffix(".txt").write_text(f"Wellen größer als {number}\n", encoding="utf-8")
    return tmp_path / "pictures"


CAPTIONED = recipe(captions=CaptionRecipe(drop_probability=0.3))


def test_a_list_trains_as_the_folder_does(folder, tmp_path):
    paths = sorted(folder.rglob("*.png"))
    plain, objects = tmp_path / "list.txt", tmp_path / "list.jsonl"
    plain.write_text("\n\n".join(str(path.relative_to(tmp_path)) for path in paths))
    lines = []
    for path in paths:
        text = path.with_suffix(".txt")
        caption = {"caption": text.read_text(encoding="utf-8")} if text.exists() else {}
        lines.append(json.dumps({"picture": str(path), **caption}))
    objects.write_text("\r\n".join(lines) + "\r\n")
    whole = examples(folder, CAPTIONED)
    assert {whole[k].caption for k in range(12)} > {"", "Wellen größer als 1"}
    assert_same_training(whole, examples(plain, CAPTIONED))
    assert_same_training(whole, examples(objects, CAPTIONED))


def test_a_list_of_pairs_trains_as_the_folder_does(tmp_path):
    hq = write_pictures(tmp_path / "hq", size=(80, 100))
    lq = write_pictures(tmp_path / "lq", size=(20, 25))
    rows = [{"picture": f"hq/{a.name}", "lq": f"lq/{b.name}"} for a, b in zip(hq, lq, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = recipe(degradation="pairs")
    assert_same_training(examples(tmp_path, data), examples(tmp_path / "pairs.jsonl", data))


def test_captions_of_a_list(folder, tmp_path):
    """Those of the line go before the text beside the picture."""
    names = [str(path) for path in sorted(folder.rglob("*.png"))]
    rows = [
        {"picture": names[0], "caption": "line", "long_caption": "a long line"},
        {"picture": names[1], "long_caption": "long only"},
        {"picture": names[2]},
        {"picture": names[3]},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = open_source(path, CAPTIONED)
    assert [source.read(index).captions for index in range(4)] == [
        Captions("line", "a long line"),
        Captions("Wellen größer als 1", "long only"),
        Captions("Wellen größer als 2"),
        Captions(),
    ]
    without = open_source(path, recipe())
    assert without.read(0).captions == Captions()


def test_what_a_line_may_lack(tmp_path):
    write_pictures(tmp_path, count=2)
    path = tmp_path / "list.jsonl"
    lines = [
        "picture_0.png",
        "absent.png",
        '{"picture": "picture_1.png", "caption": 3}',
        '{"picture": ',
        '{"caption": "no picture"}',
        "picture_1.png",
    ]
    path.write_text("\n".join(lines))
    dataset = examples(path, CAPTIONED)
    skipped = {name for position in range(6) for name in dataset[position].skipped}
    assert skipped == {
        "absent.png",
        "picture_1.png",
        "example 4 of list.jsonl",
        "example 5 of list.jsonl",
    }


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xff\xfe\n", "line 1 of"),
        (b'{"picture": 3}', "`picture`"),
        (b'{"path": "a.png"}', "`picture`"),
    ],
)
def test_no_list(tmp_path, content, match):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(BIRError, match=match):
        open_source(path, recipe())


def test_a_list_without_lq_for_pairs(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.png")
    with pytest.raises(BIRError, match="`lq`.*JSON lines with picture and lq"):
        open_source(path, recipe(degradation="pairs"))


def test_nothing_there(tmp_path):
    with pytest.raises(BIRError, match="found nothing"):
        open_source(tmp_path / "absent", recipe())


def names_of(source):
    return {source.name(index) for index in range(sum(source.sizes))}


def test_held_out_pictures_are_left_out(folder, caplog):
    held_out = ValidationRecipe(held_out=("picture_0.png",))
    kept, tested = open_split(folder, recipe(), held_out)
    assert names_of(kept) == {f"picture_{k}.png" for k in (1, 2, 3)}
    assert names_of(tested) == {"picture_0.png"}
    assert not caplog.records
    assert open_split(folder, recipe(), ValidationRecipe())[1] is None
    assert not caplog.records
    every = ValidationRecipe(held_out=tuple(f"picture_{k}.png" for k in range(4)))
    with pytest.raises(BIRError, match="all are held out"):
        open_split(folder, recipe(), every)


def test_names_that_are_absent_stop_nothing_and_are_said(folder, caplog):
    some = ValidationRecipe(held_out=("other.png", "picture_2.png", "another.png"))
    kept, tested = open_split(folder, recipe(), some)
    assert (len(names_of(kept)), names_of(tested)) == (3, {"picture_2.png"})
    assert [record.getMessage() for record in caplog.records] == [
        f"not in {folder} to be held out: another.png, other.png"
    ]
    caplog.clear()
    kept, tested = open_split(folder, recipe(), ValidationRecipe(held_out=("other.png",)))
    assert len(names_of(kept)) == 4 and tested is None
    assert [record.getMessage() for record in caplog.records] == [
        f"no validation: none of the pictures to be held out is in {folder}"
    ]


@pytest.mark.parametrize(
    ("share", "most", "count"), [(0.1, 16, 1), (0.5, 16, 2), (0.5, 1, 1), (0.99, 16, 3)]
)
def test_a_share_is_held_out(folder, share, most, count):
    validation = ValidationRecipe(held_out_share=share, held_out_most=most)
    kept, tested = open_split(folder, recipe(), validation)
    assert len(names_of(tested)) == count and len(names_of(kept)) == 4 - count
    assert not names_of(kept) & names_of(tested)
    again = open_split(folder, recipe(), validation)[1]
    assert names_of(again) == names_of(tested)


def test_the_share_is_not_the_first_pictures_and_the_last_one_stays(tmp_path, caplog):
    write_pictures(tmp_path, count=12, size=(4, 4))
    share = ValidationRecipe(held_out_share=0.25)
    tested = names_of(open_split(tmp_path, recipe(), share)[1])
    first, last = ({f"picture_{k + start}.png" for k in range(3)} for start in (0, 9))
    assert len(tested) == 3 and tested not in (first, last)
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    kept, none = open_split(tmp_path, recipe(), share)
    assert len(names_of(kept)) == 1 and none is None
    assert "no validation" in caplog.text


def test_captions_stay_with_the_pictures_that_are_kept(folder):
    kept, tested = open_split(folder, CAPTIONED, ValidationRecipe(held_out=("picture_3.png",)))
    assert kept.read(0).captions == Captions("Wellen größer als 0")
    assert tested.read(0).captions == Captions()


@pytest.mark.parametrize("held_out", [{"held_out": ("a.png",)}, {"held_out_share": 0.5}])
def test_only_a_folder_can_hold_pictures_out(tmp_path, caplog, held_out):
    path = tmp_path / "list.txt"
    path.write_text("a.png")
    source, tested = open_split(path, recipe(), ValidationRecipe(**held_out))
    assert names_of(source) == {"a.png"} and tested is None
    assert "--val" in caplog.text


@pytest.mark.parametrize(
    "values",
    [
        {"held_out_share": 1.0},
        {"held_out_share": -0.1},
        {"held_out_most": 0},
        {"held_out": ("a.png",), "held_out_share": 0.5},
    ],
)
def test_shares_out_of_range_are_refused(values):
    with pytest.raises(BIRError, match="held_out"):
        ValidationRecipe(**values)


def test_a_caption_that_cannot_be_read_skips_its_picture(folder):
    text = folder / "of" / "waves" / "picture_0.txt"
    text.write_bytes(b"\xff\xfe")
    dataset = examples(folder, CAPTIONED)
    assert {n for k in range(4) for n in dataset[k].skipped} == {"picture_0.png"}
    assert not any(examples(folder, recipe())[k].skipped for k in range(4))


def test_many_unreadable_pictures_in_a_row_are_an_error(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(f"{number}.png" for number in range(1500)))
    with pytest.raises(BIRError, match="none of 1000 can be used;.*No such file"):
        examples(path, recipe())[0]


def test_data_sets_go_to_spawned_reading_processes(folder, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(str(picture) for picture in folder.rglob("*.png")))
    for place in (folder, path):
        dataset = examples(place, recipe())
        example = dataset[3]
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].hq, example.hq)


def test_odd_exif_and_empty_members_end_no_training(tmp_path):
    """The samples are read; what is no picture is an error that training skips."""
    path = write_pictures(tmp_path, count=1, size=(40, 40))[0]
    content = path.read_bytes()
    entry = struct.pack("<HHHII", 1, 0x010F, 12, 1, 38)  # Make as a DOUBLE
    odd = png_with(content, [png_chunk(b"eXIf", b"II*\0\x08\0\0\0" + entry + bytes(40))])
    expected = read_training_picture(path)
    assert torch.equal(read_training_picture(tmp_path / "absent.png", odd), expected)
    with pytest.raises(BIRError, match="cannot be decoded"):
        read_training_picture(tmp_path / "absent.png", b"")
