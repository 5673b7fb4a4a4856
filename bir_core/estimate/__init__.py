"""What is wrong with a picture: from its pixels to numbers with a spread, and to words.

patches    windows spread over a picture, and robust means over them
classical  what needs no network: noise, greyness, contrast, colour cast
jpeg       the quality in the tables of a file
estimating all of it together
words      the same as sentences
scratches  where a scan is damaged
"""

from .estimating import Estimate, estimate, estimate_file
from .patches import Measured

__all__ = ["Estimate", "Measured", "estimate", "estimate_file"]
