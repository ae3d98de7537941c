"""Which settings are measured again, and which of them stay on the front."""

from __future__ import annotations

import pytest

from bench.tune.finals import ranked
from bench.tune.result import Tried
from bench.tune.worker import MOST_FINALISTS, described, finalists_of, unbeaten
from tests.tune.made_up import made_up_result, made_up_space

ONE = next(iter(made_up_space().cases.values()))


def tried(name: str, seconds: float, quality: float) -> Tried:
    return made_up_result(ONE, case=name, seconds=seconds, quality=quality)


def names(found) -> str:
    return "".join(one.case for one in found)


def test_what_is_nearly_on_the_front_is_measured_again_too():
    few = [tried("a", 1.00, 0.8), tried("b", 1.04, 0.8), tried("c", 1.20, 0.8), tried("d", 2.0, 0.9)]
    assert names(finalists_of(few, 0.0)) == "abd"
    assert names(finalists_of(few, 0.85)) == "d"
    assert finalists_of(few, 0.95) == []


def test_a_long_front_is_thinned_and_keeps_its_ends():
    many = [tried(f"{number:02}", 1.0 + number, 0.5 + number / 100) for number in range(40)]
    found = finalists_of(many, 0.0)
    assert len(found) == MOST_FINALISTS
    assert (found[0].case, found[-1].case) == ("00", "39")


def test_a_setting_that_a_faster_one_beats_in_its_new_time_leaves_the_front():
    again = ranked({"a": [1.0, 1.01], "b": [1.1, 1.11], "c": [2.0, 2.02]})
    assert names(unbeaten(again, {"a": 0.9, "b": 0.8, "c": 0.95})) == "ac"


def test_a_setting_is_compared_with_the_next_slower_one_that_is_left():
    again = ranked({"a": [1.0, 1.01], "b": [1.1, 1.11], "c": [2.0, 2.02]})
    first, last = unbeaten(again, {"a": 0.9, "b": 0.8, "c": 0.95})
    assert first.ratio_to_next == pytest.approx(2.0)
    assert last.ratio_to_next is None


def test_a_trial_is_one_line():
    assert described(tried("a", 0.25, 0.91), 0.8) == "250 ms per picture, quality 0.910"
    assert described(tried("a", 0.25, 0.71), 0.8) == "250 ms per picture, quality 0.710, below 0.8"
