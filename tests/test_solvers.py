"""Solvers: orders of convergence on a flow with a closed form, exact counts, refusals."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from fmboost_core.errors import ConfigError, MissingDependencyError
from fmboost_core.sampling.solvers import ADAPTIVE, FIXED, check_solver, solve


def logistic(x: torch.Tensor, t: float) -> torch.Tensor:
    """dx/dt = 3 x (1 - x) cos t; solved exactly by `logistic_end`. Non-linear and non-autonomous."""
    return 3 * x * (1 - x) * math.cos(t)


START = torch.tensor([[0.1, 0.4]], dtype=torch.float64)


def logistic_end() -> torch.Tensor:
    odds = START / (1 - START) * math.exp(3 * math.sin(1))
    return odds / (1 + odds)


@pytest.mark.parametrize("name", FIXED)
def test_order_of_convergence(name: str) -> None:
    method = FIXED[name]
    steps = [16, 32, 64, 128]
    errors = [
        (solve(logistic, START, n * method.evaluations, name)[0] - logistic_end()).abs().max().item() for n in steps
    ]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes[-1] == pytest.approx(method.order, abs=0.15)


@pytest.mark.parametrize("name", FIXED)
def test_spends_exactly_the_evaluations_asked_for(name: str) -> None:
    times = []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        times.append(t)
        return -x

    for steps in (1, 3):
        times.clear()
        asked = steps * FIXED[name].evaluations
        _, spent = solve(velocity, START, asked, name)
        assert spent == len(times) == asked
        assert all(0 <= t <= 1 for t in times)


def test_euler_evaluates_at_the_left_ends() -> None:
    times = []
    solve(lambda x, t: (times.append(t), x)[1], START, 4)
    assert times == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("name", FIXED)
def test_a_straight_flow_is_exact_in_one_step(name: str) -> None:
    end, _ = solve(lambda x, t: torch.full_like(x, 0.5), START, FIXED[name].evaluations, name)
    assert torch.allclose(end, START + 0.5, atol=1e-12)


def test_steps_split_equal_the_whole() -> None:
    states = []
    whole, _ = solve(logistic, START, 4, on_step=lambda t, x: states.append((t, x)))
    assert [t for t, _ in states] == [0.25, 0.5, 0.75, 1.0]
    assert torch.equal(states[-1][1], whole)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_solvers_hold_the_tolerance_and_report_what_they_spend(name: str) -> None:
    pytest.importorskip("torchdiffeq")
    calls: list[float] = []

    def error(tolerance: float) -> float:
        calls.clear()
        end, spent = solve(lambda x, t: (calls.append(t), logistic(x, t))[1], START, 1, name, tolerance=tolerance)
        assert spent == len(calls) > 4
        return float((end - logistic_end()).abs().max())

    coarse, fine = error(1e-3), error(1e-7)
    assert fine < 1e-4 and fine < coarse / 10


@pytest.mark.parametrize(
    ("solver", "nfe", "says"),
    [
        ("heun", 3, "2 or 4"),
        ("rk4", 6, "4 or 8"),
        ("rk4", 1, "take 4"),
        ("euler", 0, "nfe"),
        ("euler", -1, "nfe"),
        ("euler", 1.5, "nfe"),
        ("euler", True, "nfe"),
        ("euler", 10**9, "nfe"),
        ("eular", 4, "euler, midpoint"),
    ],
)
def test_refusals_name_the_way_out(solver: str, nfe: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        solve(logistic, START, nfe, solver)


@pytest.mark.parametrize(("solver", "nfe"), [("euler", 1), ("heun", 4), ("dopri5", 1)])
def test_a_models_own_number_that_fits_is_taken(solver: str, nfe: int) -> None:
    check_solver(solver, nfe, own=True)


def test_a_models_own_number_that_does_not_fit_is_called_so() -> None:
    with pytest.raises(ConfigError, match=r"so the model's own nfe=1 does not fit; take 2, or the solver euler[.]$"):
        check_solver("heun", 1, own=True)


def test_without_torchdiffeq_dopri5_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['torchdiffeq'] = None\n"
        "import torch; from fmboost_core.sampling.solvers import solve\n"
        "solve(lambda x, t: x, torch.ones(1), 1, 'euler')\n"
        "try: solve(lambda x, t: x, torch.ones(1), 1, 'dopri5')\n"
        "except ImportError as e: print(type(e).__name__, e)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(MissingDependencyError.__name__) and "pip install torchdiffeq" in said
