"""A finding of the command `doctor`, and checks that may fail in any way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import FMBoostError, reason
from ..console import one_line

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    found: a clause for people. state: "ok"; "note" for what is worth knowing; "problem" for what FMBoost needs and
    lacks. advice: what to do, "" where there is nothing or `found` says it. figures: numbers of it, for programs.
    """

    name: str
    found: str
    state: str = OK
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return f"{self.found}; {self.advice}" if self.advice else self.found


def guarded(name: str, check: Callable[[], Iterable[Finding]], advice: str) -> Iterator[Finding]:
    """The findings of a check; its error is one more, a problem. advice: for errors that are not FMBoost's own."""
    try:
        yield from check()
    except FMBoostError as error:
        yield Finding(name, one_line(error).rstrip("."), PROBLEM)
    except Exception as error:  # drivers and the builds of PyTorch raise anything
        yield Finding(name, f"{type(error).__name__}: {reason(error)}", PROBLEM, advice)
