"""Work that goes on where it was ended."""

import pytest

from bir_core.errors import BIRError
from bir_core.preparation.jobs import RECORD, Job, begin, run_jobs


def refuse(path, error):
    raise error


def writing_job(path, made, content="x"):
    def make():
        made.append(path.name)
        path.write_text(content)

    return Job(path, (path,), make)


def test_only_what_is_absent_is_done(tmp_path):
    made: list[str] = []
    jobs = [writing_job(tmp_path / "out" / f"{number}.txt", made) for number in range(6)]
    list(run_jobs(jobs[:3], 1, refuse))
    assert made == ["0.txt", "1.txt", "2.txt"]
    list(run_jobs(jobs, 2, refuse))
    assert sorted(made) == [f"{number}.txt" for number in range(6)]


def test_what_a_killed_process_left_is_removed(tmp_path):
    job = writing_job(tmp_path / "1.txt", [])
    leftover = tmp_path / ".1-part-0123abcd.txt"
    leftover.write_text("half")
    list(run_jobs([job], 1, refuse))
    assert not leftover.exists() and job.is_done()


def test_a_failed_job_is_told_and_the_others_go_on(tmp_path):
    def fail():
        raise BIRError("broken")

    bad = Job(tmp_path / "bad", (tmp_path / "bad.txt",), fail)
    good = writing_job(tmp_path / "good.txt", [])
    told = []
    list(run_jobs([bad, good], 1, lambda path, error: told.append((path.name, str(error)))))
    assert told == [("bad", "broken")] and good.is_done()


def test_the_same_settings_go_on_and_others_are_refused(tmp_path):
    begin(tmp_path / "out", {"set": "df2k", "scale": 4})
    (tmp_path / "out" / "0001.png").write_text("x")
    begin(tmp_path / "out", {"scale": 4, "set": "df2k"})
    with pytest.raises(BIRError, match=f'same settings, but .*{RECORD} says .*"scale": 4'):
        begin(tmp_path / "out", {"set": "df2k", "scale": 2})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.png").write_text("x")
    with pytest.raises(BIRError, match="empty folder at .*, or one that bir prepare began"):
        begin(tmp_path, {"set": "df2k"})
    assert not (tmp_path / RECORD).exists()
