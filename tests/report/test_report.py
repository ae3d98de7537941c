"""The report: from the files of a run to a page and a summary whose numbers are those of the files."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.calls.raised import RaisedError
from bench.history.timeline_outcome import MARKS, CaseInRelease, ReleaseFound, TimelineFound
from bench.pictures.limits import OTHER as ACROSS_TYPES
from bench.record.folder import RECORDS, picture_path
from bench.record.record import Record, read_records
from bench.record.run_info import FILE as RUN_INFO
from bench.record.run_info import RunInfo, read_run_info, write_run_info
from bench.report import __main__ as command
from bench.report.from_records import read_run, story_of_runs
from bench.report.from_timeline import level_of, story_of_timeline
from bench.report.from_upgrade import story_of_upgrade
from bench.report.page import write_page
from bench.report.pictures import heat_map
from bench.report.plots import MOST_SERIES, Timed, line_names
from bench.report.quality import Quality, compare_with_references, pareto_front
from bench.report.rerun import rerun_record
from bench.report.story import Chip
from bench.report.summary import LONGEST, cell, publish_summary, render_summary
from bench.report.write import REPORT, SUMMARY, Unreadable, read_story, write_report
from bench.upgrade.decision import Decision
from bench.upgrade.groups import groups_in
from bench.upgrade.outcome import CaseFound, Figure, PicturesFound, SideFound, UpgradeFound, WorkFound, write_upgrade
from bench.verdicts import Kind, Verdict
from tests.report.made_up_run import make_run

NASTY = """<script>alert(1)</script><img src=x onerror=alert(2)> "'`&amp; | **bold** [a](b)"""
CASES = 13
CHANGED_EVERY = 6  # so cases 1, 7 and 13 of the run


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = ("panda", NASTY, "rocket", "strawberry")
    return make_run(tmp_path_factory.mktemp("runs") / "one", CASES, changed_every=CHANGED_EVERY, prompts=prompts)


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may break."""
    return Path(shutil.copytree(made_run, tmp_path / "one"))


def records_of(run: Path) -> list[Any]:
    return list(read_records(run / RECORDS))


def notes_of(run: Path) -> Any:
    return read_run_info(run)


def story_of(*runs: Path) -> Any:
    return read_story(runs)


class Parsed(HTMLParser):
    """What a test asks of a page: its elements in order, the exact numbers, and the text under each element."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: dict[str, list[tuple[float, str]]] = {}
        self._case = ""
        self._number: float | None = None
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "details" and "case" in (attributes.get("class") or ""):
            self._case = attributes["data-title"]
        if tag == "section" and attributes.get("id") != "cases":
            self._case = ""
        if tag == "data":
            self._number = float(attributes["value"])

    def handle_data(self, text):
        if self._number is not None:
            self.numbers.setdefault(self._case, []).append((self._number, text))
            self._number = None

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(made_run: Path) -> Parsed:
    write_report(made_run)
    return Parsed(made_run / REPORT)


# The page is a view: its numbers are those of the records


def test_every_number_of_a_record_is_on_the_page_under_its_case(made_run, page):
    for record in records_of(made_run):
        told = {number for number, _ in page.numbers[record.case]}
        pictures, phases = record.pictures, record.phases_s
        expected = {
            record.median_s, record.mad_s, record.load_s, record.first_call_s, *record.samples_s, record.unet_calls,
            record.median_s / record.settings["images"], phases.text_encoding, sum(phases.denoising), phases.decoding,
            pictures.ssim_worst_tile, *pictures.ssim_tiles, pictures.ssim_grid, pictures.max_diff,
            pictures.changed_share, pictures.limits.ssim, pictures.limits.max_diff, pictures.limits.mean_diff,
            max(map(abs, pictures.mean_diff)),
        }  # fmt: skip
        assert expected <= told


def test_the_text_of_a_time_is_its_number(page):
    texts = [(number, text) for told in page.numbers.values() for number, text in told]
    units = {"ms": 1000.0, "s": 1.0}
    times = [(number, *match.groups()) for number, text in texts if (match := re.fullmatch(r"([\d.,]+) (m?s)", text))]
    assert len(times) > 10 * CASES
    for number, shown, unit in times:
        assert float(shown.replace(",", "")) == pytest.approx(number * units[unit], rel=0.006, abs=0.51 * 0.1)


def test_the_page_can_be_rebuilt_bit_for_bit_from_the_files(made_run, tmp_path):
    write_report(made_run)
    assert command.main([str(made_run), "-o", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (made_run / REPORT).read_bytes()


def test_records_and_grids_alone_make_a_page(run, tmp_path):
    for name in (RUN_INFO, "environments.json"):
        (run / name).unlink()
    assert command.main([str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert len([one for one in Parsed(tmp_path / "page.html").named("details") if "case" in one["class"]]) == CASES


# Verdict first, failures first


def test_a_failing_run_says_so_and_opens_its_worst_case(made_run, page):
    story = story_of(made_run)
    assert story.kind == Kind.BAD
    assert story.headline == "3 of 13 cases failed: 3 changed."
    cases = [one for one in page.named("details") if "case" in one["class"]]
    assert [("failed" in one["class"], "open" in one) for one in cases[:4]] == [
        (True, True), (True, False), (True, False), (False, False),
    ]  # fmt: skip
    scores = [float(one["data-ssim"]) for one in cases[:3]]
    assert scores == sorted(scores)


def test_an_all_green_run_opens_nothing(tmp_path):
    run = make_run(tmp_path / "green", 3, changed_every=0)
    story = story_of(run)
    assert (story.headline, story.kind) == ("All 3 cases look exactly like their goldens.", Kind.GOOD)
    write_report(run)
    assert not any("open" in one for one in Parsed(run / REPORT).named("details"))


def test_the_headline_of_a_single_case_is_singular(tmp_path):
    run = make_run(tmp_path / "single", 1, changed_every=0)
    assert story_of(run).headline == "The one case looks exactly like its golden."


def test_a_run_without_a_record_is_not_green(run, tmp_path):
    (run / RECORDS).write_text("")
    story = story_of(run)
    assert (story.headline, story.kind) == ("No case ran, so nothing was checked.", Kind.BAD)
    assert "13 of 13 selected cases did not run" in story.warnings[0]
    write_page(story, tmp_path / "empty.html")


def test_selected_cases_that_did_not_run_are_named(tmp_path):
    run = make_run(tmp_path / "cut", 4, changed_every=0)
    lines = (run / RECORDS).read_text().splitlines(keepends=True)
    (run / RECORDS).write_text("".join(lines[:3]))
    notes = notes_of(run)
    write_run_info(run, notes.model_copy(update={"ended": None}))
    story = story_of(run)
    assert story.kind == Kind.BAD
    assert story.warnings == (
        f"1 of 4 selected cases did not run: {json.loads(lines[3])['case']}.",
        "The run was cut short.",
    )


def test_a_failed_check_other_than_a_case_fails_the_run(tmp_path):
    run = make_run(tmp_path / "unused", 2, changed_every=0)
    notes = notes_of(run)
    write_run_info(run, notes.model_copy(update={"other_failures": ("test_every_golden_is_used: old.png",)}))
    story = story_of(run)
    assert (story.kind, story.warnings) == (Kind.BAD, ("test_every_golden_is_used: old.png",))


def test_what_was_left_out_is_counted(tmp_path):
    run = make_run(tmp_path / "some", 2, changed_every=0)
    write_run_info(run, notes_of(run).model_copy(update={"left_out": {"slow (-m slow)": 8}}))
    told = {(verdict.word, number) for _, verdict, number in story_of(run).counts}
    assert ("left out: slow (-m slow)", 8) in told


def test_headroom_is_that_of_the_score_nearest_to_its_limit(made_run):
    entries = story_of(made_run).entries
    worst = entries[0]
    assert worst.failed
    assert worst.headroom == 1 - max(score.used for score in worst.scores if score.used is not None) < 0
    assert {entry.headroom for entry in entries if not entry.failed} == {1.0}


def test_the_command_of_a_case_runs_just_that_case():
    values = {"schema": 1, "model": "m", "device": "cpu", "environment": "e", "verdict": "identical"}
    timed = Record(case="m/ddpm-s5-fp32", settings={"slow": True}, first_call_s=1.0, **values)
    pictured = Record(case="m/ddpm-s5-fp32", settings={}, **values)
    case = "::test_{}[m/ddpm-s5-fp32]'"
    assert rerun_record(timed) == f"pytest 'bench/test_cases.py{case.format('case')} -m slow"
    pictured_again = rerun_record(pictured, ("--suite", "my suite.toml"))
    assert pictured_again == (f"pytest 'golden/test_goldens.py{case.format('picture')} --suite 'my suite.toml'")


# No user text becomes markup, nothing is fetched


def test_prompts_full_of_markup_stay_text(made_run, page):
    assert not [one for one in page.named("img") if one.get("src") == "x" or "onerror" in one]
    assert len(page.named("script")) == 1
    assert "<script>alert" not in (made_run / REPORT).read_text()
    assert "alert(1)" in (made_run / REPORT).read_text()


def test_the_page_loads_nothing_and_runs_only_its_own_script(made_run, page):
    sources = [one[key] for _, one in page.elements for key in ("src", "href", "xlink:href") if one.get(key)]
    assert {source.partition(":")[0] if source.startswith("data:") else source[:1] for source in sources} == {
        "data", "#",
    }  # fmt: skip
    policy = next(one["content"] for one in page.named("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}';", policy)


def test_every_picture_has_a_size_and_an_alternative_text(page):
    for image in page.named("img"):
        assert image["alt"]
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_large_pictures_go_beside_the_page(run):
    written = write_page(story_of(run), run / REPORT, largest_within=10_000)
    assert written.pictures == run / "report-pictures"
    assert "report-pictures/" in str(written)
    sources = [one["src"] for one in Parsed(run / REPORT).named("img")]
    assert len(sources) == CASES + 2 * 3
    assert all((run / source).is_file() for source in sources)
    write_page(story_of(run), run / REPORT)
    assert not (run / "report-pictures").exists()


def test_the_pictures_are_those_on_disk_bit_for_bit(run):
    write_page(story_of(run), run / REPORT, largest_within=0)
    record = records_of(run)[0]
    shown = [path.read_bytes() for path in (run / "report-pictures").iterdir()]
    assert (run / "grids" / f"{record.case}.png").read_bytes() in shown


def test_the_heat_map_is_dark_without_difference_and_has_a_scale():
    one = Image.new("RGB", (8, 4), (100, 100, 100))
    other = one.copy()
    other.putpixel((5, 2), (100, 117, 98))
    picture, brightest = heat_map(one, other)
    values = np.asarray(picture).astype(int).sum(axis=2)
    assert brightest == 17
    assert values.argmax() == 2 * 8 + 5
    assert np.sort(values, axis=None)[-2] < 10
    assert heat_map(one, one)[1] == 0


# The summary


def test_the_summary_agrees_with_the_story(made_run):
    story = story_of(made_run)
    text = render_summary(story)
    assert text.startswith(f"## ✗ {story.headline}")
    assert text.count("changed") >= 3
    for record in records_of(made_run):
        row = next(line for line in text.splitlines() if line.startswith(f"| {record.case} "))
        assert f" {record.pictures.ssim_worst_tile:.5f} " in row
        assert record.verdict in row


def test_no_text_ends_a_cell_or_becomes_markup_in_the_summary():
    told = cell(f"{NASTY}\nnext line")
    assert re.search(r"(?<!\\)[|*`_\[\]~<>]", told) is None
    assert "\n" not in told


def test_the_summary_is_added_to_that_of_the_ci_job(tmp_path, monkeypatch):
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    publish_summary("told\n", tmp_path / SUMMARY)
    assert step.read_text() == "before\ntold\n"
    publish_summary("ü" * LONGEST, tmp_path / SUMMARY)
    assert len(step.read_bytes()) < LONGEST + 200
    assert "the rest is in summary.md" in step.read_text()


# Counted work


MORE_SYNCS = "more work: value reads 5 → 9 (+80.0 %, +1 per step): aten::_local_scalar_dense +4"


def give_work(run: Path, *given: tuple[str, str]) -> list[Record]:
    """Gives the first records other verdicts on their work, each with its message; returns them."""
    records = records_of(run)
    for number, (verdict, message) in enumerate(given):
        work = records[number].work.model_copy(update={"verdict": verdict, "message": message})
        failed = {"verdict": verdict} if verdict == "more work" and records[number].verdict == "identical" else {}
        records[number] = records[number].model_copy(update={"work": work, **failed})
    (run / RECORDS).write_text("".join(record.to_line() for record in records))
    return records[: len(given)]


def test_a_run_on_another_type_of_device_is_complete_and_says_that_limits_are_wider(tmp_path):
    run = make_run(tmp_path / "far", 3, changed_every=0)
    across = [
        record.model_copy(update={"pictures": record.pictures.model_copy(update={"tier": ACROSS_TYPES})})
        for record in records_of(run)
        if record.pictures
    ]
    (run / RECORDS).write_text("".join(record.to_line() for record in across))
    story = story_of(run)
    assert (story.kind, story.headline) == (Kind.GOOD, "All 3 cases look exactly like their goldens.")
    (warning,) = story.warnings
    assert warning.startswith("goldens of another type of device: 3 cases have wider limits")
    assert not warning.endswith("..")


def test_more_work_alone_fails_a_run_and_is_explained(tmp_path):
    run = make_run(tmp_path / "more", 3, changed_every=0)
    (record,) = give_work(run, ("more work", MORE_SYNCS))
    story = story_of(run)
    assert (story.headline, story.kind) == ("1 of 3 cases failed: 1 more work.", Kind.BAD)
    worst = story.entries[0]
    assert (worst.title, worst.problems) == (record.case, (MORE_SYNCS,))
    assert (worst.verdict.kind, worst.more) == (Kind.BAD, ())
    text = render_summary(story)
    assert f"- {record.case}: {cell(MORE_SYNCS)}" in text
    assert "✗ 1 work: more work" in text
    write_report(run)
    first = next(one for one in Parsed(run / REPORT).named("details") if "case" in one["class"])
    assert ("failed" in first["class"], "open" in first, first["data-work"]) == (True, True, "more work")
    assert MORE_SYNCS in (run / REPORT).read_text()


def test_more_work_is_reported_beside_a_changed_picture(tmp_path):
    run = make_run(tmp_path / "both", 3, changed_every=3)
    give_work(run, ("more work", MORE_SYNCS))
    worst = story_of(run).entries[0]
    assert [(verdict.word, verdict.kind) for verdict in (worst.verdict, *worst.more)] == [
        ("changed", Kind.BAD), ("more work", Kind.BAD),
    ]  # fmt: skip
    assert len(worst.problems) == 2
    assert worst.problems[1] == MORE_SYNCS


def test_less_work_passes_and_is_reported(tmp_path):
    run = make_run(tmp_path / "less", 3, changed_every=0)
    (record,) = give_work(run, ("less work", "less work: value reads 9 → 5"))
    story = story_of(run)
    assert (story.headline, story.kind) == ("All 3 cases look exactly like their goldens; 1 with less work.", Kind.GOOD)
    entry = next(entry for entry in story.entries if entry.title == record.case)
    assert (entry.failed, entry.problems, entry.notes) == (False, (), ("less work: value reads 9 → 5",))
    row = next(line for line in render_summary(story).splitlines() if line.startswith(f"| {record.case} "))
    assert "identical, less work" in row
    assert "value reads 9 → 5" in row


def test_work_that_was_not_compared_is_counted_and_passes(tmp_path):
    run = make_run(tmp_path / "other", 2, changed_every=0)
    give_work(run, ("not compared", "not compared: the golden was made on cpu, this run is on cuda"))
    story = story_of(run)
    assert story.kind == Kind.GOOD
    assert ("work", Chip("not compared", Kind.NOTE), 1) in story.counts
    write_report(run)
    assert "made on cpu, this run is on cuda" in (run / REPORT).read_text()


def test_every_count_of_work_is_in_its_table_and_under_its_case(made_run, page):
    (work,) = [section for section in story_of(made_run).sections if section.key == "work"]
    (table,) = work.tables
    assert len(table.rows) == CASES
    for record in records_of(made_run):
        counts = record.work.counts
        expected = {
            sum(counts["operators"].values()), sum(counts["host_syncs"].values()), counts["copied_bytes"],
            counts["peak_bytes"], counts["unet_calls"], counts["flops"], counts["tokens"],
        }  # fmt: skip
        row = next(row for row in table.rows if row[0].text == record.case)
        assert expected <= {value.number for value in row}
        assert expected <= {number for number, _ in page.numbers[record.case]}


def test_a_run_without_counts_does_not_mention_work(tmp_path):
    run = make_run(tmp_path / "uncounted", 2, changed_every=0)
    (run / RECORDS).write_text(
        "".join(record.model_copy(update={"work": None}).to_line() for record in records_of(run))
    )
    story = story_of(run)
    assert "work" not in {section.key for section in story.sections}
    assert not [question for question, _, _ in story.counts if question == "work"]


# Several runs


def test_shards_make_one_page_that_shows_they_are_complete(made_run, tmp_path):
    lines = (made_run / RECORDS).read_text().splitlines(keepends=True)
    shards = []
    for number, chosen in enumerate((lines[:5], lines[5:])):
        shard = Path(shutil.copytree(made_run, tmp_path / f"shard{number}"))
        (shard / RECORDS).write_text("".join(chosen))
        shards.append(shard)
    story = story_of(*shards)
    assert story.headline == "3 of 13 cases failed: 3 changed."
    assert story.warnings == ()
    alone = story_of(*shards[:1])
    assert "8 of 13 selected cases did not run" in alone.warnings[0]


def test_runs_with_the_same_cases_have_their_pictures_compared(made_run, tmp_path):
    other = make_run(tmp_path / "two", CASES, changed_every=0)
    story = story_of(made_run, other)
    assert story.headline == "3 of 13 compared cases changed between the runs: 3 changed."
    changed = [entry for entry in story.entries if entry.failed]
    assert [entry.before.label for entry in changed] == ["one"] * 3
    assert {entry.after.label for entry in changed} == {"two"}
    assert command.main([str(made_run), str(other), "-o", str(tmp_path / "page.html")]) == 0
    same = story_of(other, Path(shutil.copytree(other, tmp_path / "three")))
    assert (same.kind, same.headline) == (Kind.GOOD, "All 13 compared cases have the same pictures in these runs.")


def test_work_of_runs_with_the_same_cases_is_compared(tmp_path):
    old = make_run(tmp_path / "old", 3, changed_every=0)
    new = Path(shutil.copytree(old, tmp_path / "new"))
    for run, cost in ((old, (3, 1, 1)), (new, (1, 1, 3))):
        records = records_of(run)
        for number, times in enumerate(cost):
            counts = records[number].work.counts
            work = records[number].work.model_copy(update={"counts": counts | {"flops": times * counts["flops"]}})
            records[number] = records[number].model_copy(update={"work": work})
        (run / RECORDS).write_text("".join(record.to_line() for record in records))
    story = story_of(old, new)
    assert (story.headline, story.kind) == ("1 of 3 compared cases changed between the runs: 1 more work.", Kind.BAD)
    assert {word.word: number for question, word, number in story.counts if question == "work"} == {
        "less work": 1, "same work": 1, "more work": 1,
    }  # fmt: skip
    of_case = {one.title.split()[0]: one for one in story.entries if one.before}
    less, same, more = (of_case[record.case] for record in records_of(new))
    assert more.problems[0].startswith("more work: FLOPs")
    assert less.notes[0].startswith("less work: FLOPs")
    assert (same.problems, same.notes) == ((), ())
    elsewhere = [record.model_copy(update={"device": "cuda"}) for record in records_of(new)]
    (new / RECORDS).write_text("".join(record.to_line() for record in elsewhere))
    assert story_of(old, new).kind == Kind.GOOD


def keep_records(run: Path, *kept: Record) -> Path:
    (run / RECORDS).write_text("".join(record.to_line() for record in kept))
    return run


def two_runs(folder: Path, count: int) -> tuple[Path, Path]:
    old = make_run(folder / "old", count, changed_every=0)
    return old, Path(shutil.copytree(old, folder / "new"))


@pytest.mark.parametrize(
    ("kept", "headline"),
    [
        (1, "2 of 3 cases were not run in new; the one compared case has the same pictures in these runs."),
        (2, "1 of 3 cases was not run in new; all 2 compared cases have the same pictures in these runs."),
    ],
)
def test_a_run_that_lacks_cases_of_the_one_before_is_not_clean(kept, headline, tmp_path):
    old, new = two_runs(tmp_path, 3)
    records = records_of(new)
    keep_records(new, *records[:kept])
    story = story_of(old, new)
    assert (story.headline, story.kind) == (headline, Kind.BAD)
    assert f"Not run in new: {', '.join(record.case for record in records[kept:])}." in story.warnings
    assert ("", Chip("not run", Kind.BAD), 3 - kept) in story.counts


def slow_down(run: Path) -> str:
    """Makes the times of a run not comparable; what is said about it."""
    info = notes_of(run).model_copy(update={"not_comparable": ("the machine got slower",)})
    write_run_info(run, info)
    return str(info.times_warning)


def test_times_that_are_not_comparable_are_said_and_fail_nothing(tmp_path):
    run, _ = two_runs(tmp_path, 2)
    before = story_of(run)
    said = slow_down(run)
    story = story_of(run)
    assert (story.kind, story.headline) == (before.kind, before.headline)
    assert story.warnings == (said,)
    assert "the machine got slower" in render_summary(story)


@pytest.mark.parametrize("slowed", [0, 1])
def test_times_of_an_unsteady_run_are_not_compared_and_that_is_said(slowed, tmp_path):
    runs = two_runs(tmp_path, 2)
    name = "time of a call against the earlier run"
    assert any(name in dict(entry.figures) for entry in story_of(*runs).entries)
    said = slow_down(runs[slowed])
    story = story_of(*runs)
    assert not any(name in dict(entry.figures) for entry in story.entries)
    assert f"Times were not compared: {runs[slowed].name}: {said}" in story.warnings
    assert story.kind is Kind.GOOD


def test_what_changed_is_reported_beside_what_was_not_run(made_run, tmp_path):
    new = make_run(tmp_path / "new", CASES, changed_every=0)
    keep_records(new, *records_of(new)[:6])
    assert story_of(made_run, new).headline == (
        "7 of 13 cases were not run in new; 1 of 6 compared cases changed between the runs: 1 changed."
    )


def test_a_case_that_only_the_later_run_has_is_no_gap(tmp_path):
    old, new = two_runs(tmp_path, 3)
    keep_records(old, *records_of(old)[:2])
    story = story_of(old, new)
    assert (story.headline, story.kind) == (
        "All 2 compared cases have the same pictures in these runs.", Kind.GOOD,
    )  # fmt: skip


def test_the_headline_of_a_single_compared_case_is_singular(tmp_path):
    assert story_of(*two_runs(tmp_path, 1)).headline == "The one compared case has the same pictures in these runs."


def test_shards_of_two_runs_are_compared_as_two_runs(tmp_path):
    old, new = two_runs(tmp_path, 4)
    shards = []
    for run in (old, new):
        records = records_of(run)
        for number, chosen in enumerate((records[:2], records[2:])):
            shard = Path(shutil.copytree(run, tmp_path / f"{run.name}{number}"))
            shards.append(keep_records(shard, *chosen))
    assert story_of(*shards).headline == "All 4 compared cases have the same pictures in these runs."
    keep_records(shards[3], records_of(shards[3])[0])
    assert story_of(*shards).headline.startswith("1 of 4 cases was not run in new0, new1; all 3 compared cases")


def make_raise(run: Path, error: RaisedError | None, verdict: str = "raises") -> None:
    """Makes the first case of a run raise; with no error, it just has no pictures."""
    first, *rest = records_of(run)
    (run / "grids" / f"{first.case}.png").unlink()
    keep_records(run, first.model_copy(update={"error": error, "verdict": verdict, "pictures": None}), *rest)


NO, OTHER = RaisedError(type="TypeError", message="no"), RaisedError(type="ValueError", message="other")


def test_a_case_that_raises_the_same_in_both_runs_is_unchanged(tmp_path):
    old, new = two_runs(tmp_path, 2)
    for run in (old, new):
        make_raise(run, NO, "raises as before")
    story = story_of(old, new)
    assert (story.headline, story.kind) == (
        "All 2 compared cases have the same pictures in these runs.", Kind.GOOD,
    )  # fmt: skip
    (raising,) = [entry for entry in story.entries if entry.verdict.word == "raises as before"]
    assert (raising.problems, raising.notes) == ((), ("raises as before: TypeError: no",))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "problem"),
    [
        ({"error": NO}, {"error": OTHER}, "raises something else", "ValueError: other instead of TypeError: no"),
        ({}, {"error": NO}, "raises now", "raises now: TypeError: no"),
        ({"error": NO}, {}, "works now", "works now; it raised TypeError: no"),
        ({"error": None}, {}, "missing", "one of the runs has no picture of this case"),
        ({"error": NO}, {"error": None}, "missing", "one of the runs has no picture of this case"),
    ],
)
def test_a_case_that_raises_differently_has_changed(before, after, verdict, problem, tmp_path):
    runs = two_runs(tmp_path, 2)
    for run, given in zip(runs, (before, after), strict=True):
        if given:
            make_raise(run, given["error"])
    story = story_of(*runs)
    assert (story.headline, story.kind) == (
        f"1 of 2 compared cases changed between the runs: 1 {verdict}.", Kind.BAD,
    )  # fmt: skip
    assert problem in story.entries[0].problems[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such folder; give the folder of a run, such as results/latest."),
        (["empty"], "empty: no run; records.jsonl, upgrade.json, timeline.json and tune.json are all missing."),
        (["broken"], "records.jsonl, line 1: not a record"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / RECORDS).write_text("no\n")
    assert command.main(arguments) == 4
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_several_runs_need_a_place_for_their_page(made_run, capsys):
    assert command.main([str(made_run), str(made_run)]) == 4
    assert "-o report.html" in capsys.readouterr().err


# Plots


def test_lines_are_named_by_what_differs_up_to_a_maximum(made_run):
    timed = [Timed(record, record.case) for record in records_of(made_run)]
    assert set(line_names(timed, "steps")) == {
        f"{scheduler}, {dtype}"
        for scheduler, dtype in (
            ("pndm", "fp32"), ("ddim", "bf16"), ("euler", "fp32"), ("dpmpp-2m", "bf16"), ("unipc", "fp32"),
            ("heun", "bf16"),
        )
    }  # fmt: skip
    many = [
        Timed(one.record.model_copy(update={"settings": one.record.settings | {"guidance": number}}), one.key)
        for number, one in enumerate(timed * 2)
    ]
    assert len(set(line_names(many, "steps"))) <= MOST_SERIES
    assert set(line_names(timed[:1], "steps")) == {"all"}


def test_each_case_has_a_labelled_mark_that_links_to_it(made_run, page):
    keys = {one["id"] for one in page.named("details") if one.get("id")}
    led_to = [one["xlink:href"] for one in page.named("a") if one.get("xlink:href")]
    assert {f"#{key}" for key in keys} <= set(led_to)
    labels = " ".join(one["aria-label"] for _, one in page.elements if one.get("aria-label"))
    assert all(record.case in labels for record in records_of(made_run))


def test_the_front_has_the_points_that_no_other_beats():
    points = [
        Quality("slow and good", 1.0, 9.0),
        Quality("beaten", 0.5, 4.0),
        Quality("fast", 0.2, 1.0),
        Quality("middle", 0.8, 3.0),
        Quality("as fast", 0.1, 1.0),
    ]
    assert [point.case for point in pareto_front(points)] == ["fast", "middle", "slow and good"]


def test_similarity_is_to_the_longest_float32_case(run):
    records = records_of(run)
    found = compare_with_references(records, run / "grids")
    longest = max((one for one in records if one.settings["dtype"] == "float32"), key=lambda one: one.settings["steps"])
    assert [one.model for one in found] == ["emoji-sd"]
    assert {point.case: point.ssim for point in found[0].points}[longest.case] == pytest.approx(1)
    other = records[0].model_copy(update={"settings": records[0].settings | {"seed": 5}})
    assert compare_with_references([other, *records[1:]], run / "grids")[0].left_out == 1


# Upgrade checks and timelines


def figure(verdict: str, ratio: float = 1.0, **more) -> Figure:
    decision = Decision(Verdict(verdict), ratio, ratio - 0.01, ratio + 0.01, 6, more.pop("more_pairs", None))
    return Figure.of(decision, 0.03, 1.0, ratio, (ratio - 0.01, ratio, ratio + 0.01))


def upgrade_found(*cases: CaseFound, **more) -> UpgradeFound:
    sides = [SideFound(asked=f"diffusers=={version}", libraries={"diffusers": version}) for version in ("1", "2")]
    values = {"device": "cpu", "device_name": "<cpu>", "mode": "duet", "budget_s": 60, "min_change": 0.03}
    changes = ("diffusers 1 → 2",)
    return UpgradeFound(baseline=sides[0], candidate=sides[1], changes=changes, cases=cases, **(values | more))


def case_found(name: str, verdict: str = "identical", **more) -> CaseFound:
    values = {"settings": {"images": 1, "dtype": "float32"}, "unet_calls": (4, 4), "new_warnings": (), "seconds": 1}
    pictures = PicturesFound(verdict=verdict, message=f"{verdict}: <b>why</b> | so", ssim_worst_tile=0.9)
    return CaseFound(case=name, pictures=pictures, **(values | more))


COUNTED = {"operators": {"aten::mm": 4}, "host_syncs": {}, "copied_bytes": 64, "peak_bytes": 4096, "flops": 12345}
MORE = WorkFound(verdict="more work", message="more work: FLOPs 12 → 13", baseline=COUNTED, candidate=COUNTED)


@pytest.mark.parametrize(
    ("cases", "headline", "kind"),
    [
        ([], "No case ran, so nothing was compared.", Kind.BAD),
        ([case_found("m/a"), case_found("m/b")], "Nothing is worse in 2 cases.", Kind.GOOD),
        ([case_found("m/a", "changed"), case_found("m/b")], "Worse in 1 of 2 cases: 1 changed.", Kind.BAD),
        ([case_found("m/a", speed=figure("slower", 1.1))], "Worse in 1 of 1 case: 1 slower.", Kind.BAD),
        ([case_found("m/a", memory=figure("more", 1.1))], "Worse in 1 of 1 case: 1 more memory.", Kind.BAD),
        ([case_found("m/a", work=MORE)], "Worse in 1 of 1 case: 1 more work.", Kind.BAD),
        (
            [case_found("m/a", speed=figure("cannot tell", more_pairs=7))],
            "Nothing is measurably worse in 1 case, but the speed of 1 case is unclear.",
            Kind.UNSURE,
        ),
    ],
)
def test_an_upgrade_s_headline(cases, headline, kind, tmp_path):
    story = story_of_upgrade(upgrade_found(*cases), tmp_path)
    assert (story.headline, story.kind) == (headline, kind)


def test_a_slower_import_fails_an_upgrade(tmp_path):
    story = story_of_upgrade(upgrade_found(case_found("m/a"), import_time=figure("slower", 1.5)), tmp_path)
    assert (story.kind, story.headline) == (Kind.BAD, "Importing the libraries is slower.")


def test_an_upgrade_that_was_cut_short_is_not_green(tmp_path):
    notes = RunInfo(schema=1, command="pytest", began="now", planned=("m/a", "m/b"))
    story = story_of_upgrade(upgrade_found(case_found("m/a")), tmp_path, notes)
    assert (story.kind, story.headline) == (Kind.BAD, "Nothing is worse in 1 case, but the check is incomplete.")
    assert "m/b" in story.warnings[0]


def test_an_upgrade_s_page_has_ratios_plot_and_environments(tmp_path):
    found = upgrade_found(
        case_found("m/a", speed=figure("same", 1.004), work=MORE.model_copy(update={"verdict": "less work"})),
        case_found("m/b", "changed", speed=figure("slower", 1.0731)),
    )
    write_upgrade(tmp_path / "upgrade.json", found)
    write_report(tmp_path)
    page = Parsed(tmp_path / REPORT)
    assert {1.004, 1.0731, 12345} <= {number for told in page.numbers.values() for number, _ in told}
    cases = [one for one in page.named("details") if "case" in one["class"]]
    assert [one["data-title"] for one in cases] == ["m/b", "m/a"]
    text = (tmp_path / REPORT).read_text()
    assert "m/b: slower, +7.3%" in text
    assert "&lt;b&gt;why&lt;/b&gt;" in text
    assert "diffusers 1 → 2" in text
    assert "--candidate diffusers==2" in text
    assert any("differs" in (one.get("class") or "") for one in page.named("tr"))


def test_groups_lead_an_upgrade_s_page_and_link_to_their_cases(tmp_path):
    changed = [case_found(f"m/{n}", "changed", settings={"images": 1, "scheduler": "<lcm>"}) for n in (1, 2)]
    found = upgrade_found(*changed, case_found("m/3", settings={"images": 1, "scheduler": "ddim"}))
    groups = tuple(group.model_copy(update={"notes": ("from step 3 on",)}) for group in groups_in(found))
    write_upgrade(tmp_path / "upgrade.json", found.model_copy(update={"groups": groups}))
    write_report(tmp_path)
    text = (tmp_path / REPORT).read_text()
    sentence = "Both cases with scheduler &lt;lcm&gt; give changed pictures; no other case does."
    assert text.index(sentence) < text.index("from step 3 on") < text.index('id="cases"')
    keys = [entry.key for entry in read_story([tmp_path]).entries if entry.failed]
    assert len(keys) == 2
    assert all(text.index(f'href="#{key}"') < text.index(f'id="{key}"') for key in keys)
    command = "tox run -e bisect -- diffusers 1..2 --case m/1"
    assert f">{command}</pre>" in text
    summary = (tmp_path / SUMMARY).read_text()
    assert f"- **{sentence}** from step 3 on" in summary
    assert f"`{command}`" in summary
    assert summary.index(sentence) < summary.index("- m/1: changed")


def test_one_failing_case_makes_no_group(tmp_path):
    found = upgrade_found(case_found("m/a", "changed"), case_found("m/b"))
    write_upgrade(tmp_path / "upgrade.json", found)
    story = read_story([tmp_path])
    assert story.groups == ()
    assert story.next_step.endswith("--case m/a")


def test_groups_of_compared_runs_are_of_what_changed_between_them(made_run, run, tmp_path):
    other = run.rename(tmp_path / "two")
    for record in records_of(other)[:2]:
        path = picture_path(other, record.case, "")
        with Image.open(path) as opened:
            opened.convert("RGB").rotate(180).save(path)
    story = story_of(made_run, other)
    (card,) = story.groups
    assert "give changed pictures" in card.sentence
    assert len(card.cases) == 2
    assert {key for _, key in card.cases} == {entry.key for entry in story.entries if entry.failed}


def released(name: str, **more) -> CaseInRelease:
    return CaseInRelease(**({"case": name, "verdict": "identical", "message": "so", "compared_with": "1"} | more))


def test_a_timeline_s_cells_link_to_what_changed(tmp_path):
    moved = {"verdict": "changed", "ssim_worst_tile": 0.95, "max_diff": 31, "mean_diff": (0, 0, 1)}
    changed = released("m/a", **moved)
    found = TimelineFound(
        library="paint", span="1..3", alongside="", planned=("1", "2", "3"), cases=("m/a", "m/b"), device="cpu",
        device_name="x",
        releases=(
            ReleaseFound(release="1", status="ran", seconds=1, cases=(released("m/a"), released("m/b"))),
            ReleaseFound(release="2", status="not installed", reason="no wheel", seconds=1),
            ReleaseFound(release="3", status="ran", seconds=1, cases=(changed, released("m/b"))),
        ),
    )  # fmt: skip
    story: Any = story_of_timeline(found, tmp_path)
    assert story.headline == "paint 3: 1 changed; of 2 cases in 3 releases."
    (entry,) = story.entries
    row = dict(story.map.rows)["m/a"]
    assert [cell.key for cell in row] == ["", "", entry.key]
    assert (row[2].text, row[2].level, row[2].marks) == ("31", 5, ("changed",))
    assert story.map.absent == {"2": "not installed: no wheel"}
    assert "2: not installed: no wheel" in render_summary(story)


def test_a_timeline_s_page_shows_and_explains_every_mark(tmp_path):
    marked = (
        *(released(f"m/{verdict}", verdict=verdict) for verdict in MARKS if verdict.kind_of_case is not Kind.NOTE),
        released("m/work", work="more work", work_message="more work: FLOPs 12 → 13"),
        released("m/less", work="less work", work_message="less work: FLOPs 13 → 12"),
        released("m/calls", unet_calls=9, unet_calls_before=4),
        released("m/warns", new_warnings=("careful",)),
    )
    found = TimelineFound(
        library="paint", span="1..1", alongside="", planned=("1",), cases=tuple(case.case for case in marked),
        device="cpu", device_name="x", releases=(ReleaseFound(release="1", status="ran", seconds=1, cases=marked),),
    )  # fmt: skip
    write_page(story_of_timeline(found, tmp_path), tmp_path / REPORT)
    table, _, below = (tmp_path / REPORT).read_text(encoding="utf-8").partition('<ul class="legend"')
    legend, _, _ = below.partition("</ul>")
    for mark in MARKS:
        sign = f'<span class="sign {mark.replace(" ", "-")}" aria-hidden="true"></span>'
        assert sign in table, mark
        assert f"{sign} {mark}</li>" in legend, mark


@pytest.mark.parametrize(
    ("ssim", "max_diff", "level"),
    [
        (None, None, None),
        (1.0, 0, 0),
        (1.0, 1, 1),
        (0.999995, 1, 1),
        (0.99995, 1, 2),
        (0.95, 9, 5),
        (0.5, 9, 6),
        (-1, 9, 6),
    ],
)
def test_a_step_of_colour_is_a_factor_of_ten(ssim, max_diff, level):
    assert level_of(released("m/a", ssim_worst_tile=ssim, max_diff=max_diff)) == level


def test_a_run_s_phases_may_be_unknown(tmp_path):
    run = make_run(tmp_path / "bare", 2, changed_every=0)
    records = [json.loads(line) for line in (run / RECORDS).read_text().splitlines()]
    for record in records:
        record["phases_s"] = None
        record["peak_memory_bytes"] = 2**30
    (run / RECORDS).write_text("".join(json.dumps(record) + "\n" for record in records))
    story = story_of_runs([read_run(run)])
    assert any("memory" in chart.title for section in story.sections for chart in section.charts)
    assert not any("phases" in chart.title for section in story.sections for chart in section.charts)


def test_an_unreadable_run_is_named(tmp_path):
    with pytest.raises(Unreadable, match=r"nothing: no such folder"):
        read_story([tmp_path / "nothing"])
