"""The map of a timeline: what is drawn where."""

import math

import pytest
from PIL import Image

from bench.history import (
    timeline_map,
    timeline_outcome,
)
from bench.history.neighbours import Neighbours
from bench.history.timeline_map import MARK_SHAPES, NOT_RUN, draw_map, save_map
from bench.history.timeline_outcome import MARKS
from tests.history.helpers import LIMITS, pictures, raising


def drawn(figure, gid):
    return [one for axes in figure.axes for one in axes.collections if one.get_gid() == gid]


@pytest.fixture
def everything():
    """A timeline in which each mark is set once, in a row of its own."""
    rows = [f"emoji-sd/case-{number}" for number in range(len(MARKS))]
    befores = [pictures()] * len(MARKS)
    afters = {
        "raises now": raising(),
        "broken": pictures(count=1),
        "raises something else": raising("TypeError: else"),
        "works now": pictures(),
        "changed": pictures(noise=250),
        "other number of UNet calls": pictures(calls=9),
        "new warning": pictures(notices=["careful"]),
        "more work": pictures(copied=12000),
        "less work": pictures(copied=6000),
    }
    befores[MARKS.index("raises something else")] = befores[MARKS.index("works now")] = raising()
    neighbours = Neighbours(dict.fromkeys(rows, LIMITS))
    columns = []
    for release, results in (("1.0", befores), ("2.0", [afters[mark] for mark in MARKS])):
        by_case = dict(zip(rows, results, strict=True))
        cases = neighbours.compare(by_case)
        neighbours.remember(release, by_case)
        columns.append(timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases))
    columns.insert(1, timeline_outcome.ReleaseFound(release="1.5", status="not imported", reason="x", seconds=1))
    return timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "1.5", "2.0"), cases=tuple(rows), device="cpu",
        device_name="x", releases=tuple(columns),
    )  # fmt: skip


def test_each_kind_of_mark_is_in_its_cell_with_its_own_shape(everything):
    figure = draw_map(everything)
    assert set(MARK_SHAPES) == set(MARKS)
    assert len({mark.shape for mark in MARK_SHAPES.values()}) == len(MARKS)
    for row, kind in enumerate(MARKS):
        (marks,) = drawn(figure, kind)
        ((x, y),) = marks.get_offsets()
        assert (math.floor(x), math.floor(y)) == (2, row), kind
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {kind for kind in MARKS if kind != "changed"} <= legend
    assert "changed beyond the limits" in legend


def test_what_did_not_run_is_a_column_and_what_moved_a_number(everything):
    figure = draw_map(everything)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.0", "1.5", "2.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(everything.cases)
    (blocked,) = drawn(figure, NOT_RUN)
    (path,) = blocked.get_paths()
    assert path.get_extents().bounds == (1, 0, 1, len(MARKS))
    assert blocked.get_hatch()
    texts = [text.get_text() for text in axes.texts]
    assert "not imported" in texts
    changed = everything.releases[2].cases[MARKS.index("changed")]
    assert str(changed.max_diff) in texts
    (moved,) = drawn(figure, "moved")
    assert list(moved.get_array()) == [pytest.approx(math.log10(1 - changed.ssim_worst_tile))]


def test_the_scale_tells_a_ten_thousandth_from_nothing(everything):
    changed = everything.releases[2].cases[MARKS.index("changed")]
    scores = (0.9999999, 0.99995, 0.9995, 0.995, 0.95, 0.2)
    cases = [changed.model_copy(update={"ssim_worst_tile": score, "max_diff": 1}) for score in scores]
    release = everything.releases[2]
    cases = [one.model_copy(update={"case": row}) for one, row in zip(cases, everything.cases, strict=False)]
    found = everything.model_copy(update={"releases": (release.model_copy(update={"cases": tuple(cases)}),)})
    figure = draw_map(found)
    (moved,) = drawn(figure, "moved")
    figure.canvas.draw()
    colours = [tuple(colour) for colour in moved.get_facecolors()]
    assert len(set(colours)) == len(scores)
    brightness = [0.3 * red + 0.59 * green + 0.11 * blue for red, green, blue, _ in colours]
    assert brightness == sorted(brightness, reverse=True)


def test_of_very_many_cases_those_that_never_moved_are_not_drawn(everything, monkeypatch):
    whole = everything.model_copy(update={"cases": (*everything.cases, "emoji-sd/quiet")})
    texts = [label.get_text() for label in draw_map(whole).axes[0].get_yticklabels()]
    assert texts == list(whole.cases)
    monkeypatch.setattr(timeline_map, "MOST_ROWS", 3)
    axes = draw_map(whole).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(everything.cases)
    assert axes.get_xlabel() == "not shown: 1 cases to which nothing happened"
    quiet = whole.model_copy(update={"releases": whole.releases[:1]})
    assert timeline_map.shown_cases(quiet) == whole.cases[:3]


def test_a_map_of_one_column_and_one_of_many_are_drawn(everything, tmp_path):
    save_map(everything.model_copy(update={"releases": everything.releases[:1]}), tmp_path / "one.png")
    many = tuple(everything.releases[2].model_copy(update={"release": f"1.{number}.0"}) for number in range(40))
    save_map(everything.model_copy(update={"releases": many}), tmp_path / "many.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "many.png") as more:
        assert more.width > 2 * one.width
