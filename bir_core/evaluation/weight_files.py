"""The weights of the networks that measure: files that somebody has put there, never downloaded by
a measure."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch

from ..errors import BIRError

_SAFE_READING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Attributes:
        path: below the folder of weights.
        source: where it is published, or what writes it.
    """

    path: str
    source: str


def usual_folder() -> Path:
    """torch's cache, where pyiqa and torchvision keep their weights too."""
    return Path(torch.hub.get_dir())


def require_weights(files: Iterable[WeightFile], folder: Path) -> None:
    """Raise BIRError, which names all absent files, if `folder` does not hold all `files`."""
    absent = [file for file in dict.fromkeys(files) if not (folder / file.path).is_file()]
    if absent:
        named = ", ".join(f"{folder / file.path} ({file.source})" for file in absent)
        raise BIRError(
            f"Expected the weights of the measures, but these files are absent: {named}; "
            "put them there or name another folder with --metric-weights."
        )


def optional_package(name: str) -> ModuleType:
    """Import a module of the extra `metrics`.

    Raises:
        BIRError: it is not installed, or torchvision is that of another torch.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "pkg_resources":
            raise BIRError(
                "Expected a setuptools that still has pkg_resources, which CLIP's tokenizer needs, "
                "but this one has none; pip install 'setuptools<82'."
            ) from error
        raise BIRError(
            f"Expected the package {error.name} for this measure, but it is not installed; install "
            "the extra: pip install comfyui-bir[metrics]."
        ) from error
    except RuntimeError as error:
        raise BIRError(
            f"Expected {name} to be importable, but it is not ({first_line(error)}); "
            "install the torchvision that belongs to this torch."
        ) from error


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a sentence."""
    return str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def local_files_only(folder: Path) -> Iterator[None]:
    """While it lasts, pyiqa and torchvision look for weights below `folder` only, download nothing,
    and read without executing pickled code; what they print goes to stderr, as stdout is for the
    table."""
    downloads = optional_package("pyiqa.utils.download_util")
    timm = optional_package("timm")
    create_model = timm.create_model
    reading = os.environ.get(_SAFE_READING)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        # pyiqa calls torchvision and torch in ways that they call deprecated.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_replaced(downloads, "DEFAULT_CACHE_DIR", str(folder / "pyiqa")))
        stack.enter_context(_replaced(downloads, "download_url_to_file", _refuse_download))
        stack.enter_context(_replaced(torch.hub, "download_url_to_file", _refuse_download))
        # MANIQA asks for ImageNet weights of its ViT, which its own file then replaces.
        stack.enter_context(
            _replaced(timm, "create_model", lambda name, **_: create_model(name, pretrained=False))
        )
        # Not `set_dir`, after which the environment would not count any more.
        stack.enter_context(_replaced(torch.hub, "_hub_dir", str(folder)))
        stack.callback(_set_environment, _SAFE_READING, reading)
        _set_environment(_SAFE_READING, "1")
        yield


def _refuse_download(url: str, target: str, *rest: Any, **options: Any) -> NoReturn:
    raise BIRError(
        f"Expected weights at {target}, but there is no such file; this version of pyiqa takes "
        f"{url}: download it to that path."
    )


@contextmanager
def _replaced(owner: ModuleType, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
