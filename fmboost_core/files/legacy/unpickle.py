"""From a PyTorch checkpoint to its named tensors, without running anything that the file brings along.

A checkpoint is a zip with a pickle in it, and a pickle is a program: here it is read by an unpickler that makes
tensors and plain containers and puts an inert object in the place of everything else. `torch.load` is not used at
all: its `weights_only=True` refuses the configuration objects in Lightning's files, and up to torch 2.5 it could be
made to run code (CVE-2025-32434).
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import CheckpointError, reason

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
}
_WRAPPERS = ("state_dict", "model", "module")
_FOREIGN_SHOWN = 3
# What zipfile raises for archives that are cut, changed, encrypted or of a version it does not know.
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its shape and type, and `read()`, which fetches its values."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


class Inert:
    """Stands in for any foreign class, function or object: takes every call, item and state, and does nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...

    def __call__(self, *_args: object, **_kwargs: object) -> Inert:
        return Inert()

    def __setstate__(self, *_state: object) -> None: ...

    def __setitem__(self, _key: object, _value: object) -> None: ...

    def append(self, _item: object) -> None: ...

    def extend(self, _items: object) -> None: ...

    def add(self, _item: object) -> None: ...


class _Storage(NamedTuple):
    """The place of a tensor's numbers in the archive; `dtype` is no torch.dtype for a kind we do not know."""

    key: str
    dtype: Any
    length: int


class StoredTensor(Inert):
    """A tensor that is still in the archive. What the pickle claims of it is checked when it is read."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: object) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Parameter(Inert):
    """`_rebuild_parameter(data, ...)` is its data."""

    def __new__(cls, data: Any, *_rest: object) -> Any:
        return data


class _Dict(dict[Any, Any]):
    """An OrderedDict as a plain table: a pickled state could otherwise set attributes over its methods."""

    def __setstate__(self, *_state: object) -> None: ...


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class RestrictedUnpickler(pickle._Unpickler):
    """Makes plain containers and `StoredTensor`s, and `Inert` objects of all else. It imports and calls nothing.

    The one in Python, as the one in C sets aside memory for whatever index of its memo a pickle names.
    foreign: the names the pickle asked for and did not get.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.foreign: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            self.foreign.append(f"{module}.{name}")
            return Inert
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        _kind, dtype, key, _device, length = pid
        return _Storage(str(key), dtype, int(length))


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path} is a damaged or cut zip ({reason(error)}).") from None
    with archive:
        yield archive


def _read_record(path: Path, archive: zipfile.ZipFile, name: str) -> bytearray:
    """One file of the archive. PyTorch never compresses, so no file can swell to more than the archive's size."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise CheckpointError(f"{path} lacks its part {name}.") from None
    if info.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(f"{path} is a compressed zip, which no PyTorch checkpoint is.")
    try:
        with archive.open(info) as record:
            return bytearray(record.read())
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path} is damaged at {name} ({reason(error)}).") from None


def checkpoint_entries(path: Path, archive: zipfile.ZipFile) -> dict[str, Entry]:
    names = archive.namelist()
    root = next((n[: -len("data.pkl")] for n in names if n.endswith("/data.pkl")), None)
    if root is None:
        raise CheckpointError(f"{path} is a zip, but no PyTorch checkpoint: it has no data.pkl.")
    if f"{root}byteorder" in names and _read_record(path, archive, f"{root}byteorder") != b"little":
        raise CheckpointError(f"{path} was saved on a big-endian machine, which is not supported.")
    unpickler = RestrictedUnpickler(io.BytesIO(_read_record(path, archive, f"{root}data.pkl")))
    try:
        content = unpickler.load()
    except Exception as error:  # a broken or hostile pickle can raise anything
        raise CheckpointError(f"{path} has a pickle that cannot be read ({type(error).__name__}).") from None
    weights = _find_weights(content)
    if not weights:
        raise CheckpointError(f"{path} holds no weights{_instead(content, unpickler.foreign)}.")
    entries = {k: _zip_entry(path, archive, root, k, v) for k, v in weights.items()}
    return {k: v for k, v in entries.items() if v is not None}


def _find_weights(content: Any) -> dict[str, StoredTensor]:
    """The first table with tensors in it: under a usual wrapper's key, or the content itself."""
    if not isinstance(content, dict):
        return {}
    for table in (*(content.get(key) for key in _WRAPPERS), content):
        if isinstance(table, dict):
            tensors = {k: v for k, v in table.items() if isinstance(k, str) and isinstance(v, StoredTensor)}
            if tensors:
                return tensors
    return {}


def _instead(content: Any, foreign: list[str]) -> str:
    if foreign:
        names = ", ".join(dict.fromkeys(foreign[:_FOREIGN_SHOWN]))
        return f", only objects that are never run or made ({names}), so a state dict must be saved instead"
    return f", only a {type(content).__name__}"


def _zip_entry(path: Path, archive: zipfile.ZipFile, root: str, name: str, stored: StoredTensor) -> Entry | None:
    """The entry of a stored tensor, or None where its claims are impossible or of a kind no weight is."""
    try:
        (key, dtype, length), offset = stored.storage, int(stored.offset)
        size, stride = (tuple(int(n) for n in v) for v in (stored.size, stored.stride))
    except (AttributeError, TypeError, ValueError):
        return None
    # A tensor that repeats its numbers would let a small file ask for any amount of memory.
    if not isinstance(dtype, torch.dtype) or min(size, default=0) < 0 or math.prod(size) > length:
        return None

    def read() -> Tensor:
        record = _read_record(path, archive, f"{root}data/{key}")
        try:
            return torch.frombuffer(record, dtype=dtype)[:length].as_strided(size, stride, offset)
        except (ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged at {name} ({reason(error)}).") from None

    return Entry(size, str(dtype).removeprefix("torch."), read)
