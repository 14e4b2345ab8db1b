"""Hooks: what a caller can watch and steer while a result is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import Cancelled


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    index: from 1 to count. size: (height, width) in pixels. tiles: into which its latent was cut. evaluations: NFE of
    the stage, with an adaptive solver that of the item with the most.
    """

    index: int
    count: int
    size: tuple[int, int]
    tiles: int
    evaluations: int


@dataclass(frozen=True)
class Hooks:
    """Functions that are called on the way.

    progress(done, total): evaluations of tiles in all stages; total is 0 where an adaptive solver decides.
    cancelled(): asked after each evaluation of a tile; where it returns True, `Cancelled` is raised.
    on_state(t, state): after each step of a fixed solver; the time in [0,1] and the latent (B,C,h,w), for previews. The
        solver goes on from what is written into it.
    on_stage(stage): after each stage.
    """

    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_state: Callable[[float, Tensor], None] | None = None
    on_stage: Callable[[Stage], None] | None = None

    def check_cancelled(self) -> None:
        """Raise `Cancelled` where the caller wants to stop."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("Stopped on request.")
