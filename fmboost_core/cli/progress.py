"""Progress on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class ProgressBar:
    """A progress bar on a terminal; silent elsewhere."""

    WIDTH, INTERVAL = 28, 0.1  # characters, seconds between drawings

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label, self.stream = label, sys.stderr if stream is None else stream
        self.began = self.drawn = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def __call__(self, done: int, total: int) -> None:
        """Show done of total pieces of work; a total of 0 is unknown."""
        now = time.monotonic()
        if now - self.drawn < self.INTERVAL:
            return
        self.drawn, spent = now, now - self.began
        if not total:
            self._write(f"{self.label}  {done} evaluations  {_clock(spent)}")
            return
        filled = "#" * (self.WIDTH * done // total)
        left = spent / done * (total - done)
        self._write(f"{self.label}  [{filled:-<{self.WIDTH}}]  {100 * done // total}%  {_clock(left)} left")

    def _write(self, text: str) -> None:
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{text}")
            self.stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
