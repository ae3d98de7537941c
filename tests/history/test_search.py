"""The search: every change is found, in few looks, and what is skipped never makes the answer wrong."""

import itertools
import math

import pytest

from bench.errors import UsageError
from bench.history.search import BAD, GOOD, SKIP, Undecided, find_change


def judged(change, skipped=()):
    """A predicate over numbers that notes what it was asked: good before ``change``, bad from there on."""
    asked = []

    def judge(number):
        asked.append(number)
        return SKIP if number in skipped else BAD if number >= change else GOOD

    return judge, asked


@pytest.mark.parametrize("count", range(2, 40))
def test_every_position_of_the_change_is_found_in_few_looks(count):
    for change in range(1, count):
        judge, asked = judged(change)
        found = find_change(range(count), judge)
        assert (found.last_good, found.first_bad, found.between) == (change - 1, change, ())
        assert found.is_found
        assert len(asked) == len(set(asked)) == found.looks <= math.ceil(math.log2(count)) + 2


@pytest.mark.parametrize("change", range(1, 7))
def test_what_is_skipped_never_makes_the_answer_wrong(change):
    for size in range(6):
        for skipped in itertools.combinations(range(1, 6), size):
            judge, asked = judged(change, skipped)
            found = find_change(range(7), judge)
            assert found.last_good < change <= found.first_bad
            assert set(found.between) <= set(skipped)
            assert found.is_found == (not found.between)
            assert len(asked) == len(set(asked))


def test_a_skip_next_to_the_middle_costs_one_more_look_only():
    judge, asked = judged(9, skipped=(8,))
    assert find_change(range(17), judge).between == (8,)
    assert len(asked) <= math.ceil(math.log2(17)) + 3


def test_nothing_changed_takes_two_looks():
    judge, asked = judged(99)
    found = find_change(range(30), judge)
    assert (found.last_good, found.first_bad, asked) == (29, None, [0, 29])
    assert not found.is_found


def test_a_change_at_the_first_step_of_two():
    judge, asked = judged(1)
    assert find_change(range(2), judge).first_bad == 1
    assert asked == [0, 1]


def test_what_is_undecided_ends_the_search_with_what_is_known():
    def judge(number):
        if number == 5:
            raise Undecided("too close")
        return BAD if number >= 7 else GOOD

    found = find_change(range(11), judge)
    assert (found.last_good, found.first_bad, found.undecided) == (0, 10, "too close")
    assert found.between == tuple(range(1, 10))

    def unsure(number):
        raise Undecided("too close")

    found = find_change(range(3), lambda number: unsure(number) if number else GOOD)
    assert (found.last_good, found.first_bad, found.undecided) == (0, None, "too close")


def test_ends_that_cannot_be_judged_are_refused():
    with pytest.raises(UsageError, match="begin with a good item, and 0"):
        find_change(range(3), lambda number: BAD)
    with pytest.raises(UsageError, match="end with an item that can be judged, and 2"):
        find_change(range(3), lambda number: SKIP if number == 2 else GOOD)
