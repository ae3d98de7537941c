"""Findings become groups, each with one sentence."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bench.calls.work import Work
from bench.calls.work_verdict import compare_work
from bench.record.groups import (
    ERRORS,
    PICTURES,
    WORK,
    Finding,
    changed_counts,
    group_lines,
    groups_of,
    leading,
    representative,
    sentence_by_case,
    shared_text,
)
from bench.verdicts import Verdict

ERROR = "ValueError: step must be greater than zero"


def finding(
    scheduler: str, number: int, verdict: Verdict | None = None, question: str = ERRORS, **more: Any
) -> Finding:
    settings = {"scheduler": scheduler, "steps": number, "dtype": "float32"}
    return Finding(f"emoji-sd/{scheduler}-s{number}", settings, question, verdict, **more)


def raising(scheduler: str, number: int, what: str = ERROR, verdict: Verdict = Verdict.RAISES_NOW) -> Finding:
    return finding(scheduler, number, verdict, what=what, message=f"{verdict}: {what}")


PASSING = [finding(scheduler, number) for scheduler in ("ddim", "lcm") for number in range(20)]


def test_the_same_new_error_is_one_group_whatever_the_cases_did_before():
    found = [raising("dpmpp-singlestep", number) for number in range(12)]
    found.append(raising("dpmpp-singlestep", 12, verdict=Verdict.RAISES_ELSE))
    (group,) = groups_of([*PASSING, *found])
    assert group.sentence == (
        'all 13 cases with scheduler dpmpp-singlestep raise "ValueError: step must be greater than zero"; '
        "no other case does"
    )
    assert group.verdicts == {"raises now": 12, "raises something else": 1}
    assert group.cases == tuple(one.case for one in found)


def test_numbers_are_left_out_only_where_they_differ():
    found = [raising("euler", number, f"KeyError: step {number} of 50 at 0x7f{number}a") for number in (3, 4)]
    (group,) = groups_of([*PASSING, *found])
    assert 'raise "KeyError: step … of 50 at …"' in group.sentence
    assert shared_text(["at most 3 of 5", "at most 4 of 5", "at most 3 of 5"]) == "at most … of 5"
    assert shared_text(["at most 3"] * 2) == "at most 3"
    assert shared_text(["1e-3 1.5", "2e-3 2.5"]) == "… …"
    assert len(groups_of([raising("euler", 1, "at … of 5"), raising("euler", 2, "at 3 of 5"), *PASSING])) == 2


def test_other_errors_are_other_groups_and_the_larger_one_comes_first():
    found = [raising("euler", 1, "TypeError: no"), *(raising("deis", number) for number in (1, 2))]
    assert [group.cases for group in groups_of([*found, *PASSING])] == [
        ("emoji-sd/deis-s1", "emoji-sd/deis-s2"),
        ("emoji-sd/euler-s1",),
    ]


def test_wrong_pictures_come_before_costs():
    slower = [finding("lcm", n, Verdict.SLOWER, "speed", ratio=1 + n / 100) for n in (4, 8, 12)]
    changed = [finding("ddim", n, Verdict.CHANGED, PICTURES) for n in (1, 2)]
    timed, pictured = ([finding("euler", n, None, question) for n in range(9)] for question in ("speed", PICTURES))
    first, second = groups_of([*slower, *timed, *changed, *pictured])
    assert first.sentence == "both cases with scheduler ddim give changed pictures; no other case does"
    assert second.sentence == "all 3 cases with scheduler lcm take longer (+4.0 % to +12.0 %); no other case does"


def test_cases_that_fail_in_two_ways_are_one_group():
    both = [
        finding("lcm", n, verdict, question, what=what)
        for n in (1, 2)
        for verdict, question, what in ((Verdict.CHANGED, PICTURES, ""), (Verdict.MORE_WORK, WORK, "value reads"))
    ]
    passing = [finding("ddim", n, None, question) for n in (1, 2) for question in (PICTURES, WORK)]
    (group,) = groups_of([*both, *passing])
    assert group.sentence == (
        "both cases with scheduler lcm give changed pictures and do more work (value reads); no other case does"
    )
    assert group.questions == (PICTURES, WORK)


def test_a_case_that_was_not_asked_does_not_count_as_passing():
    slower = [finding("lcm", n, Verdict.SLOWER, "speed", ratio=1.1) for n in (1, 2)]
    (group,) = groups_of([*slower, *PASSING])
    assert group.sentence == "both cases take longer (+10.0 %)"


def test_one_case_alone_has_its_own_sentence_and_leads_nothing():
    groups = groups_of([raising("euler", 1), *PASSING])
    assert [group.sentence for group in groups] == [f"emoji-sd/euler-s1: raises now: {ERROR}"]
    assert leading(groups) == ()
    assert sentence_by_case(groups) == {}


def test_each_case_knows_the_sentences_of_its_groups():
    groups = groups_of([*(raising("deis", number) for number in (1, 2)), *PASSING])
    assert leading(groups) == groups
    assert sentence_by_case(groups) == dict.fromkeys(groups[0].cases, groups[0].sentence)


def test_nothing_wrong_is_no_group():
    assert groups_of(PASSING) == ()


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict.fails or verdict.is_worse])
def test_each_bad_verdict_has_its_own_predicate(verdict):
    found = [finding("lcm", n, verdict, PICTURES, what="what") for n in (1, 2)]
    (group,) = groups_of([*found, finding("ddim", 1, None, PICTURES)])
    assert "verdict" not in group.sentence


def test_counts_that_grew_are_read_from_the_sentence_on_the_work():
    def work(**counts: Any) -> Work:
        usual = {"operators": {"aten::add": 1000}, "copies": 0, "copied_bytes": 8000, "unet_calls": 5, "tokens": 2}
        return Work.from_json({"host_syncs": {}, "peak_bytes": 100, "flops": 100, **usual, **counts})

    found = compare_work(work(operators={"aten::add": 2000}, copied_bytes=9000, tokens=1), work())
    assert found.verdict == Verdict.MORE_WORK
    assert changed_counts(found.message, found.verdict) == "copied bytes, operators"
    less = compare_work(work(copied_bytes=2000), work())
    assert changed_counts(less.message, less.verdict) == "copied bytes"


@pytest.mark.parametrize("seed", range(40))
def test_each_failing_case_is_in_a_group_and_no_passing_one(seed):
    rng = random.Random(seed)
    verdicts = (None, None, Verdict.RAISES_NOW, Verdict.CHANGED)
    found = [
        finding(rng.choice(("ddim", "lcm")), n, rng.choice(verdicts), what=rng.choice(("a 1", "a 2", "b")))
        for n in range(rng.randrange(1, 30))
    ]
    grouped = [case for group in groups_of(found) for case in group.cases]
    assert sorted(grouped) == sorted(one.case for one in found if one.verdict)


def test_lines_name_the_first_groups_and_count_the_rest():
    found = [raising(f"scheduler{n}", number, f"{name}Error: no") for n, name in enumerate("ABC") for number in (1, 2)]
    groups = groups_of([*found, *PASSING])
    noted = (groups[0].model_copy(update={"notes": ("it starts in step 1",)}), *groups[1:])
    lines = group_lines(noted, most=1)
    assert lines == [f"{groups[0].sentence}.", "  it starts in step 1", "and 2 more groups (in the report)"]
    assert len(group_lines(groups)) == 3
    assert group_lines(groups_of([raising("euler", 1), *PASSING])) == []


def test_the_representative_is_an_ordinary_quick_case_with_several_steps():
    steps = {"a": 1, "b": 2, "c": 50, "d": 5, "e": 4}
    cases: dict[str, dict[str, Any]] = {name: {"steps": number, "images": 2} for name, number in steps.items()}
    cases["e"]["task"] = "inpainting"
    assert representative(cases.items()) == "d"
    assert representative([("a", cases["a"]), ("e", cases["e"])]) == "a"
