"""The engine of `bir restore` that needs nothing else: one picture after the other, here."""

from collections.abc import Iterator

from . import restore_one
from .restore_jobs import Job
from .restore_one import Outcome
from .restore_options import RestoreOptions


def restore_all(jobs: list[Job], options: RestoreOptions) -> Iterator[Outcome]:
    """Restore the pictures of all jobs in their order.

    Raises:
        BIRError: as `restore_one.prepare` and what it returns.
    """
    restore_job = restore_one.prepare(options)
    for job in jobs:
        yield restore_job(job, options.may_replace)
