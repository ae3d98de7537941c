"""Replaying a study that tried every setting."""

from __future__ import annotations

import math

import pytest

from bench.errors import UsageError
from bench.tune.comparison import SEARCHES, SHARES, Grid, grid_of, shares_found, table
from bench.tune.search import Shuffled
from tests.tune.made_up import made_up_result, made_up_space
from tests.tune.test_tables import found

SPACE = made_up_space()
GRID = Grid(SPACE, {name: made_up_result(case) for name, case in SPACE.cases.items()}, 0.0)


def test_a_study_that_tried_a_part_is_refused():
    with pytest.raises(UsageError, match="study one tried a part of the settings: run it with --exhaustive"):
        grid_of(found().model_copy(update={"is_exhaustive": False}))


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "Gaussian process"])
def test_a_search_tries_each_setting_at_most_once_and_begins_with_the_start(name):
    order = list(SEARCHES[name](GRID, 0))
    assert len(order) == len(set(order))
    assert set(order) <= set(SPACE.cases)
    if name != "chance":
        assert order[0] == SPACE.start.id


def test_shares_grow_and_the_whole_grid_is_all_of_it():
    shares, seconds = shares_found(GRID, SEARCHES["this search"], 0)
    assert shares == sorted(shares)
    assert len(shares) == len(SHARES)
    assert 0 < shares[0] <= shares[-1] <= 1
    assert seconds > 0
    assert GRID.area(list(SPACE.cases)) > 0


def test_a_search_that_ends_early_keeps_what_it_found():
    shares, _ = shares_found(GRID, lambda grid, seed: iter([grid.space.start.id]), 0)
    assert set(shares) == {GRID.area([SPACE.start.id]) / GRID.area(list(SPACE.cases))}


def test_settings_that_were_not_drawn_to_the_end_beat_nothing():
    hopeless = {name: one.model_copy(update={"complete": False}) for name, one in GRID.results.items()}
    assert Grid(SPACE, hopeless, 0.0).area(list(SPACE.cases)) == 0
    assert math.isfinite(GRID.seconds)


def test_the_table_has_a_row_for_each_search(monkeypatch):
    monkeypatch.setattr("bench.tune.comparison.SEARCHES", {"chance": SEARCHES["chance"]})
    lines: list[str] = []
    made = table(GRID, 2, lines.append)
    assert [line.split("|")[1].strip() for line in made.splitlines()] == ["search", "---", "chance"]
    assert len(lines) == 2
    assert Shuffled(SPACE).space is SPACE
