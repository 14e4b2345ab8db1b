"""Progress as log lines, for commands that run for hours and whose output goes to a file."""

from __future__ import annotations

import sys
import time

REPORT_SECONDS = 10.0


class ProgressLog:
    """Writes a line to stderr every `REPORT_SECONDS`: what is done, details, the time left."""

    def __init__(self, unit: str, first: int = 0) -> None:
        """unit: what is counted, such as "views". first: how much an earlier run has already done."""
        self.unit, self.first = unit, first
        self.started = self.written = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Write a line if one is due."""
        if self.due:
            self.write(done, total)

    @property
    def due(self) -> bool:
        """Whether the last line is `REPORT_SECONDS` old."""
        return time.monotonic() - self.written > REPORT_SECONDS

    def rate(self, done: int) -> float:
        """Units a second in this run."""
        return (done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def write(self, done: int, total: int, details: str = "") -> None:
        """Write a line now. done counts from 0, with what an earlier run has done."""
        self.written = time.monotonic()
        left = (total - done) / self.rate(done)
        print(f"{done}/{total} {self.unit}{details}, {left / 60:.0f} min left", file=sys.stderr, flush=True)
