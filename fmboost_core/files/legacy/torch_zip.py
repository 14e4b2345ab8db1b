"""PyTorch checkpoints: zip files with a pickle that describes the tensors, and one part for the numbers of each."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, reason
from .unpickle import RestrictedUnpickler, StoredTensor

_WRAPPERS = ("state_dict", "model", "module", "params_ema", "params")  # the last two are Real-ESRGAN's
_NAMES_SHOWN = 3


@contextmanager
def open_checkpoint(path: Path) -> Iterator[TorchCheckpoint]:
    """Open a PyTorch checkpoint; its tensors can be read inside the block. Raises `CheckpointError`."""
    with _refusing(f"{path} is a damaged or cut zip"):
        archive = zipfile.ZipFile(path)
    with archive:
        yield TorchCheckpoint(path, archive)


class TorchCheckpoint:
    """An open checkpoint. `tensors` describes its floating-point tensors by name, and `read` fetches one."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive, parts = path, archive, archive.namelist()
        self._root = next((name.removesuffix("data.pkl") for name in parts if name.endswith("/data.pkl")), "")
        if not self._root:
            raise CheckpointError(f"{path} is a zip, but no PyTorch checkpoint: it has no data.pkl; take another file.")
        if f"{self._root}byteorder" in parts and self._part("byteorder") != b"little":
            raise CheckpointError(
                f"{path} was saved on a big-endian machine, which is not supported; save it again on another one."
            )
        unpickler = RestrictedUnpickler(self._part("data.pkl"))
        with _refusing(f"{path} has a pickle that cannot be read"):
            content = unpickler.load()
            self.tensors = _find_tensors(content)
        if not self.tensors:
            foreign = ", ".join(dict.fromkeys(unpickler.foreign[:_NAMES_SHOWN]))
            found = f"objects that are not loaded for safety ({foreign})" if foreign else f"a {type(content).__name__}"
            raise CheckpointError(f"{path} holds no weights, only {found}; save the model's state_dict() instead.")

    def read(self, name: str) -> Tensor:
        """The values of a tensor. A tensor that repeats its numbers is refused: it could ask for any memory."""
        stored = self.tensors[name]
        part = self._part(f"data/{stored.key}")
        with _refusing(f"{self._path} is damaged at {name}"):
            numbers = torch.frombuffer(part, dtype=stored.dtype)
            if math.prod(stored.shape) > len(numbers):
                raise ValueError(f"{math.prod(stored.shape)} numbers are claimed, {len(numbers)} are stored")
            return numbers.as_strided(stored.shape, stored.stride, stored.offset)

    def _part(self, name: str) -> bytearray:
        """One file of the zip. PyTorch never compresses, so no part can be larger than the zip."""
        with _refusing(f"{self._path} is damaged at its part {name}"):
            info = self._archive.getinfo(self._root + name)
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed, which no part of a PyTorch checkpoint is")
            return bytearray(self._archive.read(info))


@contextmanager
def _refusing(claim: str) -> Iterator[None]:
    """Make any error of the block a `CheckpointError`: a broken or hostile file can raise anything."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{claim} ({type(error).__name__}: {reason(error)}); copy or download it again, or take another file."
        ) from None


def _find_tensors(content: Any) -> dict[str, StoredTensor]:
    """The first table with floating-point tensors in it: under a usual wrapper's key, or the content itself."""
    tables = [content.get(key) for key in _WRAPPERS] + [content] if isinstance(content, dict) else []
    for table in tables:
        items = table.items() if isinstance(table, dict) else ()
        stored = {name: v for name, v in items if isinstance(name, str) and isinstance(v, StoredTensor)}
        tensors = {name: v for name, v in stored.items() if isinstance(v.dtype, torch.dtype)}
        if tensors:
            return tensors
    return {}
