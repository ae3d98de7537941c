"""Which release of a library changed which case: runs a timeline and writes its map and its report.

``tox run -e timeline -- diffusers 0.34.0..0.42.1`` is ``python -m bench.timeline diffusers 0.34.0..0.42.1``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import INTERRUPTED, CommandParser, run_command
from bench.console import announce
from bench.history.choice import GOLDENS, Requests, add_options, default_cases, parse_options, read_choice
from bench.history.neighbours import Neighbours
from bench.history.release_pictures import Bench
from bench.history.timeline import Timeline
from bench.history.timeline_map import save_map
from bench.history.timeline_outcome import TimelineFound
from bench.history.timeline_summary import change_lines
from bench.pictures.check import limits_side_by_side
from bench.record.folder import RunFolder, new_run_name
from bench.report.page import Page
from bench.report.write import write_report
from bench.suite.selection import add_case_option, cases_matching

PROG = "timeline"


def write_reports(found: TimelineFound, folder: Path) -> Page:
    """``timeline.png``, ``summary.md`` and ``report.html``."""
    save_map(found, folder / "timeline.png")
    return write_report(folder)


def _parser(*, several: bool = False) -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    add_options(parser, several=several)
    parser.add_argument("--every", action="store_true", help="every release, not only the newest of each minor version")
    add_case_option(parser)
    parser.add_argument("--sentinels", action="store_true", help="also the sentinel cases, of which there are hundreds")
    return parser


def run(options: argparse.Namespace) -> int:
    """Raises:
    BenchError: something that was asked for is not available.
    """
    choice = read_choice(options, every=options.every)
    cases = cases_matching(default_cases(choice.suite, choice.device, sentinels=options.sentinels), options.case)
    known = Requests(choice.suite, choice.device)
    folder = RunFolder(choice.results, new_run_name())
    timeline = Timeline(
        choice=choice,
        requests={case.id: known.of(case) for case in cases},
        bench=Bench(
            choice.environments, forks=choice.device.type == "cpu", announce=lambda line: announce(f"  {line}")
        ),
        neighbours=Neighbours({case.id: limits_side_by_side(GOLDENS, case, choice.device) for case in cases}),
        folder=folder,
        announce=announce,
    )
    names = ", ".join(map(str, choice.releases))
    announce(f"{choice.library}: {len(choice.releases)} releases ({names}), {len(cases)} cases on {choice.device.name}")
    try:
        timeline.run()
    except KeyboardInterrupt:
        announce("interrupted; the releases done so far are kept")
    found = timeline.found()
    if found.releases:
        page = write_reports(found, folder.make())
        for line in change_lines(found):
            announce(line)
        announce(f"results: {folder.path}")
        announce(f"report: {page}")
    return 0 if found.is_complete else INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(_parser, arguments)
    return run_command(PROG, run, options)


if __name__ == "__main__":
    sys.exit(main())
