"""What a pickle of torch.save describes, without executing anything that it names.

A pickle is a program: it names functions and has them called. Here every name stands for an inert
object of this file, and a name that is not known is refused, so that nothing else can be called.
"""

import pickle
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from .stored import DamagedFile

# Objects that training frameworks leave beside the weights. They become empty placeholders.
_IGNORED_MODULES = (
    *("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy."),
    *("argparse.", "pathlib.", "easydict.", "addict.", "yacs.", "mmengine.", "torch.optim."),
)
_IGNORED = {
    *("torch.device", "torch.Tensor", "torch.nn.parameter.Parameter", "_codecs.encode"),
    *("torch.serialization._get_layout", "copyreg._reconstructor", "torch.storage.TypedStorage"),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "complex", "bytearray", "object", "slice", "range")
    ),
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")


class RefusedName(Exception):
    """A pickle names a function or a class that is not known here."""


class _Inert:
    """Takes whatever a pickle does to an object, and does nothing."""

    def __setstate__(self, state: Any) -> None:
        pass


class Ignored(_Inert):
    """Stands for an object of a training framework, whatever it was made of."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _Table(dict[Any, Any], _Inert):
    """An OrderedDict, whose state is the versions of a network's parts."""


@dataclass(frozen=True)
class Storage(_Inert):
    """Memory that a pickle names: `count` numbers from the number `offset` on."""

    key: str
    dtype: torch.dtype
    count: int
    offset: int = 0


class PickledTensor(_Inert):
    """What a pickle says of a tensor."""

    def __init__(self, storage: Any, dtype: Any, offset: Any, shape: Any, stride: Any) -> None:
        if not (isinstance(storage, Storage) and isinstance(dtype, torch.dtype)):
            raise DamagedFile("a tensor without memory or type")
        if not (isinstance(shape, tuple) and isinstance(stride, tuple) and type(offset) is int):
            raise DamagedFile("a tensor without shape or place")
        self.storage, self.dtype, self.offset = storage, dtype, offset
        self.shape, self.stride = shape, stride


class _Function(_Inert):
    """A function of this file under the name that pickles have for torch's."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> PickledTensor:
    _require_plain(others[2:3])
    return PickledTensor(storage, getattr(storage, "dtype", None), offset, shape, stride)


def _typed_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *more: Any,
) -> PickledTensor:
    _require_plain(more)
    return PickledTensor(storage, dtype, offset, shape, stride)


def _require_plain(metadata: tuple[Any, ...]) -> None:
    """A tensor may be saved as the negative or the conjugate of its numbers."""
    if metadata and metadata[0]:
        raise DamagedFile("a tensor that is the negative or the conjugate of its numbers")


def _parameter(data: Any, *others: Any) -> Any:
    return data


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if not isinstance(function, _Function):
        raise DamagedFile("a tensor of another class")
    return function(*arguments)


def _table(*arguments: Any) -> _Table:
    pairs = arguments[0] if arguments and isinstance(arguments[0], list | dict) else ()
    return _Table(pairs)


def _size(*arguments: Any) -> tuple[Any, ...]:
    return tuple(*arguments)


_FUNCTIONS = {
    "collections.OrderedDict": _Function(_table),
    "collections.defaultdict": _Function(_table),
    "collections.Counter": _Function(_table),
    "torch.Size": _Function(_size),
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_tensor_v3": _Function(_typed_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
    "torch._tensor._rebuild_from_type_v2": _Function(_of_type),
}


# The reader of the standard library in Python, not that in C, in which one wrong byte can ask for
# gigabytes: it keeps numbered objects in a list as long as the highest number.
class _Reader(pickle._Unpickler):
    """Objects of a pickle, of which `storages` are named."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole in _FUNCTIONS:
            return _FUNCTIONS[whole]
        if module in _STORAGE_MODULES and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if whole in _IGNORED or whole.startswith(_IGNORED_MODULES):
            return Ignored
        if whole.startswith("torch._utils._rebuild_"):
            raise DamagedFile(f"a sparse or quantised tensor, {name}")
        raise RefusedName(whole)

    def persistent_load(self, saved: Any) -> Storage:
        if not isinstance(saved, tuple) or len(saved) not in (5, 6) or saved[0] != "storage":
            raise DamagedFile("it names something else than memory of tensors")
        dtype, key, count = saved[1], saved[2], saved[4]
        view = saved[5] if len(saved) == 6 else None
        storage = Storage(key, dtype, count)
        right = isinstance(dtype, torch.dtype) and isinstance(key, str) and type(count) is int
        if not right or count < 0 or self.storages.setdefault(key, storage) != storage:
            raise DamagedFile("memory of tensors without a name, a type and a size")
        if view is None:
            return storage
        # In files of before 2020: a part of the memory.
        _, offset, part = view
        if not (type(offset) is int and type(part) is int and 0 <= offset <= count - part <= count):
            raise DamagedFile("a view beyond the memory of tensors")
        return Storage(key, dtype, part, offset)


def read_pickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """The object that a pickle describes, from the file's position on, with a `PickledTensor` for
    each tensor; and the memory that it names, by key.

    Raises:
        RefusedName: it names a function or class that is not known here.
        Exception: whatever a damaged pickle leads to.
    """
    reader = _Reader(file)
    content = reader.load()
    return content, reader.storages
