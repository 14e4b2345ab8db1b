"""Values of the hosts' widgets that stand for the model's own ones, and the place of a host's progress bar."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")

OWN_NFE = 0
OWN_NOISE_STEP = -1
OWN_STRENGTH = 0.0
OWN_METHOD = "auto"


def or_none(value: Value, own: Value) -> Value | None:
    """A widget's value for `SamplingOptions`: None where it is `own`, which stands for the model's own."""
    return None if value == own else value


class SharedBar:
    """The place of a progress bar that several runs of the core share, one after the other."""

    def __init__(self, runs: int = 1) -> None:
        self._runs, self._run = runs, 0

    def next_run(self) -> None:
        """The present run has ended."""
        self._run += 1

    def place(self, done: int, total: int) -> tuple[int, int]:
        """(done, total) of the whole bar, from those that `Hooks.progress` gives in the present run.

        An adaptive solver gives a total of 0, because it does not know its own; the bar then stays a little ahead.
        """
        total = total or max(24, done + 6)
        return self._run * total + done, self._runs * total
