"""What is said of sets that are not as they were published."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, write_picture
from bir_core.preparation.hashes import hashes_of_pictures, require_archives, require_picture
from bir_core.preparation.layout import find_sources
from bir_core.preparation.sets import SETS, Numbered, Part, PictureSet

PART = Part(
    folder="pictures",
    source="pictures.zip",
    count=8,
    names=Numbered(first=1, last=8, digits=3),
)
ROW = PictureSet(name="small", title="a small set", parts=(PART,))
VIDEOS = replace(
    ROW, parts=(Part(folder="train/*/sharp", source="videos.zip", count=3, lq_folder="blur"),)
)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(torch.zeros(1, 3, 4, 4)))
    return path


@pytest.fixture
def videos(tmp_path):
    for video, name in (("a", "1"), ("a", "2"), ("b", "1")):
        for kind in ("sharp", "blur"):
            picture(tmp_path / "train" / video / kind / f"{name}.png")
    return tmp_path


def test_a_complete_set_is_found_in_folders_below_too(tmp_path):
    for number in range(1, 9):
        picture(tmp_path / "pictures" / str(number % 2) / f"{number:03d}.png")
    found = find_sources(ROW, tmp_path, partial=False)
    assert sorted(source.stem for source in found) == [f"{number:03d}" for number in range(1, 9)]


def test_missing_pictures_are_named(tmp_path):
    picture(tmp_path / "pictures" / "002.png")
    said = "of the 8 pictures of pictures 001.png, 003.png, .*006.png and 2 more are missing"
    with pytest.raises(BIRError, match=said):
        find_sources(ROW, tmp_path, partial=False)
    assert [source.stem for source in find_sources(ROW, tmp_path, partial=True)] == ["002"]


@pytest.mark.parametrize("partial", [False, True])
def test_all_missing_folders_are_in_one_sentence(tmp_path, partial):
    with pytest.raises(BIRError) as caught:
        find_sources(SETS["df2k"], tmp_path, partial=partial)
    assert "DIV2K_train_HR is missing (unpack DIV2K_train_HR.zip there)" in str(caught.value)
    assert "Flickr2K/Flickr2K_HR is missing (unpack Flickr2K.tar there)" in str(caught.value)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(BIRError, match="Expected the folder of small at .*nowhere"):
        find_sources(ROW, tmp_path / "nowhere", partial=False)


def test_pairs_of_videos(videos):
    found = find_sources(VIDEOS, videos, partial=False)
    assert [source.stem for source in found] == ["a_1", "a_2", "b_1"]
    assert [source.lq for source in found][2] == videos / "train" / "b" / "blur" / "1.png"


def test_a_missing_partner_is_said(videos):
    (videos / "train" / "b" / "blur" / "1.png").unlink()
    with pytest.raises(BIRError, match=r"low-quality picture .*1\.png for .*1\.png, but it is"):
        find_sources(VIDEOS, videos, partial=True)


def test_another_count_is_said(videos):
    picture(videos / "train" / "b" / "sharp" / "2.png")
    picture(videos / "train" / "b" / "blur" / "2.png")
    with pytest.raises(BIRError, match=r"train/\*/sharp has 4 pictures and not 3"):
        find_sources(VIDEOS, videos, partial=False)


def test_two_of_one_name_are_refused(tmp_path):
    for folder in ("x", "y"):
        picture(tmp_path / "pictures" / folder / "001.png")
    with pytest.raises(BIRError, match="one picture named 001"):
        find_sources(ROW, tmp_path, partial=True)


def test_archives_are_compared_with_their_hash(tmp_path):
    md5 = hashlib.md5(b"whole").hexdigest()
    row = replace(ROW, md5=(("a.zip", md5), ("b.zip", "0" * 32)))
    assert require_archives(row, tmp_path) == []
    (tmp_path / "a.zip").write_bytes(b"whole")
    assert require_archives(row, tmp_path) == ["a.zip"]
    (tmp_path / "a.zip").write_bytes(b"cut")
    with pytest.raises(BIRError, match=f"a.zip to have the MD5 {md5}"):
        require_archives(row, tmp_path)


def test_pictures_are_compared_with_the_list_of_the_publishers(tmp_path):
    row = SETS["ffhq"]
    path = picture(tmp_path / "00000.png")
    assert hashes_of_pictures(row, tmp_path) == {}
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    entry = {"image": {"file_path": "images1024x1024/00000/00000.png", "file_md5": md5}}
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps({"0": entry}))
    hashes = hashes_of_pictures(row, tmp_path)
    assert hashes == {"00000.png": md5}
    require_picture(path, hashes)
    require_picture(tmp_path / "unknown.png", hashes)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BIRError, match=r"00000\.png to have the MD5"):
        require_picture(path, hashes)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"0": {}}', '{"0": {"image": {"file_path": "a"}}}']
)
def test_a_broken_list_is_said(tmp_path, content):
    (tmp_path / "ffhq-dataset-v2.json").write_text(content)
    with pytest.raises(BIRError, match="ffhq-dataset-v2.json to have an `image`"):
        hashes_of_pictures(SETS["ffhq"], tmp_path)


def test_the_published_counts_agree_with_the_names():
    for row in SETS.values():
        for part in row.parts:
            assert part.names is None or len(part.names.names()) == part.count
    assert SETS["ffhq"].parts[0].names.names()[-1] == "69999.png"
    assert SETS["df2k"].parts[1].names.names()[0] == "000001.png"
