"""The map of a timeline: what is drawn where."""

import re

import numpy as np
import pytest
from PIL import Image, ImageColor

from bench.history import (
    timeline_map,
    timeline_outcome,
)
from bench.history.neighbours import Neighbours
from bench.history.timeline_map import (
    CELL_SHAPES,
    MARK_SHAPES,
    NO_PICTURES,
    NOT_RUN,
    draw_map,
    save_map,
    step_of_colour,
)
from bench.history.timeline_outcome import MARKS
from bench.verdicts import Verdict
from tests.history.helpers import LIMITS, pictures, raising


def layers(spec):
    """The layers of a chart by name, to which Altair adds the number of the layer they are in."""
    if "layer" not in spec:
        return {re.sub(r"_\d+$", "", spec["name"]): spec}
    return {name: one for part in spec["layer"] for name, one in layers(part).items()}


def drawn(chart, name):
    """What a layer shows."""
    return layers(chart.to_dict())[name]["data"]["values"]


def axis(chart, channel):
    """The names along an axis, the same for all layers."""
    (names,) = {tuple(one["encoding"][channel]["scale"]["domain"]) for one in layers(chart.to_dict()).values()}
    return list(names)


@pytest.fixture
def everything():
    """A timeline in which each mark occurs once, each in its own row."""
    rows = [f"emoji-sd/case-{number}" for number in range(len(MARKS))]
    befores = [pictures()] * len(MARKS)
    afters = {
        "raises now": raising(),
        "broken": pictures(count=1),
        "raises something else": raising("TypeError: else"),
        "works now": pictures(),
        "changed": pictures(noise=250),
        "other number of UNet calls": pictures(calls=9),
        "new warning": pictures(warnings=["careful"]),
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
    chart = draw_map(everything)
    assert set(MARK_SHAPES) == set(MARKS)
    assert len({mark.shape for mark in MARK_SHAPES.values()}) == len(MARKS)
    for row, kind in enumerate(MARKS):
        (mark,) = drawn(chart, kind)
        assert (mark["release"], mark["case"]) == ("2.0", everything.cases[row]), kind
        shape = layers(chart.to_dict())[kind]["encoding"]["shape"]
        shapes = dict(zip(shape["scale"]["domain"], shape["scale"]["range"], strict=True))
        assert shapes[mark["kind"]] == MARK_SHAPES[kind].shape
        assert shape["legend"]
    assert {kind for kind in MARKS if kind != "changed"} <= set(shapes)
    assert "changed beyond the limits" in shapes


def test_what_did_not_run_is_a_column_and_what_moved_a_number(everything):
    chart = draw_map(everything)
    assert axis(chart, "x") == ["1.0", "1.5", "2.0"]
    assert axis(chart, "y") == list(everything.cases)
    blocked = [(one["release"], one["case"]) for one in drawn(chart, "cells") if one["cell"] == NOT_RUN]
    assert blocked == [("1.5", case) for case in everything.cases]
    assert [kind for kind, path in CELL_SHAPES.items() if "L" in path] == [NO_PICTURES, NOT_RUN]
    assert len(set(CELL_SHAPES.values())) == len(CELL_SHAPES)
    (status,) = drawn(chart, "statuses")
    assert (status["release"], status["status"]) == ("1.5", "not imported")
    changed = everything.releases[2].cases[MARKS.index("changed")]
    (moved,) = drawn(chart, "moved")
    assert (moved["case"], moved["largest"]) == (changed.case, str(changed.max_diff))
    assert drawn(chart, "numbers") == [moved]


def test_each_cell_is_filled_once(everything):
    chart = draw_map(everything)
    cells = [(one["release"], one["case"]) for name in ("moved", "cells") for one in drawn(chart, name)]
    assert sorted(cells) == sorted((release, case) for release in ("1.0", "1.5", "2.0") for case in everything.cases)


def test_the_scale_separates_a_ten_thousandth_from_nothing(everything):
    changed = everything.releases[2].cases[MARKS.index("changed")]
    scores = (0.9999999, 0.99995, 0.9995, 0.995, 0.95, 0.2)
    cases = [changed.model_copy(update={"ssim_worst_tile": score, "max_diff": 1}) for score in scores]
    release = everything.releases[2]
    cases = [one.model_copy(update={"case": row}) for one, row in zip(cases, everything.cases, strict=False)]
    found = everything.model_copy(update={"releases": (release.model_copy(update={"cases": tuple(cases)}),)})
    chart = draw_map(found)
    scale = layers(chart.to_dict())["moved"]["encoding"]["color"]["scale"]
    colour_of = dict(zip(scale["domain"], scale["range"], strict=True))
    colours = [colour_of[one["ssim"]] for one in drawn(chart, "moved")]
    assert len(set(colours)) == len(scores)
    brightness = [np.dot(ImageColor.getrgb(colour), (0.3, 0.59, 0.11)) for colour in colours]
    assert brightness == sorted(brightness, reverse=True)
    assert [one["dark"] for one in drawn(chart, "numbers")] == [one < 130 for one in brightness]


@pytest.mark.parametrize(("score", "step"), [(1.0, 0), (0.9999901, 0), (0.99998, 1), (0.91, 4), (0.89, 5), (-0.5, 5)])
def test_a_step_of_colour_is_a_factor_of_ten(everything, score, step):
    changed = everything.releases[2].cases[MARKS.index("changed")]
    assert step_of_colour(changed.model_copy(update={"ssim_worst_tile": score})) == step
    assert step_of_colour(changed.model_copy(update={"ssim_worst_tile": score, "max_diff": 0})) is None


def test_of_very_many_cases_those_that_never_moved_are_not_drawn(everything, monkeypatch):
    whole = everything.model_copy(update={"cases": (*everything.cases, "emoji-sd/quiet")})
    assert axis(draw_map(whole), "y") == list(whole.cases)
    monkeypatch.setattr(timeline_map, "MOST_ROWS", 3)
    chart = draw_map(whole)
    assert axis(chart, "y") == list(everything.cases)
    assert chart.to_dict()["title"]["subtitle"] == ["not shown: 1 unchanged cases"]
    quiet = whole.model_copy(update={"releases": whole.releases[:1]})
    assert timeline_map.shown_cases(quiet) == whole.cases[:3]


def test_a_map_of_one_column_and_one_of_many_are_drawn(everything, tmp_path):
    save_map(everything.model_copy(update={"releases": everything.releases[:1]}), tmp_path / "one.png")
    many = tuple(everything.releases[2].model_copy(update={"release": f"1.{number}.0"}) for number in range(40))
    save_map(everything.model_copy(update={"releases": many}), tmp_path / "many.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "many.png") as more:
        assert more.width > 2 * one.width


def test_marks_colours_and_hatching_are_in_the_picture(everything, tmp_path):
    save_map(everything, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20)}
    wanted = {
        MARK_SHAPES[Verdict.RAISES_NOW].colour,
        MARK_SHAPES[Verdict.CHANGED].colour,
        timeline_map.IDENTICAL_COLOUR,
    }
    wanted |= set(timeline_map.COLOURS)  # in the legend at least
    assert {ImageColor.getrgb(colour) for colour in wanted} <= colours


def test_long_names_of_releases_are_slanted(everything):
    long = everything.releases[2].model_copy(update={"release": "2.0.0.post1"})
    for releases, angle in ((everything.releases, 0), ((*everything.releases, long), -35)):
        chart = draw_map(everything.model_copy(update={"releases": releases}))
        assert layers(chart.to_dict())["moved"]["encoding"]["x"]["axis"]["labelAngle"] == angle
