"""What ComfyUI is told of our errors.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from comfy_api.latest import io

from ...bir_core.errors import BIRError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def spoken(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """What ComfyUI calls, with a BIRError as a ValueError, or as a MemoryError if it is one, for
    which others have second tries: ComfyUI shows the type of an exception with its module, and our
    modules have the paths of their files for names."""

    @functools.wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except BIRError as error:
            kind = MemoryError if isinstance(error, MemoryError) else ValueError
            raise kind(str(error)) from error

    return called


class Node(io.ComfyNode):
    """What all our nodes are: their `execute` speaks as `spoken` does."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        execute = cls.__dict__["execute"].__func__
        # ComfyUI derives classes that hold the same function, and cannot be changed.
        if not hasattr(execute, "__wrapped__"):
            cls.execute = classmethod(spoken(execute))
