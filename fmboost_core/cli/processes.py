"""Several processes that share the work, as the launchers of PyTorch and Accelerate number them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Process:
    """rank: the number of this process, 0 to count - 1. local: its number on this machine, which selects its GPU."""

    rank: int = 0
    count: int = 1
    local: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ConfigError(
                f"RANK must be from 0 to WORLD_SIZE - 1, but RANK is {self.rank} and WORLD_SIZE {self.count}."
            )
        if self.local is not None and self.local < 0:
            raise ConfigError(f"LOCAL_RANK must be 0 or above, but it is {self.local}.")


def this_process(environ: Mapping[str, str]) -> Process:
    """This process by RANK, WORLD_SIZE and LOCAL_RANK; the only one if none of them is set.

    Raises `ConfigError` for a value that is no number, for a rank outside the count, and for RANK or WORLD_SIZE alone.
    """
    rank, count = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if rank is None or count is None:
        if rank is not count:
            there, absent = ("RANK", "WORLD_SIZE") if count is None else ("WORLD_SIZE", "RANK")
            raise ConfigError(f"{there} is set but {absent} is not; set both, as a launcher does, or neither.")
        rank, count = 0, 1
    return Process(rank, count, _number(environ, "LOCAL_RANK"))


def share(items: Sequence[Item], environ: Mapping[str, str] = os.environ) -> list[Item]:
    """The items of this process: r, r+W, r+2W ... for the rank r of W processes.

    Each item belongs to exactly one process, provided that all processes have the same items in the same order.
    """
    process = this_process(environ)
    return list(items[process.rank :: process.count])


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, as a launcher sets it, but it is {text!r}.") from None
