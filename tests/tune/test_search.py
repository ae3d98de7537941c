"""Which setting is tried next, and how soon the front is found."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from bench.tune.front import hypervolume
from bench.tune.search import Known, Search, Shuffled, first_settings, gains
from tests.tune.made_up import made_up_result, made_up_space

SPACE = made_up_space()
RESULTS = {name: made_up_result(case) for name, case in SPACE.cases.items()}


def known(names) -> dict[str, Known]:
    return {name: Known(RESULTS[name].seconds, RESULTS[name].quality) for name in names}


def area(names) -> float:
    worst = max(np.log(one.seconds) for one in RESULTS.values()), 0.0
    return hypervolume([(float(np.log(RESULTS[name].seconds)), RESULTS[name].quality) for name in names], worst)


def order_of(search, count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    tried: list[str] = []
    while len(tried) < count and (name := search.next(known(tried), tried, rng)):
        tried.append(name)
    return tried


def test_first_come_the_start_and_each_scheduler_then_each_pipeline_with_the_best_of_them():
    schedulers = ["m/pndm-s30-g5-fp32", "m/pndm-s8-g5-fp32", "m/ddim-s8-g5-fp32", "m/euler-s8-g5-fp32"]
    assert first_settings(SPACE, {}) == schedulers
    assert first_settings(SPACE, known(schedulers)) == [
        *schedulers,
        "m/euler-s8-g5-fp32-channels-last",
        "m/euler-s8-g5-bf16",
        "m/euler-s8-g5-bf16-channels-last",
    ]


def test_at_last_no_setting_is_left():
    taken = set(SPACE.cases) - {"m/ddim-s4-g5-fp32"}
    rng = np.random.default_rng(0)
    assert Shuffled(SPACE).next(known(taken), taken, rng) == "m/ddim-s4-g5-fp32"
    for search in (Search(SPACE, 0.0), Shuffled(SPACE)):
        assert search.next(known(SPACE.cases), set(SPACE.cases), rng) is None


def test_the_search_ends_when_nothing_promises_to_improve_the_front():
    search, rng = Search(SPACE, 0.0), np.random.default_rng(0)
    tried: list[str] = []
    while name := search.next(known(tried), tried, rng):
        tried.append(name)
    assert len(tried) == len(set(tried)) < len(SPACE.cases) * 0.9
    assert area(tried) > 0.999 * area(SPACE.cases)


def test_a_sixth_of_the_trials_finds_nearly_the_whole_front():
    found = area(order_of(Search(SPACE, 0.0), len(SPACE.cases) // 4))
    assert found > 0.99 * area(SPACE.cases)


def test_it_finds_more_than_chance():
    count = len(SPACE.cases) // 5
    by_chance = median([area(order_of(Shuffled(SPACE), count, seed)) for seed in range(9)])
    assert area(order_of(Search(SPACE, 0.0), count)) > by_chance


def test_shuffled_depends_on_the_seed_alone():
    assert order_of(Shuffled(SPACE), 5, 1) == order_of(Shuffled(SPACE), 5, 1) != order_of(Shuffled(SPACE), 5, 2)


def test_the_gain_of_a_point_is_the_area_that_it_adds():
    points, worst = [(1.0, 0.5), (0.0, 0.25)], (2.0, 0.0)
    rng = np.random.default_rng(4)
    seconds, quality = rng.uniform(-1, 3, (2, 5)), rng.uniform(-0.5, 1, (2, 5))
    found = gains(seconds, quality, points, worst)
    before = hypervolume(points, worst)
    for time, good, gain in zip(*(values.ravel().tolist() for values in (seconds, quality, found)), strict=True):
        assert gain == pytest.approx(hypervolume([*points, (time, good)], worst) - before)
