"""The front, the area that it beats, and the picks."""

from __future__ import annotations

import pytest

from bench.tune.front import AS_GOOD, BALANCED, FASTEST, front_of, hypervolume, picks_of
from bench.tune.result import Tried
from tests.tune.made_up import made_up_result, made_up_space

SPACE = made_up_space()
ONE = next(iter(SPACE.cases.values()))


def tried(name: str, seconds: float, quality: float, *, complete: bool = True) -> Tried:
    return made_up_result(ONE, case=name, seconds=seconds, quality=quality, complete=complete)


def names(found: list[Tried]) -> str:
    return "".join(one.case for one in found)


def test_nothing_on_the_front_is_beaten_in_both_and_everything_else_is():
    every = [made_up_result(case) for case in SPACE.cases.values()]
    front = front_of(every)
    for one in every:
        beaten = any(
            other.seconds <= one.seconds
            and other.quality >= one.quality
            and (other.seconds, other.quality) != (one.seconds, one.quality)
            for other in every
        )
        assert (one in front) is not beaten


def test_what_is_not_acceptable_is_no_choice():
    few = [tried("a", 1, 0.5), tried("b", 2, 0.9), tried("c", 0.5, 0.95, complete=False)]
    assert names(front_of(few)) == "ab"
    assert names(front_of(few, 0.8)) == "b"
    assert front_of(few, 0.99) == []


def test_equal_times_leave_the_better_picture():
    assert names(front_of([tried("a", 1, 0.8), tried("b", 1, 0.9), tried("c", 2, 0.9)])) == "b"


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(1.0, 0.5)], 0.5),
        ([(1.0, 0.5), (0.0, 0.25)], 0.75),
        ([(1.0, 0.5), (1.5, 0.4)], 0.5),
        ([(3.0, 0.9), (1.0, -1.0)], 0.0),
    ],
)
def test_the_area_is_that_of_the_steps(points, area):
    assert hypervolume(points, (2.0, 0.0)) == pytest.approx(area)


def test_a_point_that_is_not_beaten_enlarges_the_area():
    points = [(1.0, 0.5), (0.0, 0.25)]
    before = hypervolume(points, (2.0, 0.0))
    assert hypervolume([*points, (0.5, 0.4)], (2.0, 0.0)) > before
    assert hypervolume([*points, (1.0, 0.4)], (2.0, 0.0)) == before


def test_the_picks_are_the_good_the_balanced_and_the_fast_one():
    front = [tried("a", 1, 0.80), tried("b", 1.2, 0.95), tried("c", 3, 0.97), tried("d", 9, 0.99)]
    start = tried("s", 10, 0.965)
    picks = {pick.name: pick.tried.case for pick in picks_of(front, start)}
    assert picks == {AS_GOOD: "c", BALANCED: "b", FASTEST: "a"}


def test_a_longest_time_limits_the_picks():
    front = [tried("a", 1, 0.80), tried("b", 1.2, 0.95), tried("c", 3, 0.97)]
    picks = picks_of(front, tried("s", 10, 0.965), max_seconds=1.5)
    assert [pick.tried.case for pick in picks] == ["b", "a", "a"]
    assert picks[0].reason == "the nearest to the reference that was found"
    assert picks_of(front, None, max_seconds=0.1) == []


def test_a_front_of_one_is_every_pick():
    assert {pick.tried.case for pick in picks_of([tried("a", 1, 0.9)], None)} == {"a"}


@pytest.mark.parametrize(("plain", "after"), [(0.5, 25.0), (1.0, 2.5), (0.25, None), (0.1, None)])
def test_a_slow_first_call_pays_off_later_or_never(plain, after):
    compiled = tried("a", 0.25, 0.9).model_copy(update={"first_call_s": 6.75, "settings": {"images": 2}})
    found = compiled.break_even(plain)
    assert found == (pytest.approx(6.25 / (plain - 0.25)) if after else None)
