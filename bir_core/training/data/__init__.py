"""Training examples, from files to batches on the device.

Every draw follows from the seed and a position, so that a training can be resumed anywhere and does
not depend on the number of reading processes.

    sources   whole examples by number: of a folder, a list of files, shards
    orders    which example stands at which position
    cuts      which part of its picture is seen
    places    the same bent, turned and recoloured, for inpainting
    examples  cut examples by position
    batches   positions to batches on the device: degradation, pool of pairs
"""

from .batches import Batch, BatchSource, Degrade
from .draws import VALIDATION, generator_for
from .examples import ExampleDataset
from .pictures import to_float
from .sources import ExampleSource, open_source, open_split

__all__ = [
    "VALIDATION",
    "Batch",
    "BatchSource",
    "Degrade",
    "ExampleDataset",
    "ExampleSource",
    "generator_for",
    "open_source",
    "open_split",
    "to_float",
]
