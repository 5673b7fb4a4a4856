"""The engine of `bir restore` for large collections: workers on one machine or many, by Ray Data.

A worker is a process with a model of its own, which reads and writes pictures itself; only their
paths pass through Ray. When a worker dies, Ray starts another and hands it the same picture."""

import logging
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..atomic_files import remove_leftovers
from ..command_line.console import one_line
from ..errors import BIRError
from . import restore_one
from .restore_jobs import Job
from .restore_one import Outcome
from .restore_options import RestoreOptions

if TYPE_CHECKING:
    from ray.data import Dataset

logger = logging.getLogger(__name__)

# Only paths and short texts are in Ray's store, so the third of all memory that it would take is
# not needed.
STORE_BYTES = 100 * 2**20
# Ray has some work with each block. A block is what a worker takes at a time.
MOST_BLOCKS = 10_000
# A picture at which this many workers died in a row is left out, and after as many such pictures
# as MOST_DEADLY the run stops.
MOST_ATTEMPTS = 3
MOST_DEADLY = 10


def restore_all(jobs: list[Job], options: RestoreOptions) -> Iterator[Outcome]:
    """Restore the pictures of all jobs, each once, in the order in which they become ready.

    Raises:
        BIRError: as `restore_local.restore_all`; Ray is absent or cannot be reached, the cluster
            has no room for the workers, or they die again and again.
    """
    try:
        with _cluster(options.ray.ray_address), _rows(jobs, options) as rows:
            deadly = 0
            for row in rows:
                if row["kind"] == "stop":
                    raise BIRError(row["text"])
                deadly += row["kind"] == "deadly"
                if deadly == MOST_DEADLY:
                    raise BIRError(
                        f"Expected workers that live, but {deadly} pictures cost "
                        f"{MOST_ATTEMPTS} workers each their life, most likely for want of "
                        "memory; give fewer --workers or smaller tiles, and --resume."
                    )
                source = Path(os.fsdecode(row["source"]))
                if row["attempt"] > 1:
                    logger.warning("a worker died at %s", one_line(_plain(str(source))))
                yield Outcome(source, row["text"], is_restored=row["kind"] == "restored")
    finally:
        remove_leftovers(job.target for job in jobs)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to a running cluster, or a cluster of this machine's own, while it lasts."""
    # Ray reads these when it is imported. Its workers would otherwise run at the lowest priority,
    # unlike the local engine; and a thread of it that comes late would start another cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise BIRError(
            f"Expected the package ray[data] for --engine ray, but {error.name} is absent; install "
            "the extra: pip install comfyui-bir[ray]."
        ) from error
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        _require_listener(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise BIRError(
            f"Expected a Ray cluster at the address {address}, but it cannot be used ({error}); "
            "check the address, or that `ray start` runs there with the same versions."
        ) from error
    # It would print each error that is raised here anyway.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    except ray.exceptions.RayActorError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BIRError(
            "Expected workers that start on every machine of the cluster, but one did not "
            f"({reason}); check that comfyui-bir is installed there as here."
        ) from error
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError if nobody answers at HOST:PORT; Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _rows(
    jobs: list[Job], options: RestoreOptions
) -> "closing[Generator[dict[str, Any], None, None]]":
    """What becomes of each job, as it becomes ready; left early, the work stops."""
    rows = iter(_dataset(jobs, options).iter_rows())
    return closing(cast("Generator[dict[str, Any], None, None]", rows))


def _dataset(jobs: list[Job], options: RestoreOptions) -> "Dataset":
    """What becomes of each job, as rows like those of `Worker`; computed while it is read."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.data.DataContext.get_current().enable_progress_bars = False
    nodes = [node["Resources"] for node in cast(Any, ray).nodes() if node["Alive"]]
    threads = torch.get_num_threads()
    gpus = _gpus_per_worker(options, nodes)
    most_cpus = max(int(node.get("CPU", 0)) for node in nodes)
    cpus = 1 if gpus else max(1, min(threads, most_cpus))
    workers = _workers(options.ray.workers, room(nodes, cpus, gpus), cpus, gpus)
    # With this process, where nothing else can end it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    attempts = ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here)
    rows = [
        {
            "index": index,
            # Bytes, since a name need not be text that Arrow takes.
            "source": os.fsencode(job.source),
            "target": os.fsencode(job.target),
            "mask": b"" if job.mask is None else os.fsencode(job.mask),
            "refusal": _plain(job.refusal),
        }
        for index, job in enumerate(jobs)
    ]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
        cast(Any, Worker),
        fn_constructor_kwargs={
            "options": options,
            "folder": str(Path.cwd()),
            "threads": threads,
            "attempts": attempts.remote(len(rows)),
        },
        # One at a time: those that wait behind a picture that kills its worker shall not die too.
        compute=ray.data.ActorPoolStrategy(
            size=min(workers, len(rows)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=cpus,
        num_gpus=gpus,
    )


def _plain(text: str) -> str:
    """A text that Arrow takes: what is no UTF-8 in names is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _gpus_per_worker(options: RestoreOptions, nodes: list[dict[str, float]]) -> float:
    wanted: float | None = options.ray.gpus_per_worker
    if options.device in ("cpu", "mps"):
        if wanted is not None:
            raise BIRError(
                f"Expected --device cuda or auto for --gpus-per-worker, but --device "
                f"{options.device} came; leave one of them out."
            )
        return 0
    if wanted is None:
        return 1 if options.device == "cuda" or any(node.get("GPU", 0) for node in nodes) else 0
    return wanted


def _workers(wanted: int | None, most: int, cpus: int, gpus: float) -> int:
    share = f"{gpus:g} GPU and {cpus} CPU" if gpus else f"{cpus} CPU"
    if most < (wanted or 1):
        raise BIRError(
            f"Expected room for {wanted or 1} workers in the Ray cluster, but {most} fit with "
            f"{share} for each; give less to each ("
            + ("--gpus-per-worker" if gpus else "OMP_NUM_THREADS, its threads")
            + ") or add machines."
        )
    return wanted or most


def room(nodes: list[dict[str, float]], cpus: int, gpus: float) -> int:
    """How many workers fit, each within one machine and one GPU.

    Args:
        nodes: what each machine has, as `{"CPU": 8.0, "GPU": 1.0}`.
        cpus: for each worker.
        gpus: for each worker, 0 to 1.
    """
    fitting = 0
    for node in nodes:
        fits = int(node.get("CPU", 0)) // cpus
        if gpus:
            fits = min(fits, int(node.get("GPU", 0)) * int(1 / gpus))
        fitting += fits
    return fitting


class Attempts:
    """Counts how often each picture was begun. An actor of its own, since that of a worker dies
    with what it knows.

    Args:
        count: of the pictures.
    """

    def __init__(self, count: int) -> None:
        self.begun = bytearray(count)

    def begin(self, index: int) -> int:
        """Note that a picture is begun; returns the how-manieth time it is."""
        self.begun[index] = min(255, self.begun[index] + 1)
        return self.begun[index]


class Worker:
    """Restores pictures in a process of its own, with one model.

    Args:
        options: of the command.
        folder: from which it was called, so that relative paths are right here too.
        threads: as many as the local engine would have, as sums depend on it in the last bits.
        attempts: the actor that counts.
    """

    def __init__(self, options: RestoreOptions, folder: str, threads: int, attempts: Any) -> None:
        self.options, self.folder, self.threads = options, folder, threads
        self.attempts = attempts
        self.prepared: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Restore one picture.

        Args:
            row: `index`, `source`, `target`, `mask` (empty if none) and `refusal` of the job.

        Returns:
            `source`, `attempt`, `text` (a line for the user) and `kind`: `restored`, `failed`,
            `deadly` (workers died at it, so it was not tried again) or `stop` (no other picture
            would do either).
        """
        import ray

        attempt = ray.get(self.attempts.begin.remote(row["index"]))
        try:
            kind, text = self._restore(row, attempt)
        except BIRError as error:
            kind, text = "stop", str(error)
        return {"source": row["source"], "attempt": attempt, "kind": kind, "text": _plain(text)}

    def _restore(self, row: dict[str, Any], attempt: int) -> tuple[str, str]:
        self._prepare()
        source, target, mask = (
            Path(os.fsdecode(row[name])) for name in ("source", "target", "mask")
        )
        again = attempt > 1 or self.options.resume
        if again and not self.options.overwrite and os.path.exists(target):
            return "restored", f"{target}  finished by a worker that died"
        if attempt > MOST_ATTEMPTS:
            return "deadly", (
                f"Expected to restore {source}, but {MOST_ATTEMPTS} workers died at it, most "
                "likely for want of memory; leave it out or give smaller tiles."
            )
        job = Job(source, target, mask if row["mask"] else None, row["refusal"])
        outcome = self.prepared(job, again or self.options.overwrite)
        return ("restored" if outcome.is_restored else "failed"), outcome.text

    def _prepare(self) -> None:
        """Load the model before the first picture. Not when the worker starts: Ray would go on
        starting workers whose models do not load."""
        if self.prepared is not None:
            return
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise BIRError(
                f"Expected the folder {self.folder} on every machine of the cluster, but one "
                f"has none ({error.strerror}); call the command from a shared folder."
            ) from error
        torch.set_num_threads(self.threads)
        self.prepared = restore_one.prepare(self.options)
