"""Shards of latents in WebDataset's format: written whole or not at all, read as mapped files.

A shard is a plain tar, which any reader of WebDataset streams. A sample is the members that share a key: `KEY.json`
with its facts, and arrays `KEY.NAME.npy`. Random access into the mapped file replaces a shuffling buffer: a resumed
training draws the same crops, and memory does not grow with the data.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...files.atomic import replacing


@dataclass(frozen=True)
class Sample:
    """A view's facts, as JSON holds them, and its arrays by name; arrays that were read are parts of a mapped file."""

    key: str
    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write a shard. Raises `FileError` where that fails, as on a full disk, and leaves nothing of it."""
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _add(tar, f"{sample.key}.json", json.dumps(sample.facts).encode())
            for name, array in sample.arrays.items():
                data = io.BytesIO()
                np.save(data, array, allow_pickle=False)
                _add(tar, f"{sample.key}.{name}.npy", data.getvalue())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # without owner and date, so that the same latents give the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_shard(path: Path) -> list[Sample]:
    """The samples of a shard. Raises `ConfigError`, which names the file, for a cut or foreign one."""
    try:
        mapped = np.memmap(path, np.uint8, "r")
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
        _require_end(members, mapped)
        return list(_samples(members, mapped))
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ConfigError(f"{path} is no whole shard of latents ({error}); delete it and encode again.") from None


def _require_end(members: Sequence[tarfile.TarInfo], mapped: NDArray[np.uint8]) -> None:
    """Refuse a cut tar, which tarfile reads silently: a whole one ends with two zero blocks and fills its records."""
    last = max((member.offset_data + member.size for member in members), default=0)
    end = mapped[-(-last // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE :]
    if len(end) < 2 * tarfile.BLOCKSIZE or end.any() or len(mapped) % tarfile.RECORDSIZE:
        raise ValueError("its end is missing")


def _samples(members: Iterable[tarfile.TarInfo], mapped: NDArray[np.uint8]) -> Iterator[Sample]:
    facts: dict[str, Any] = {}
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for member in members:
        key, _, rest = member.name.partition(".")
        data = mapped[member.offset_data : member.offset_data + member.size]
        if rest == "json":
            facts[key] = json.loads(bytes(data))
        elif rest.endswith(".npy"):
            arrays.setdefault(key, {})[rest.removesuffix(".npy")] = _as_array(data)
    for key in facts:
        yield Sample(key, facts[key], arrays[key])


def _as_array(data: NDArray[np.uint8]) -> NDArray[Any]:
    """The array in the bytes of an .npy file, without a copy."""
    head = io.BytesIO(bytes(data[:1024]))
    version = np.lib.format.read_magic(head)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(head)
    if fortran or dtype.hasobject:
        raise ValueError("an array is not stored plainly")
    return data[head.tell() :].view(dtype).reshape(shape)
