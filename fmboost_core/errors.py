"""The errors that FMBoost raises on purpose, and its warning. Each is a sentence: what is wrong, and what to do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# CUDA, ROCm and Apple; the CPU; DirectML; Intel's devices; CUDA's library of matrices.
_MEMORY = re.compile(
    r"out of memory|allocate memory|not allocate tensor|OUT_OF_(DEVICE_|HOST_)?(MEMORY|RESOURCES)|_ALLOC_FAILED"
)


class FMBoostError(Exception):
    """Base class of all errors of FMBoost."""


class ConfigError(FMBoostError, ValueError):
    """A setting has an impossible value; the message names the setting, the value and the valid ones."""


class CheckpointError(FMBoostError, ValueError):
    """A weight file is missing, cut, foreign or not a model; the message names the file and what was found."""


class LatentError(FMBoostError, ValueError):
    """A latent has the wrong shape, channels, type or content for the model or the codec."""


class FileError(FMBoostError, OSError):
    """A file or a folder cannot be written; the message names it and the reason."""


class ImageError(FMBoostError, ValueError):
    """An image cannot be read or written; the message names the file."""


class NonFiniteError(FMBoostError, ArithmeticError):
    """A result holds NaN or infinity, and is not written as an image."""


class MissingDependencyError(FMBoostError, ImportError):
    """An optional package is needed for what was asked; the message says how to install it."""


class Cancelled(FMBoostError):
    """The caller's cancellation asked to stop."""


class FMBoostWarning(UserWarning):
    """A warning: this works, but probably does not give what was wanted."""


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect FMBoost's warnings as sentences, each once; the list is filled when the block has ended."""
    sentences: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FMBoostWarning)
        yield sentences
    sentences += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, FMBoostWarning))


def require(ok: bool, name: str, value: object, rule: str) -> None:
    """Refuse a field's value in one sentence: its name, the rule, the value."""
    if not ok:
        raise ConfigError(f"{name} must be {rule}, but it is {value!r}.")


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or one of PyTorch's devices ran out of memory; they have no common exception."""
    said = isinstance(error, RuntimeError) and _MEMORY.search(str(error))
    return isinstance(error, MemoryError) or bool(said)


def reason(error: BaseException) -> str:
    """The first line of an error of someone else's, to be put in parentheses."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
