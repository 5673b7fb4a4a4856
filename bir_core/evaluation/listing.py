"""The measures and the protocols as tables."""

from pathlib import Path

from .metrics import METRICS, Metric
from .protocols import PROTOCOLS, Protocol

_COMPARES = {"original": "its original", "nothing": "-", "others": "a set of pictures"}


def metrics_as_markdown(weights: Path) -> str:
    """A line for each measure: what it compares a picture with, which way is better, and its files
    in the folder `weights` with the source of those that are absent."""
    lines = ["| measure | compares with | better | weights |", "|---|---|---|---|"]
    return "\n".join(lines + [_metric_line(metric, weights) for metric in METRICS.values()])


def _metric_line(metric: Metric, weights: Path) -> str:
    better = "higher" if metric.higher_is_better else "lower"
    files = [
        str(weights / file.path)
        + ("" if (weights / file.path).is_file() else f" (absent; {file.source})")
        for file in metric.files
    ]
    cells = (metric.name, _COMPARES[metric.compares], better, ", ".join(files) or "-")
    return f"| {' | '.join(cells)} |"


def protocols_as_markdown() -> str:
    """A line for each protocol."""
    lines = [
        "| protocol | measures | border | multiple | pictures | remark |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_protocol_line(protocol) for protocol in PROTOCOLS.values()])


def _protocol_line(protocol: Protocol) -> str:
    cells = (
        protocol.name,
        ", ".join(protocol.metrics),
        str(protocol.border),
        str(protocol.multiple),
        protocol.pictures,
        protocol.remark,
    )
    return f"| {' | '.join(cells)} |"
