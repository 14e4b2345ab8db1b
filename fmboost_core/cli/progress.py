"""Progress bars on a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm


class ProgressBar:
    """A bar of tqdm on stderr, with the time left; nothing is shown where stderr is no terminal.

    Call it with the work done and the total. At the end of its `with` block it disappears.
    """

    INTERVAL = 0.1  # seconds between drawings

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._bar = tqdm(
            desc=label,
            file=sys.stderr if stream is None else stream,
            disable=None,  # unless the stream is a terminal
            leave=False,
            dynamic_ncols=True,
            miniters=1,
            mininterval=self.INTERVAL,
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        """Show done of total pieces of work; a total of 0 is unknown."""
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)
