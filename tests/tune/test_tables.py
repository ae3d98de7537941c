"""A study in the terminal."""

from __future__ import annotations

from typing import Any

from bench.tune.finals import ranked
from bench.tune.outcome import PickFound, TuneFound
from bench.tune.tables import MOST_REASONS, front_table, left_out_lines, pick_lines
from tests.tune.made_up import made_up_result, made_up_space

SPACE = made_up_space()
FRONT = ("m/euler-s8-g5-bf16", "m/euler-s12-g5-fp32")


def found(**changes: Any) -> TuneFound:
    """A study that tried everything, with two settings on its front."""
    tried = tuple(made_up_result(case) for case in SPACE.cases.values())
    seconds = {one.case: one.seconds for one in tried}
    values: dict[str, Any] = {
        "schema": 1,
        "study": "one",
        "model": SPACE.model.model_dump(mode="json"),
        "suite": "suite.toml",
        "device": "cpu",
        "device_name": "a processor",
        "environment": {},
        "settings": len(tried),
        "left_out": {},
        "reference": SPACE.reference.id,
        "start": SPACE.start.id,
        "quality": "mean SSIM",
        "min_quality": 0.0,
        "tried": tried,
        "failed": {"m/heun-s4-g5-fp32": "RuntimeError: no"},
        "front": tuple(ranked({name: [seconds[name], 1.01 * seconds[name]] for name in FRONT})),
        "picks": (PickFound(name="balanced", case=FRONT[0], reason="more costs most"),),
        "seconds": 12.0,
        "is_exhaustive": True,
    }
    return TuneFound(**(values | changes))


def test_the_front_has_a_row_for_each_setting_and_how_many_times_it_is_faster():
    lines = front_table(found(), colour=False).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["euler-s8-g5-bf16", "euler-s12-g5-fp32"]
    start = made_up_result(SPACE.start).seconds
    assert f"{start / found().front[0].seconds:.1f}" in lines[1].split()
    assert "memory" not in lines[0]


def test_a_tie_is_marked_and_explained():
    tie = ranked({FRONT[0]: [0.06, 0.08, 0.07], FRONT[1]: [0.08, 0.06, 0.0701]})
    shown = front_table(found(front=tuple(tie)), colour=False)
    assert f"{tie[0].case.partition('/')[2]} =" in shown
    assert shown.splitlines()[-1].startswith("=: ")
    assert "=" not in front_table(found(), colour=False)


def test_memory_is_shown_where_it_is_known():
    tried = tuple(one.model_copy(update={"peak_bytes": 3 * 2**20}) for one in found().tried)
    assert "3 MiB" in front_table(found(tried=tried), colour=False)


def test_a_pick_is_one_line_with_its_reason():
    first, last = pick_lines(found())
    assert first.startswith("balanced: m/euler-s8-g5-bf16: ")
    assert first.endswith("(more costs most)")
    assert last == f"{len(SPACE.cases)} of {len(SPACE.cases)} settings tried, 1 cannot be used, 12 s"


def test_a_longest_time_that_none_keeps_is_said():
    first = pick_lines(found(picks=(), max_seconds=0.001))[0]
    assert first == "no setting of the front takes at most 0.001 s per picture"


def test_many_reasons_are_counted():
    lines = left_out_lines({f"reason {number}": number for number in range(1, MOST_REASONS + 3)})
    assert lines[0] == f"left out: {MOST_REASONS + 2} combinations: reason {MOST_REASONS + 2}"
    assert lines[-1] == "left out: 3 combinations for other reasons"
    assert left_out_lines({}) == []
