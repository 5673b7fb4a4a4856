"""How to recognise an estimator and read its sizes from tensor shapes."""

from ..networks.estimator import WIDTHS, EstimatorConfig
from .keys import StateDict

ESTIMATOR_REQUIRED = ("convolutions.0.weight", "convolutions.5.weight", "judge.2.weight")


def estimator_config(tensors: StateDict) -> EstimatorConfig:
    """The configuration. Raises KeyError or BIRError for a damaged file."""
    first, last = tensors["convolutions.0.weight"], tensors["judge.2.weight"]
    return EstimatorConfig(features=first.shape[0] // WIDTHS[0], hidden=last.shape[1])
