"""The networks of a step of stage 2 through torch.compile, for devices that are waiting for the
host to launch their kernels: fewer and larger kernels, and on CUDA a graph of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import BIRError
from ..memory import is_out_of_memory

DEFAULT_BACKEND = "inductor"


def require_backend(name: str) -> None:
    """Raise BIRError for what torch.compile does not know."""
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise BIRError(
            f"Steps should be compiled by one of {', '.join(known)}, but {name!r} came; choose one "
            "of these."
        )


def compiled(
    predict: Callable[..., Tensor], backend: str, device: torch.device
) -> Callable[..., Tensor]:
    """`Stage2.predict` compiled: at the first step of each size, for minutes; equal to rounding.

    Args:
        backend: of torch.compile. With "inductor" CUDA records the launches of a step as a graph,
            whose result is only there until the next step.

    Raises:
        BIRError: from the function, if it cannot be compiled here.
    """
    as_graph = backend == DEFAULT_BACKEND and device.type == "cuda"
    run = torch.compile(
        predict, backend=backend, dynamic=False, mode="reduce-overhead" if as_graph else None
    )

    def call(*arguments: object, **more: object) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException

        if as_graph:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return run(*arguments, **more)
        except TorchDynamoException as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).splitlines()[:2])
            raise BIRError(
                f"The steps should be compiled by {backend}, but it failed: {reason}; install what "
                "it needs, a C++ compiler and on a GPU Triton, or do not compile."
            ) from error

    return call
