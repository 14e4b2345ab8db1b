"""The flow of one stage: a start is carried along the velocity from t=0 to t=1, in tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model import Model
from ..networks.conditioning import Conditioning
from .hooks import Hooks
from .options import ResolvedOptions
from .solvers import ADAPTIVE, solve
from .tiling import Tiling, tiled_velocity


class Flow:
    """A model's flow with its options. It counts evaluations of tiles over all stages, and stops when asked to."""

    def __init__(self, model: Model, options: ResolvedOptions, hooks: Hooks, tiles: int) -> None:
        """tiles: of all stages together, for the total of the progress."""
        self.model, self.options, self.hooks = model, options, hooks
        self.total = 0 if options.solver in ADAPTIVE else tiles * options.nfe
        self.done = 0

    def __call__(self, start: Tensor, guide: Tensor, kind: str, tiling: Tiling) -> tuple[Tensor, int]:
        """The latent of start's shape (B,C,h,w) that the stage makes, and the number of function evaluations.

        It is the state at t=1, or lies before or beyond it on the line from the guide (`SamplingOptions.strength`).
        kind: what the guide was encoded from, one of `GUIDE_KINDS`.
        """
        end, evaluations = self._ends(start, guide, kind, tiling)
        strength = self.options.strength
        return end if strength == 1 else torch.lerp(guide, end, strength), evaluations

    def _ends(self, start: Tensor, guide: Tensor, kind: str, tiling: Tiling) -> tuple[Tensor, int]:
        if self.options.solver not in ADAPTIVE:
            return self._solve(start, guide, kind, tiling)
        # An adaptive step size follows the error of everything solved together: items must not share it.
        ends = [self._solve(a, b, kind, tiling) for a, b in zip(start.split(1), guide.split(1), strict=True)]
        return torch.cat([end for end, _ in ends]), max(nfe for _, nfe in ends)

    def _solve(self, start: Tensor, guide: Tensor, kind: str, tiling: Tiling) -> tuple[Tensor, int]:
        conditioning = self.model.conditioning(guide, kind, self.options.alpha_bar)

        def evaluate(x: Tensor, t: float, conditioning: Conditioning) -> Tensor:
            return self.model.velocity(x, t, conditioning)

        def velocity(x: Tensor, t: float) -> Tensor:
            return tiled_velocity(evaluate, x, t, conditioning, tiling, self._advance)

        o = self.options
        return solve(velocity, start, o.nfe, o.solver, tolerance=o.tolerance, on_step=self.hooks.on_state)

    def _advance(self) -> None:
        self.done += 1
        if self.hooks.progress is not None:
            self.hooks.progress(self.done, self.total)
        self.hooks.check_cancelled()
