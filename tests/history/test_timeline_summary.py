"""A timeline in words."""

from pathlib import Path
from typing import Any

from bench.history import (
    timeline_outcome,
)
from bench.history.groups import release_groups
from bench.history.neighbours import Neighbours
from bench.history.timeline_summary import change_lines
from bench.report.from_timeline import story_of_timeline
from bench.report.summary import render_summary
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
    for release, result in (("1.0", pictures()), ("2.0", pictures(warnings=["careful"], copied=6000))):
        results = dict.fromkeys(rows, result)
        cases = neighbours.compare(results)
        neighbours.remember(release, results)
        columns.append(timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases))
    found = timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "2.0"), cases=tuple(rows), device="cpu",
        device_name="x", releases=tuple(columns),
    )  # fmt: skip
    assert change_lines(found) == ["2.0  less work, new warning: 6 cases"]
    story = story_of_timeline(found, Path("run"))
    assert story.notes == (
        "2.0: 6 cases with less work: copied bytes 9,000 → 6,000 (-33.3 %) (emoji-sd/case-0)",
        "2.0: new warning in 6 cases: careful",
    )
    assert story.entries == ()


def test_the_summary_is_no_markup_of_the_libraries(survey, script):
    script.releases["1.2.0"] = WorkerBroken("Error: <b>a|b</b>", alive=True, side="paint")
    _, folder = survey()
    assert r"Error: &lt;b&gt;a\|b&lt;/b&gt;" in (folder / "summary.md").read_text()


def changed_release(release: str, changed: tuple[str, ...], kept: tuple[str, ...]) -> timeline_outcome.ReleaseFound:
    def case(name: str, verdict: str) -> timeline_outcome.CaseInRelease:
        return timeline_outcome.CaseInRelease(case=name, verdict=verdict, message=verdict, compared_with="1.0")

    cases = (*(case(name, "changed") for name in changed), *(case(name, "identical") for name in kept))
    return timeline_outcome.ReleaseFound(release=release, status="ran", seconds=1, cases=cases)


def test_cases_that_change_together_lead_with_one_sentence():
    names = {f"emoji-sd/{scheduler}-s{steps}": scheduler for scheduler in ("ddim", "lcm") for steps in range(6)}
    lcm, ddim = (tuple(name for name in names if names[name] == one) for one in ("lcm", "ddim"))
    found = timeline_outcome.TimelineFound(
        library="paint", span="1.0..3.0", alongside="", planned=("1.0", "2.0", "3.0"), cases=tuple(names),
        device="cpu", device_name="x", settings={name: {"scheduler": names[name]} for name in names},
        releases=(
            changed_release("1.0", (), (*lcm, *ddim)),
            changed_release("2.0", lcm, ddim),
            changed_release("3.0", ddim[:1], (*ddim[1:], *lcm)),
        ),
    )  # fmt: skip
    sentence = "all 6 cases with scheduler lcm give changed pictures; no other case does."
    assert change_lines(found) == [f"2.0  {sentence}", "2.0  changed: 6 cases", "3.0  changed: emoji-sd/ddim-s0"]
    story = story_of_timeline(found, Path("run"))
    (card,) = story.groups
    assert card.sentence == f"paint 2.0: {sentence}"
    assert {key for _, key in card.cases} == {entry.key for entry in story.entries} - {story.entries[-1].key}
    assert f"- **paint 2.0: {sentence}**" in render_summary(story)


def test_a_release_is_compared_in_each_way_that_it_can_be():
    def case(name: str, verdict: str, **more: Any) -> timeline_outcome.CaseInRelease:
        return timeline_outcome.CaseInRelease(case=name, verdict=verdict, message=verdict, **more)

    cases = (
        *(case(f"m/a{n}", "raises now", error="ValueError: no") for n in (1, 2)),
        *(case(f"m/b{n}", "identical", unet_calls=6, unet_calls_before=5) for n in (1, 2)),
        *(case(f"m/c{n}", "identical", work="more work", work_message="more work: FLOPs 1 → 2") for n in (1, 2)),
        *(case(f"m/d{n}", "works now") for n in (1, 2)),
        *(case(f"m/e{n}", "first") for n in (1, 2)),
        case("m/f", "identical", unet_calls=5, unet_calls_before=5, work="less work", work_message="FLOPs 2 → 1"),
    )
    release = timeline_outcome.ReleaseFound(release="2.0", status="ran", seconds=1, cases=cases)
    settings = {one.case: {"scheduler": one.case[2]} for one in cases}
    found = timeline_outcome.TimelineFound(
        library="paint", span="1.0..2.0", alongside="", planned=("1.0", "2.0"), cases=tuple(settings), device="cpu",
        device_name="x", settings=settings, releases=(release,),
    )  # fmt: skip
    assert [group.sentence for group in release_groups(found, release)] == [
        'both cases with scheduler a raise "ValueError: no"; no other case does',
        "both cases with scheduler d work now instead of raising an error; no other case does",
        "both cases with scheduler c do more work (FLOPs); no other case does",
        "both cases with scheduler b call the UNet more or less often; no other case does",
    ]
