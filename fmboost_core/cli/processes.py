"""One of several processes that share the work, as PyTorch's and Accelerate's launchers number them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Process:
    """Its number among `count`, from 0, and its number on this machine, which says whose GPU is whose."""

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
    """What RANK, WORLD_SIZE and LOCAL_RANK say; the only process where no launcher has set them.

    Raises `ConfigError` for what are no numbers, do not fit together, or come without each other.
    """
    rank, count = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if rank is None or count is None:
        if rank is not count:
            there, absent = ("RANK", "WORLD_SIZE") if count is None else ("WORLD_SIZE", "RANK")
            raise ConfigError(f"{there} is set but {absent} is not; set both, as a launcher does, or neither.")
        rank, count = 0, 1
    return Process(rank, count, _number(environ, "LOCAL_RANK"))


def share(items: Sequence[Item], environ: Mapping[str, str] = os.environ) -> list[Item]:
    """This process's items: of W processes, number r takes the items r, r+W, r+2W ... so that each is done once.

    All processes must have the same items in the same order.
    """
    here = this_process(environ)
    return list(items[here.rank :: here.count])


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, as a launcher sets it, but it is {text!r}.") from None
