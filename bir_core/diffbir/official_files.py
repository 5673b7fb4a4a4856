"""The authors' files, by their names in a folder of models, for those that nobody named."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import BIRError, shown_path
from ..models import ENVIRONMENT, file_named, find_file, where_to_get
from .versions import VERSIONS, Task, official_files, version_name_of_file


def find_files(
    options: Sequence[str],
    task: Task,
    *,
    version: str | None,
    controlnet: Path | None,
    folder: Path | None,
) -> dict[str, Path]:
    """The files for options that were not given.

    Where neither a version was asked for nor the IRControlNet's name says one, it is the latest one
    of which all these files are at hand.

    Args:
        options: of "base", "controlnet", "stage1".
        controlnet: the file that was given for this one.
        folder: of models; None if there is none.

    Returns:
        The paths by the options.

    Raises:
        BIRError: one is not at hand, or there is no folder to look in.
    """
    if version is None and controlnet is not None:
        version = version_name_of_file(controlnet.name)
    published = (name for name in reversed(VERSIONS) if task in VERSIONS[name].controlnets)
    versions = tuple(published) if version is None else (version,)
    named = [official_files(task, each) for each in versions]
    for files in named:
        found = {option: find_file(getattr(files, option), folder) for option in options}
        complete = {option: path for option, path in found.items() if path is not None}
        if len(complete) == len(options):
            return complete
    # Of the newest, where one is not at hand, which is said.
    return {
        option: needed_file(option, "--method diffbir", getattr(named[0], option), folder)
        for option in options
    }


def needed_file(option: str, purpose: str, name: str, folder: Path | None) -> Path:
    """The file of a name in a folder of models, for an option that was not given.

    Args:
        option: as on the command line, without dashes.
        purpose: what needs it, in words.

    Raises:
        BIRError: it is not at hand, or there is no folder.
    """
    found = find_file(name, folder)
    if found is not None:
        return found
    wanted = f"Expected --{option.replace('_', '-')} for {purpose}"
    if folder is None:
        raise BIRError(
            f"{wanted}, but none came; give it, or the folder of all models by --models or the "
            f"variable {ENVIRONMENT}."
        )
    raise BIRError(
        f"{wanted}, or {name} in {shown_path(folder)}, but neither came; "
        f"{where_to_get(file_named(name), folder)}, or give another by the option."
    )
