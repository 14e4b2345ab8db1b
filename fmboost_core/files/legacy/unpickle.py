"""A pickle reader that makes tensors' descriptions and plain containers, and runs nothing.

spandrel hands such a reader to `torch.load`. That is not enough here, as measured with torch 2.1 and 2.13:
`torch.load` inflates compressed parts to any size, ignores checksums, runs TorchScript archives and reads the
optimizer's state too; torch 2.1 also believes the length that a pickle claims for a storage, and reads beyond it.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, ClassVar

import torch


class Inert:
    """Stands in for a foreign class, function or object: takes all that a pickle does to one, and does nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Any:
        return super().__new__(cls)

    def __call__(self, *_args: object, **_kwargs: object) -> Inert:
        return Inert()

    def _ignore(*_args: object, **_kwargs: object) -> None: ...

    __init__ = __setstate__ = __setitem__ = append = extend = add = _ignore


class StoredTensor(Inert):
    """A tensor as the pickle describes it: the key of its storage, its type and its layout. It has no numbers yet.

    dtype is no `torch.dtype` if the storage is of a type that no weight has.
    """

    def __init__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> None:
        _kind, self.dtype, self.key, _device, _length = storage
        self.offset, self.shape, self.stride = offset, tuple(size), tuple(stride)
        counts = all(isinstance(n, int) and n >= 0 for n in (*self.shape, *self.stride, offset))
        if not counts or not isinstance(self.key, str):
            raise ValueError("a tensor has an impossible layout")


class _Parameter(Inert):
    """`_rebuild_parameter(data, ...)` is its data."""

    def __new__(cls, data: object, *_rest: object) -> Any:
        return data


class _Dict(dict[Any, Any]):
    """An OrderedDict that starts empty and ignores a pickled state, which could hide its methods."""

    def __init__(self, *_args: object) -> None:
        super().__init__()

    def __setstate__(self, *_state: object) -> None: ...


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
}


class RestrictedUnpickler(pickle._Unpickler):
    """Makes plain containers, `StoredTensor`s, and `Inert` objects of all else. It imports nothing.

    It extends Python's own unpickler: the one in C sets aside memory for any index of its memo that a pickle names.
    BYTEARRAY8 does so for any length, so it is unknown here. foreign: the names that became `Inert`.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(io.BytesIO(data))
        self.foreign: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            self.foreign.append(f"{module}.{name}")
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        return pid
