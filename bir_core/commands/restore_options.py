"""What `bir restore` is asked for, apart from its parser."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT_SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif"}


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Those that only `--engine ray` takes; None is chosen by what the cluster has."""

    workers: int | None = None
    gpus_per_worker: float | None = None
    ray_address: str | None = None


@dataclass(frozen=True, kw_only=True)
class AutoOptions:
    """Those that only --auto takes, and what its choice has to keep.

    Attributes:
        scale: that was asked for; None is chosen.
        task: whether one of DiffBIR was asked for.
    """

    scale: float | None = None
    task: bool = False


@dataclass(frozen=True, kw_only=True)
class OldPhotoOptions:
    """Those that only --old-photo takes.

    Attributes:
        auto: how it is chosen for a picture once it is mended.
        without: steps that are left out, of `restore_old_photo.STEPS`.
    """

    auto: AutoOptions
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Those of the built-in networks that --auto chooses among.

    Attributes:
        seed, strip, dtype: as of the methods `compact` and `diffir`.
    """

    seed: int = 0
    strip: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """Those of all methods, as their arguments. Ray sends them to its workers.

    Attributes:
        output: None for a free name beside the input.
        method: a name of `METHODS`; None where --auto chooses among the built-in networks.
        try_crop: whether no more than a piece is restored, which has no transparency.
        first_frame: of a picture with several frames or pages the first is restored.
        of_method: what that method read for itself, or `NetworkOptions`.
        auto: how it is chosen for each picture; None where the options say it.
        old_photo: the chain for old photographs instead; None without it.
        ray: of that engine.
    """

    input: Path
    of_method: Any
    method: str | None = None
    auto: AutoOptions | None = None
    old_photo: OldPhotoOptions | None = None
    output: Path | None = None
    mask: Path | None = None
    try_crop: tuple[int, int, int] | None = None
    engine: str = "local"
    ray: RayOptions = RayOptions()
    device: str = "auto"
    dtype: str = "float32"
    overwrite: bool = False
    resume: bool = False
    format: str | None = None
    bits: int | None = None
    quality: int = 95
    recursive: bool = False
    first_frame: bool = False

    @property
    def may_replace(self) -> bool:
        """Whether outputs may be there already."""
        return self.overwrite or self.resume
