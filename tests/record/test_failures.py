"""Which cases of a run fail in the same way."""

from __future__ import annotations

from typing import Any

import pytest

from bench.calls.raised import RaisedError
from bench.pictures.compared import ComparedWork, Pictures
from bench.record.failures import record_groups
from bench.record.record import Record

ERROR = RaisedError(type="ValueError", message="step must be greater than zero")


def record(name: str, verdict: str = "identical", message: str = "", work: str = "", **more: Any) -> Record:
    scheduler, _, steps = name.rpartition("-s")
    golden = f"golden/emoji-sd/{name}.png"
    pictures = Pictures(
        verdict=verdict if verdict != "more work" else "identical",
        message=message.format(golden) or verdict,
        golden=golden,
    )
    return Record(
        **{
            "schema": 1,
            "case": f"emoji-sd/{name}",
            "model": "emoji-sd",
            "settings": {"scheduler": scheduler, "steps": int(steps), "images": 1},
            "device": "cpu",
            "environment": "0",
            "verdict": verdict,
            "pictures": pictures,
            "work": ComparedWork(verdict=work.partition(":")[0], message=work) if work else None,
            **more,
        }
    )


PASSING = [record(f"{scheduler}-s{steps}", work="same work") for scheduler in ("ddim", "lcm") for steps in (1, 2)]


def sentences(*found: Record) -> list[str]:
    return [group.sentence for group in record_groups([*PASSING, *found])]


def test_cases_that_raise_the_same_are_one_group():
    message = "raises now: ValueError: step must be greater than zero"
    now = [record(f"euler-s{n}", "raises now", message, error=ERROR) for n in (1, 2)]
    alone = record("euler-s5", "raises", pictures=None, error=ERROR)
    other = record("euler-s6", "raises something else", f"{message} instead of X", error=ERROR)
    assert sentences(*now, alone, other) == [
        'all 4 cases with scheduler euler raise "ValueError: step must be greater than zero"; no other case does'
    ]


@pytest.mark.parametrize(
    ("verdict", "message", "work", "predicate"),
    [
        ("changed", "differs from {}: SSIM 0.9", "", "give changed pictures"),
        ("missing", "no golden at {}", "", "lack a golden"),
        ("missing", "no golden at {}", "missing", "lack a golden"),
        ("stale", "{} is stale: seed 0 → 1", "", "have stale goldens (seed 0 → 1)"),
        ("works now", "works now; it raised X", "", "work now instead of raising an error"),
        (
            "broken",
            "{} cannot be compared: 1 image",
            "",
            'give broken pictures ("its golden cannot be compared: 1 image")',
        ),
        ("more work", "identical", "more work: operators 1 → 2", "do more work (operators)"),
        ("work missing", "", "missing", "lack accepted work"),
    ],
)
def test_each_way_to_fail_has_its_words(verdict, message, work, predicate):
    more = {"pictures": Pictures(verdict="identical", message="identical")} if verdict == "work missing" else {}
    found = [record(f"euler-s{n}", verdict, message, work, **more) for n in (1, 2)]
    assert sentences(*found) == [f"both cases with scheduler euler {predicate}; no other case does"]


def test_pictures_that_are_not_repeated_are_a_failure_of_pictures_that_pass():
    error = RaisedError(type="NotRepeatable", message="the first and the last call differ")
    passing = Pictures(verdict="identical", message="identical")
    found = [record(f"euler-s{n}", "not repeatable", pictures=passing, error=error) for n in (1, 2)]
    assert sentences(*found) == ["both cases with scheduler euler fail to repeat their pictures; no other case does"]


def test_one_failure_is_the_sentence_of_its_case():
    assert sentences(record("euler-s1", "changed", "differs from {}: SSIM 0.9")) == [
        "emoji-sd/euler-s1: changed: differs from golden/emoji-sd/euler-s1.png: SSIM 0.9"
    ]


def test_the_last_record_of_a_case_counts():
    assert record_groups([record("euler-s1", "changed"), record("euler-s1")]) == ()
