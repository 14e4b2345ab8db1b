"""What the hosts' widgets and progress bars have in common."""

from __future__ import annotations

import pytest

from fmboost_core.sampling.widgets import OWN_NFE, OWN_NOISE_STEP, SharedBar, or_none


@pytest.mark.parametrize("own", [OWN_NFE, OWN_NOISE_STEP])
def test_only_the_widgets_own_value_is_none(own: int) -> None:
    assert [or_none(value, own) for value in (own, own + 1, 400)] == [None, own + 1, 400]


def test_a_bar_goes_through_its_runs() -> None:
    bar, places = SharedBar(2), []
    for _ in range(2):
        places += [bar.place(done, 4) for done in (1, 4)]
        bar.next_run()
    assert places == [(1, 8), (4, 8), (5, 8), (8, 8)]


def test_the_bar_of_an_adaptive_solver_stays_ahead() -> None:
    bar = SharedBar()
    assert [bar.place(done, 0) for done in (1, 18, 19, 100)] == [(1, 24), (18, 24), (19, 25), (100, 106)]
