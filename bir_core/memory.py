"""Recognising that a device has run out of memory."""

import torch

# What torch says on CUDA and MPS, on Linux and macOS, and on Windows.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _OUT_OF_MEMORY
    )
