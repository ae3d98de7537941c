"""The settings that describe a group of cases: examples to read, and properties that hold for random cases."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from bench.suite.cover import ANY, MOST_VALUES, Cover, Trait, facts_of, smallest_cover

SCHEDULERS = ("ddim", "ddpm", "euler", "lcm", "dpmpp-singlestep", "dpmpp-3m-sde")
ROUNDS = 150


def settings(scheduler: str = "ddim", steps: int = 5, **more: Any) -> dict[str, Any]:
    usual = {"model": "emoji-sd", "guidance": 7.5, "dtype": "float32", "seed": 0, "images": 1, "optimizations": []}
    return {**usual, "scheduler": scheduler, "steps": steps, **more}


def grid(*schedulers: str, steps: tuple[int, ...] = (1, 2, 5), **more: Any) -> list[dict[str, Any]]:
    return [settings(scheduler, number, **more) for scheduler in schedulers for number in steps]


def test_one_value_of_one_setting():
    cover = smallest_cover(grid("dpmpp-singlestep"), grid("ddim", "ddpm"))
    assert cover.is_exact
    assert cover.sentence("raise") == "all 3 cases with scheduler dpmpp-singlestep raise; no other case does"


def test_several_values_of_one_setting():
    cover = smallest_cover(grid("dpmpp-singlestep", "dpmpp-3m-sde"), grid("ddim", "ddpm"))
    assert cover.subject == "all 6 cases with scheduler dpmpp-3m-sde or dpmpp-singlestep"


def test_two_settings():
    sharp = grid("ddim", dtype="bfloat16")
    cover = smallest_cover(sharp, [*grid("ddpm", dtype="bfloat16"), *grid("ddim")])
    assert cover.subject == "all 3 cases with scheduler ddim and dtype bfloat16"


def test_one_value_of_a_setting_and_several_of_another():
    rough = grid("ddim", "euler", "lcm", steps=(1, 2), dtype="bfloat16")
    rest = [*grid("ddpm", "dpmpp-3m-sde", dtype="bfloat16"), *grid("ddim", "euler", "lcm")]
    assert smallest_cover(rough, rest).subject == "all 6 cases with scheduler ddim, euler or lcm and dtype bfloat16"


def test_numbers_of_steps_and_images_are_in_order_of_size():
    cover = smallest_cover(grid(*SCHEDULERS, steps=(10, 2)), grid(*SCHEDULERS, steps=(5, 7)))
    assert cover.subject == "all 12 cases with 2 or 10 steps"
    assert smallest_cover(grid("ddim", "lcm", steps=(1,)), grid("ddim")[1:]).subject == "both cases with 1 step"


def test_an_option_by_its_value_and_an_option_that_is_given_at_all():
    trailing = grid("ddim", options={"timestep_spacing": "trailing"})
    linspace = grid("ddim", options={"timestep_spacing": "linspace"})
    cover = smallest_cover(trailing, [*linspace, *grid("ddim")])
    assert cover.subject == "all 3 cases with option timestep_spacing=trailing"
    assert smallest_cover([*trailing, *linspace], grid("ddim")).subject == "all 6 cases with option timestep_spacing"


def test_arguments_of_the_call_optimizations_and_truth_values():
    given = grid("ddim", call={"eta": 0.3})
    assert smallest_cover(given, grid("ddim")).subject == "all 3 cases with argument eta=0.3"
    fused = grid("ddim", optimizations=["fused-qkv", "channels-last"])
    rest = grid("ddim", optimizations=["channels-last"])
    assert smallest_cover(fused, rest).subject == "all 3 cases with optimization fused-qkv"
    karras = grid("ddim", options={"use_karras_sigmas": True})
    assert smallest_cover(karras, grid("ddim")).subject == "all 3 cases with option use_karras_sigmas=true"


def test_what_a_case_leaves_as_usual_is_a_value_too():
    rest = grid("ddim", task="inpainting", scenario="plain")
    assert smallest_cover(grid("ddim"), rest).subject == "all 3 cases with task text-to-image"


def test_a_description_that_others_fit_too_says_so():
    cover = smallest_cover(
        [settings("lcm", n) for n in range(2, 15)], [settings("lcm", 1), settings("lcm", 20), settings()]
    )
    assert cover.sentence("raise") == "13 of the 15 cases with scheduler lcm raise; no other case does"
    assert not cover.is_exact


def test_a_description_that_leaves_cases_out_says_so():
    many, odd = [settings("lcm", n) for n in range(1, 11)], [settings("ddim", 3), settings("euler", 4)]
    rest = [settings(scheduler, n) for scheduler in ("ddim", "euler", "ddpm") for n in range(5, 9)]
    cover = smallest_cover([*many, *odd], rest)
    assert cover.sentence("raise") == "all 10 cases with scheduler lcm, and 2 others, raise"


def test_cases_with_nothing_in_common_are_counted():
    group = [settings("ddim", 1), settings("lcm", 2, dtype="bfloat16"), settings("euler", 3, size=96)]
    rest = [
        settings(scheduler, n, **more) for scheduler in SCHEDULERS for n in (1, 2, 3) for more in ({}, {"size": 96})
    ]
    cover = smallest_cover(group, [*rest, *(one | {"dtype": "bfloat16"} for one in rest)])
    assert cover.sentence("raise") == "3 of 75 cases raise"


def test_all_cases():
    assert smallest_cover(grid("ddim"), []).sentence("raise") == "all 3 cases raise"
    assert smallest_cover(grid("ddim")[:2], []).sentence("raise") == "both cases raise"


def test_a_case_alone():
    assert smallest_cover([settings("ddim")], [settings("lcm")]).subject == "the only case with scheduler ddim"


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="empty group"):
        smallest_cover([], grid("ddim"))


def test_the_earlier_of_two_equally_simple_settings_is_named():
    group = grid("lcm", task="inpainting", sentinel="images")
    assert smallest_cover(group, grid("ddim", sentinel="schedulers")).traits == (Trait("scheduler", ("lcm",)),)


def random_case(rng: random.Random) -> dict[str, Any]:
    options = rng.choice([{}, {}, {"solver_order": 1}, {"solver_order": 3}, {"timestep_spacing": "trailing"}])
    return settings(
        rng.choice(SCHEDULERS),
        rng.choice((1, 2, 5, 7)),
        dtype=rng.choice(("float32", "bfloat16")),
        options=options,
        optimizations=rng.sample(["fused-qkv", "channels-last"], rng.randrange(3)),
    )


def has(case: dict[str, Any], trait: Trait) -> bool:
    facts = set(facts_of(case))
    if trait.values == (ANY,):
        return any(name == trait.setting for name, _ in facts)
    return any((trait.setting, value) in facts for value in trait.values)


def fits(case: dict[str, Any], cover: Cover) -> bool:
    return all(has(case, trait) for trait in cover.traits)


def words(cover: Cover) -> int:
    return sum(len(trait.values) for trait in cover.traits) + (len(cover.traits) == 2)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_a_description_says_is_true(seed):
    rng = random.Random(seed)
    cases = [random_case(rng) for _ in range(rng.randrange(2, 40))]
    size = rng.randrange(1, len(cases))
    group, rest = cases[:size], cases[size:]
    cover = smallest_cover(group, rest)
    assert (cover.size, cover.total) == (len(group), len(cases))
    assert cover.covered == sum(fits(case, cover) for case in group)
    assert cover.described == sum(fits(case, cover) for case in cases)
    assert len(cover.traits) <= 2
    assert all(len(trait.values) <= MOST_VALUES for trait in cover.traits)
    if cover.is_exact and cover.traits:
        assert all(fits(case, cover) for case in group)
        assert not any(fits(case, cover) for case in rest)
    elif cover.traits:
        assert 2 * cover.covered > max(cover.size, cover.described)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_cause_is_found(seed):
    """Where one or two settings decide, a description that is no longer than these is exact."""
    rng = random.Random(seed)
    cases = [random_case(rng) for _ in range(60)]
    facts = sorted(set(facts_of(rng.choice(cases))))
    cause = rng.sample(facts, rng.choice((1, 2)))
    group = [case for case in cases if set(cause) <= set(facts_of(case))]
    rest = [case for case in cases if case not in group]
    cover = smallest_cover(group, rest)
    assert cover.is_exact
    if rest:
        assert words(cover) <= (1 if len(cause) == 1 else 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_cases_does_not_matter(seed):
    rng = random.Random(seed)
    cases = [random_case(rng) for _ in range(30)]
    group, rest = cases[:8], cases[8:]
    before = smallest_cover(group, rest)
    rng.shuffle(group)
    rng.shuffle(rest)
    assert smallest_cover(group, rest) == before


def test_hundreds_of_cases_with_many_options_take_little_time():
    rng = random.Random(1)
    cases = [random_case(rng) | {"options": {f"option{rng.randrange(40)}": rng.randrange(4)}} for _ in range(600)]
    before = time.perf_counter()
    smallest_cover(cases[:50], cases[50:])
    assert time.perf_counter() - before < 5
