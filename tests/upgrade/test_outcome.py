"""What an upgrade check found: what is a problem, what is said about it, and the file that keeps it."""

from __future__ import annotations

import json

import pytest

from bench.upgrade import outcome
from bench.upgrade.outcome import ComponentFound, read_upgrade
from tests.upgrade import made_up
from tests.upgrade.made_up import case, check, figure

CASE = "m/ddim-s5"


def component(
    verdict: str = "slower", ratio: float = 1.42, effect: tuple[float, float] = (0.03, 0.09)
) -> ComponentFound:
    return ComponentFound(
        name="decoder of m in float32",
        part="decoder",
        pipeline="m in float32",
        shape=(4, 4),
        figure=figure(verdict, ratio),
        share=(0.07, 0.21),
        effect=effect,
        cases=("m/ddim-s5", "m/ddim-s6"),
    )


@pytest.mark.parametrize(
    "verdict", ["changed", "broken", "raises now", "raises something else", "nothing compared", "not repeatable"]
)
def test_worse_pictures_are_a_problem(verdict):
    assert len(case(CASE, verdict).problems) == 1


@pytest.mark.parametrize("verdict", ["identical", "within limits", "works now", "raises as before"])
def test_sound_pictures_are_none(verdict):
    assert case(CASE, verdict).problems == ()


@pytest.mark.parametrize(
    ("question", "verdict", "worse"),
    [
        ("speed", "slower", True),
        ("speed", "faster", False),
        ("speed", "same", False),
        ("speed", "cannot tell", False),
        ("load", "slower", True),
        ("first_call", "slower", True),
        ("memory", "more", True),
        ("memory", "less", False),
    ],
)
def test_only_what_is_worse_is_a_problem(question, verdict, worse):
    found = case(CASE).model_copy(update={question: figure(verdict, 1.05)})
    assert bool(found.problems) is worse


def test_a_speed_that_could_not_be_compared_is_a_problem():
    (problem,) = case(CASE, speed_reason="the baseline failed while it was measured: killed").problems
    assert problem == "speed: not compared: the baseline failed while it was measured: killed"


def test_a_slower_component_is_named_with_what_it_does_to_calls():
    assert component().sentence == "decoder of m in float32: 1.42 ×, which makes its calls 3.0 to 9.0 % slower"
    faster = component("faster", 0.5, (-0.04, -0.04))
    assert faster.sentence == "decoder of m in float32: 0.50 ×, which makes its calls 4.0 % faster"


def test_the_slowest_component_comes_first_among_the_problems():
    small = component(effect=(0.001, 0.002)).model_copy(update={"name": "encoder of m in float32"})
    found = check([case(CASE)], components=(small, component(), component("same", 1.0)))
    assert [one.name for one in found.slower_components] == ["decoder of m in float32", "encoder of m in float32"]
    assert len(found.problems["components"]) == 2
    assert found.counts()["components"] == {"slower": 2, "same": 1}


def test_the_schema_beside_the_code_is_the_models():
    assert outcome.SCHEMA_FILE.read_text() == outcome.schema()


def test_the_file_reads_back_as_it_was_written(tmp_path):
    found = made_up.check(
        [case(CASE, speed=figure("slower", 1.1)), case("m/ddim-s6", "changed")], components=(component(),)
    )
    outcome.write_upgrade(tmp_path / "upgrade.json", found)
    assert read_upgrade(tmp_path / "upgrade.json") == found
    assert json.loads((tmp_path / "upgrade.json").read_text())["schema"] == 1


def test_a_file_of_before_the_components_can_still_be_read(tmp_path):
    old = json.loads(check([case(CASE, speed=figure())]).model_dump_json(by_alias=True))
    for key in ("components", "groups", "error_rate", "questions", "min_component_change"):
        del old[key]
    for key in ("odd_parts", "unsteady", "checksums", "speed_reason"):
        del old["cases"][0][key]
    old["cases"][0]["new_notices"] = old["cases"][0].pop("new_warnings")
    (tmp_path / "upgrade.json").write_text(json.dumps(old))
    assert read_upgrade(tmp_path / "upgrade.json").components == ()
