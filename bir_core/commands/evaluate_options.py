"""What `bir evaluate` is asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """As its arguments."""

    hq: Path | None = None
    model: tuple[str, ...] = ()
    results: tuple[Path, ...] = ()
    lq: Path | None = None
    scratches: str | None = None
    estimate: str | None = None
    auto: bool = False
    old_photo: bool = False
    degradation: str | None = None
    seed: int = 0
    protocol: str | None = None
    metric: tuple[str, ...] = ()
    border: int | None = None
    multiple: int | None = None
    reference: Path | None = None
    metric_weights: Path | None = None
    device: str = "auto"
    dtype: str = "float32"
    output: tuple[Path, ...] = ()
    overwrite: bool = False
    list: bool = False
