"""Shards: consecutive, balanced, complete, and the same on every machine."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from bench.suite.case import Case, Model, Settings
from bench.suite.effort import effort
from bench.suite.file import read_suite
from bench.suite.split import milliseconds_of, split


def case(steps: int = 10, images: int = 1, **settings: object) -> Case:
    chosen = {"scheduler": "ddim", "guidance": 7.5, "prompts": ("panda",) * images, "steps": steps, "images": images}
    model = Model.model_validate({"name": "m", "kind": "stable-diffusion", "source": "embedded"})
    return Case(model=model, settings=Settings.model_validate(chosen | settings))


def costs_of(parts, costs):
    return [sum(costs[item] for item in part) for part in parts]


def best_by_trying(costs, count):
    """The smallest maximum over all ways to cut the costs."""
    places = range(len(costs) + 1)
    cuts = ([0, *sorted(chosen), len(costs)] for chosen in combinations([*places] * count, count - 1))
    return min(max(sum(costs[a:b]) for a, b in pairwise(cut)) for cut in cuts)


@pytest.mark.parametrize("seed", range(30))
def test_no_other_split_has_a_cheaper_most_expensive_part(seed):
    rng = random.Random(seed)
    costs = [rng.choice([1, 2, 50, rng.randint(1, 100)]) for _ in range(rng.randint(1, 7))]
    for count in (1, 2, 3):
        assert max(costs_of(split(range(len(costs)), costs, count), costs)) == best_by_trying(costs, count)


@pytest.mark.parametrize("seed", range(100))
def test_each_item_is_in_one_part_and_the_order_stays(seed):
    rng = random.Random(seed)
    costs = [rng.randint(1, 100) for _ in range(rng.randint(0, 40))]
    count = rng.randint(1, 12)
    parts = split(range(len(costs)), costs, count)
    assert len(parts) == count
    assert [item for part in parts for item in part] == list(range(len(costs)))
    assert all(parts) or len(costs) < count


def test_parts_are_near_their_share_where_one_item_is_longer():
    assert split("abcdefg", [10, 1, 1, 1, 1, 1, 1], 3) == [["a"], ["b", "c", "d"], ["e", "f", "g"]]
    assert split("abcdefg", [1, 1, 1, 1, 1, 1, 10], 3)[-1] == ["g"]


def test_too_many_parts_are_empty_at_the_end():
    assert split("ab", [1, 5], 4) == [["a"], ["b"], [], []]


def test_pipelines_of_the_suite_are_torn_apart_once_between_shards():
    cases = read_suite().cases
    parts = split(cases, milliseconds_of(cases, {}), 5)
    shards_with = [{case.model.name for case in part} for part in parts]
    assert sum(map(len, shards_with)) <= len(set().union(*shards_with)) + len(parts) - 1


def test_known_durations_count_and_the_others_are_in_proportion():
    cases = [case(steps) for steps in (10, 20, 40)]
    known = {one.id: 3.0 * effort(one) for one in cases[:2]}
    assert milliseconds_of(cases, known) == [round(3000 * effort(one)) for one in cases]
    assert milliseconds_of(cases, {cases[0].id: 0.0, cases[1].id: 2.0})[0] == 1


def test_the_split_follows_known_durations():
    cases = [case(steps) for steps in (10, 11, 12, 13)]
    seconds = {one.id: 1.0 for one in cases} | {cases[3].id: 100.0}
    assert [len(part) for part in split(cases, milliseconds_of(cases, seconds), 2)] == [3, 1]
    assert [len(part) for part in split(cases, milliseconds_of(cases, {}), 2)] == [2, 2]


@pytest.mark.parametrize(
    "more",
    [
        {"steps": 11},
        {"images": 2},
        {"size": 128},
        {"scheduler": "heun"},
    ],
)
def test_what_takes_longer_is_expected_to(more):
    assert effort(case(**more)) > effort(case())
    assert effort(case(guidance=1.0)) < effort(case())
