"""What is done to a scan of an old photograph before it is restored like any other picture.

levels   what faded and turned brown, and back again
filling  thin damage filled from its surroundings
mending  both, in their order, with what was done in words
"""

from .levels import Levels, find_levels
from .mending import MENDING, Mended, mend

__all__ = ["MENDING", "Levels", "Mended", "find_levels", "mend"]
