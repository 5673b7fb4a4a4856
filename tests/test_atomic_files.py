"""A file appears whole or not at all."""

import stat

import pytest

from bir_core.atomic_files import complete_file, remove_leftovers, write_text
from bir_core.errors import BIRError


def test_the_file_appears_at_the_end(tmp_path):
    target = tmp_path / "picture.png"
    with complete_file(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_it_is_as_readable_as_any_new_file(tmp_path):
    with complete_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), complete_file(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_a_text_that_cannot_be_written_ends_in_a_sentence(tmp_path):
    write_text(tmp_path / "a.md", "caf\u00e9", "the report")
    assert (tmp_path / "a.md").read_bytes() == b"caf\xc3\xa9"
    with pytest.raises(BIRError, match="to write the report .*b.md, but it failed .No such file"):
        write_text(tmp_path / "absent" / "b.md", "b", "the report")


def test_leftovers_of_killed_processes(tmp_path):
    """Only what `complete_file` itself made for the paths that are named goes away."""
    others = ["a.png", ".a.png", ".a-abcd1234.png", ".a-part-abc.png", ".b-part-abcd1234.png"]
    for name in others:
        (tmp_path / name).write_bytes(b"kept")
    # Never left, as if their process had been killed.
    begun = [complete_file(tmp_path / name) for name in ("a.png", "x.y.png", "bare")]
    for context in begun:
        context.__enter__()
    assert len(list(tmp_path.iterdir())) == len(others) + 3
    remove_leftovers(tmp_path / name for name in ("a.png", "x.y.png", "bare", "absent/a.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("length", [1, 120, 128, 236, 241, 255])
def test_names_of_any_length(tmp_path, length):
    for name in ("x" * length, ("x" * 250 + ".png")[-length:]):
        target = tmp_path / name
        left = complete_file(target)
        left.__enter__().write_bytes(b"left by a killed process")
        with complete_file(target) as temporary:
            temporary.write_bytes(b"whole")
        remove_leftovers([target])
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        target.unlink()


def test_mounts_that_refuse_to_change_modes(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(f"os.{name}", refused, raising=False)
    with complete_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"a")
    assert (tmp_path / "a").read_bytes() == b"a"
