"""The lines and the table that an upgrade check prints."""

from __future__ import annotations

from bench.upgrade.tables import component_lines, notes, pictures_line, speed_line
from tests.upgrade.made_up import case, check, figure, work
from tests.upgrade.test_outcome import component

CASE = "m/ddim-s5"


def test_an_undecided_speed_says_what_it_would_take():
    undecided = figure("cannot tell", 1.02).model_copy(update={"more_pairs": 7})
    found = check([case(CASE, speed=undecided)] * 9)
    assert found.counts()["speed"]["cannot tell"] == 9
    line = "m/ddim-s5: the speed is undecided; it would take about 7 more starts of both sides (--budget)"
    assert notes(found) == [*[line] * 4, "and 5 more cases: undecided"]


def test_new_warnings_are_shown_once():
    found = check([case(CASE).model_copy(update={"new_warnings": ("FutureWarning: gone soon",)})] * 2)
    assert sum("FutureWarning: gone soon" in line for line in notes(found)) == 1


def test_what_is_not_steady_or_decided_by_its_own_calls_is_said():
    lines = notes(check([case(CASE, unsteady=("the baseline's pictures differ",), odd_parts=("rest",))]))
    assert lines == [
        "m/ddim-s5: the baseline's pictures differ",
        "m/ddim-s5: measured alone: rest (changed in another way than in other cases)",
    ]


def test_changed_components_lead_and_the_others_are_counted():
    found = check([case(CASE)], components=(component("same", 1.0), component(), component("cannot tell", 1.1)))
    assert component_lines(found) == [
        "decoder of m in float32: 1.42 ×, which makes its calls 3.0 to 9.0 % slower",
        "other components: 1 same, 1 cannot tell",
    ]
    assert component_lines(check([case(CASE)])) == []
    assert component_lines(check([case(CASE)], components=(component("same", 1.0),))) == ["components: 1 same"]


def test_a_line_for_each_question_of_a_case():
    assert pictures_line(case(CASE, work=work("more work: +1"))) == "m/ddim-s5  identical  more work  1 s"
    assert speed_line(case(CASE, speed=figure("slower", 1.1))) == "m/ddim-s5  speed slower +10.0 % (+9.0 … +11.0 %)"
    assert speed_line(case(CASE)) == "m/ddim-s5  speed not compared"
