"""Shards of latents in WebDataset's format, so that any of its readers streams them.

A shard is a plain tar. A sample is the members that share a key: `KEY.json`, what it is, and arrays `KEY.NAME.npy`.
Written whole or not at all. Reading is by random access into the mapped file, and not through a shuffling buffer:
so a training draws the same crops again after it was killed, and its memory does not grow with the data.
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
    """Of one view: facts, as JSON holds them, and arrays by name, of which those read are parts of a mapped file."""

    key: str
    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write a shard; `ImageError` where it cannot be (a full disk), and then nothing is left of it."""
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _add(tar, f"{sample.key}.json", json.dumps(sample.facts).encode())
            for name, array in sample.arrays.items():
                data = io.BytesIO()
                np.save(data, array, allow_pickle=False)
                _add(tar, f"{sample.key}.{name}.npy", data.getvalue())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no date: the same latents make the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_shard(path: Path) -> list[Sample]:
    """The samples of a shard. A cut or foreign file is a `ConfigError` that names it."""
    try:
        mapped = np.memmap(path, np.uint8, "r")
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
        _require_end(members, mapped)
        return list(_samples(members, mapped))
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ConfigError(f"{path} is no whole shard of latents ({error}); delete it and encode again.") from None


def _require_end(members: Sequence[tarfile.TarInfo], mapped: NDArray[np.uint8]) -> None:
    """A tar ends with two blocks of zeros and is filled to whole records; tarfile itself also stops where it is cut."""
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
    """The array of an .npy file's bytes, without copying them."""
    head = io.BytesIO(bytes(data[:1024]))
    version = np.lib.format.read_magic(head)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(head)
    if fortran or dtype.hasobject:
        raise ValueError("an array is not stored plainly")
    return data[head.tell() :].view(dtype).reshape(shape)
