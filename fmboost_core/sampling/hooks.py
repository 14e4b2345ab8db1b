"""Hooks: what a caller may watch and steer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Stage:
    """A finished stage: its number from 1, the picture's (height, width) in pixels, tiles, evaluations spent."""

    index: int
    count: int
    size: tuple[int, int]
    tiles: int
    evaluations: int


@dataclass(frozen=True)
class Hooks:
    """What a caller may watch and steer.

    progress(done, total): tile evaluations of all stages; total is 0 where an adaptive solver decides.
    cancelled(): polled after each tile evaluation; True raises `Cancelled`.
    on_state(t, state): after each step, the time in [0,1] and the latent (B,C,h,w), for previews and trajectories.
    on_stage(stage): after each stage.
    """

    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_state: Callable[[float, Tensor], None] | None = None
    on_stage: Callable[[Stage], None] | None = None
