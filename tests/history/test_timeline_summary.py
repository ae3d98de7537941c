"""A timeline in words."""

from pathlib import Path

from bench.history import (
    timeline_outcome,
)
from bench.history.neighbours import Neighbours
from bench.history.timeline_summary import happened_lines
from bench.report.from_timeline import story_of_timeline
from bench.upgrade.workers import WorkerBroken
from tests.history.helpers import LIMITS, pictures


def test_the_summary_says_what_happened_where(survey):
    _, folder = survey("--with", "easel==1.0")
    text = (folder / "summary.md").read_text()
    assert "in 6 releases" in text
    assert "easel==1.0" in text
    assert "- 1.2.0: not imported: ImportError: no brush" in text
    assert "in 1.10.0 |" in text
    assert "21 UNet calls instead of 20" in text


def test_many_cases_are_counted_and_warnings_are_said_once():
    rows = [f"emoji-sd/case-{number}" for number in range(6)]
    neighbours = Neighbours(dict.fromkeys(rows, LIMITS))
    columns = []
    for release, result in (("1.0", pictures()), ("2.0", pictures(notices=["careful"], copied=6000))):
        results = dict.fromkeys(rows, result)
        cases = neighbours.compare(results)
        neighbours.remember(release, results)
        columns.append(timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases))
    found = timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "2.0"), cases=tuple(rows), device="cpu",
        device_name="x", releases=tuple(columns),
    )  # fmt: skip
    assert happened_lines(found) == ["2.0  less work, new warning: 6 cases"]
    story = story_of_timeline(found, Path("run"))
    assert story.remarks == (
        "2.0: 6 cases with less work: copied bytes 9,000 → 6,000 (-33.3 %) (emoji-sd/case-0)",
        "2.0: new warning in 6 cases: careful",
    )
    assert story.entries == ()


def test_the_summary_is_no_markup_of_the_libraries(survey, script):
    script.releases["1.2.0"] = WorkerBroken("Error: <b>a|b</b>", alive=True, side="paint")
    _, folder = survey()
    assert r"Error: &lt;b&gt;a\|b&lt;/b&gt;" in (folder / "summary.md").read_text()
