"""From the host's memory to the device that computes, without waiting for it."""

from torch import Tensor


def sent(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor of the host in the type and on the device of another.

    CUDA copies pinned memory in its turn, behind what is queued; an ordinary copy would let the
    host wait until the device has done all of that.
    """
    if like.device.type == "cuda":
        return tensor.to(like.dtype).pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like)
