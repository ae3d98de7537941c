"""Reads the folder of a run and writes its page and summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.history.timeline_outcome import TIMELINE, read_timeline
from bench.record.folder import RECORDS
from bench.record.run_info import FILE as RUN_INFO
from bench.record.run_info import read_run_info
from bench.report.from_records import read_run, story_of_runs
from bench.report.from_timeline import story_of_timeline
from bench.report.from_tune import story_of_tune
from bench.report.from_upgrade import story_of_upgrade
from bench.report.page import Page, write_page
from bench.report.story import Story
from bench.report.summary import publish_summary, render_summary
from bench.tune.outcome import TUNE, read_found
from bench.upgrade.outcome import UPGRADE, read_upgrade

REPORT, SUMMARY = "report.html", "summary.md"


class Unreadable(BenchError):
    """A folder has nothing to report."""


def read_story(folders: Sequence[Path]) -> Story:
    """The story of one run, an upgrade check, a timeline, a study, or of several runs.

    Raises:
        Unreadable: a folder is missing, has no run, or has an invalid file; the message names it.
    """
    try:
        for folder in folders:
            _check(folder)
        if len(folders) > 1:
            return story_of_runs([read_run(folder.resolve()) for folder in folders])
        folder = folders[0].resolve()
        if (folder / UPGRADE).is_file():
            info = read_run_info(folder)
            return story_of_upgrade(read_upgrade(folder / UPGRADE), folder, info)
        if (folder / TIMELINE).is_file():
            return story_of_timeline(read_timeline(folder / TIMELINE), folder)
        if (folder / TUNE).is_file():
            return story_of_tune(read_found(folder / TUNE), folder)
        return story_of_runs([read_run(folder)])
    except (OSError, ValueError) as error:
        raise Unreadable(str(error).splitlines()[0]) from None


def write_report(folder: Path) -> Page:
    """Writes the summary and the page of a run into its folder, and the summary into that of a CI job.

    Raises:
        Unreadable: there is no run in the folder.
        OSError: the disk is full or the folder cannot be written.
    """
    story = read_story([folder])
    publish_summary(render_summary(story), folder / SUMMARY)
    return write_page(story, folder / REPORT)


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise Unreadable(f"{folder}: no such folder; give the folder of a run, such as results/latest.")
    if not any((folder / name).is_file() for name in (RECORDS, RUN_INFO, UPGRADE, TIMELINE, TUNE)):
        raise Unreadable(f"{folder}: no run; {RECORDS}, {UPGRADE}, {TIMELINE} and {TUNE} are all missing.")
