"""Work that leaves files behind: each job is done when its files are there, so that a run that was
ended goes on where it was."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..atomic_files import make_folder, remove_leftovers, write_text
from ..errors import BIRError

RECORD = "prepared.json"


@dataclass(frozen=True)
class Job:
    """Files to be made.

    Attributes:
        source: what is named where it fails.
        files: that it makes, each whole or not at all.
        make: makes those that are not there.
    """

    source: Path
    files: tuple[Path, ...]
    make: Callable[[], None]

    def is_done(self) -> bool:
        """Whether all files are there."""
        return all(path.is_file() for path in self.files)


def begin(output: Path, settings: Mapping[str, object]) -> None:
    """Write down in the folder of the results what is made there, and with which settings.

    Raises:
        BIRError: the folder holds something else, or results of other settings.
    """
    make_folder(output)
    record = output / RECORD
    wanted = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if record.is_file():
        found = record.read_text(encoding="utf-8")
        if found != wanted:
            raise BIRError(
                f"Expected {output} to be begun with the same settings, but {record} says "
                f"{' '.join(found.split())} and not {' '.join(wanted.split())}; take them, or "
                "another folder."
            )
        return
    if any(not path.name.startswith(".") for path in output.iterdir()):
        raise BIRError(
            f"Expected an empty folder at {output}, or one that bir prepare began, but it holds "
            "other files; choose another one."
        )
    write_text(record, wanted, "the settings to")


def run_jobs(
    jobs: Sequence[Job], workers: int, on_failure: Callable[[Path, BIRError], None]
) -> Iterator[Job]:
    """Do the jobs that are not done, by several threads; each is given back when it is done.

    Args:
        on_failure: is told of a job that failed; the others go on.
    """
    files = [path for job in jobs for path in job.files]
    for folder in dict.fromkeys(path.parent for path in files):
        make_folder(folder)
    remove_leftovers(files)

    def attempt(job: Job) -> BIRError | None:
        try:
            job.make()
        except BIRError as error:
            return error
        return None

    open_jobs = [job for job in jobs if not job.is_done()]
    pool = ThreadPoolExecutor(workers)
    try:
        for job, error in zip(open_jobs, pool.map(attempt, open_jobs), strict=True):
            if error is not None:
                on_failure(job.source, error)
            yield job
    finally:
        pool.shutdown(cancel_futures=True)
