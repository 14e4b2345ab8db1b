"""Ordinary differential equations dx/dt = v(x, t) from t = 0 to 1, counted in evaluations of v.

NFE is exact: `euler` with nfe=4 evaluates v exactly four times, at 0, 1/4, 2/4, 3/4. A solver with
k evaluations a step takes multiples of k. The adaptive ones are torchdiffeq's and take a tolerance instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import ConfigError, MissingDependencyError
from ..fallback import with_fallback

Velocity = Callable[[Tensor, float], Tensor]
Step = Callable[[Velocity, Tensor, float, float], Tensor]
StepCallback = Callable[[float, Tensor], None]

MAX_NFE = 1000


def euler(v: Velocity, x: Tensor, t: float, h: float) -> Tensor:
    """Order 1, one evaluation."""
    return x + h * v(x, t)


def midpoint(v: Velocity, x: Tensor, t: float, h: float) -> Tensor:
    """Order 2, two evaluations."""
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def heun(v: Velocity, x: Tensor, t: float, h: float) -> Tensor:
    """Order 2, two evaluations (the explicit trapezoid)."""
    k1 = v(x, t)
    return x + h / 2 * (k1 + v(x + h * k1, t + h))


def rk4(v: Velocity, x: Tensor, t: float, h: float) -> Tensor:
    """Order 4, four evaluations (Kutta's classic)."""
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, t + h / 2)
    k3 = v(x + h / 2 * k2, t + h / 2)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(x + h * k3, t + h))


@dataclass(frozen=True)
class FixedSolver:
    """A fixed-step method: its step, its evaluations a step, its order of convergence."""

    step: Step
    evaluations: int
    order: int


FIXED = {
    "euler": FixedSolver(euler, 1, 1),
    "midpoint": FixedSolver(midpoint, 2, 2),
    "heun": FixedSolver(heun, 2, 2),
    "rk4": FixedSolver(rk4, 4, 4),
}
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
SOLVERS = (*FIXED, *ADAPTIVE)
EVALUATIONS_PER_STEP = {name: solver.evaluations for name, solver in FIXED.items()} | dict.fromkeys(ADAPTIVE, 0)


def check_solver(solver: str, nfe: int, own: bool = False) -> None:
    """Refuse an unknown solver, and a number of evaluations that its steps cannot spend exactly.

    own: nfe is the model's own number, which nobody typed.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"There is no solver {solver!r}; choose one of {', '.join(SOLVERS)}.")
    if isinstance(nfe, bool) or not isinstance(nfe, int) or not 1 <= nfe <= MAX_NFE:
        raise ConfigError(f"nfe must be a whole number from 1 to {MAX_NFE}, but it is {nfe!r}.")
    each = FIXED[solver].evaluations if solver in FIXED else 1
    if nfe % each:
        below, above = nfe // each * each, (nfe // each + 1) * each
        nearest = f"{below} or {above}" if below else f"{above}"
        whose, nearest = ("the model's own ", f"{nearest}, or the solver euler") if own else ("", nearest)
        raise ConfigError(f"{solver} evaluates {each} times a step, so {whose}nfe={nfe} does not fit; take {nearest}.")


def solve(
    velocity: Velocity,
    start: Tensor,
    nfe: int,
    solver: str = "euler",
    *,
    tolerance: float = 1e-3,
    on_step: StepCallback | None = None,
) -> tuple[Tensor, int]:
    """Carry start from t=0 to t=1; returns the end, of start's shape, and the evaluations spent.

    Fixed solvers take nfe / evaluations-a-step equal steps. Adaptive ones ignore nfe and hold the relative and
    absolute error to `tolerance`. on_step(t, state) is called after each fixed step; to cancel, raise in it or in
    the velocity.
    """
    check_solver(solver, nfe)
    if solver in ADAPTIVE:
        return _solve_adaptive(velocity, start, solver, tolerance)
    method = FIXED[solver]
    steps, x = nfe // method.evaluations, start
    for i in range(steps):
        x = method.step(velocity, x, i / steps, 1 / steps)
        if on_step is not None:
            on_step((i + 1) / steps, x)
    return x, nfe


def _solve_adaptive(velocity: Velocity, start: Tensor, solver: str, tolerance: float) -> tuple[Tensor, int]:
    try:
        from torchdiffeq import odeint
    except ImportError:
        raise MissingDependencyError(
            f"{solver} needs the package torchdiffeq; install it (pip install torchdiffeq) or choose "
            f"{', '.join(FIXED)}."
        ) from None
    if not tolerance > 0:
        raise ConfigError(f"The tolerance must be above 0, but it is {tolerance!r}.")
    spent = 0

    def field(t: Tensor, x: Tensor) -> Tensor:
        nonlocal spent
        spent += 1
        return velocity(x, float(t))

    def integral(start: Tensor) -> Tensor:
        nonlocal spent
        spent = 0
        times = start.new_tensor([0.0, 1.0])
        end: Tensor = odeint(field, start, times, rtol=tolerance, atol=tolerance, method=solver)[-1]
        return end

    # torchdiffeq keeps the time in float64, which Apple's devices lack; the velocity stays where its network is.
    return with_fallback(f"the solver {solver}", integral, start), spent
