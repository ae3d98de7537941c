"""``python -m bench.report RUN… -o report.html``: the page of a run made again, or one of several runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import CommandParser, run_command
from bench.errors import UsageError
from bench.report.page import write_page
from bench.report.tell import REPORT, read_story


def run(options: argparse.Namespace) -> int:
    """Raises:
    Unreadable: a folder holds no run.
    UsageError: the page cannot be written.
    """
    output = options.output or options.runs[0] / REPORT
    story = read_story(options.runs)
    print(story.headline)
    try:
        page = write_page(story, output)
    except OSError as error:
        raise UsageError(f"{output}: not written ({error.strerror or error}).") from None
    print(f"report: {page}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m bench.report",
        description="Makes the page of a run from its files; of several runs: of shards one page, else a comparison.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, such as results/latest")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help=f"the page (default: {REPORT} in the folder of the only run)"
    )
    options = parser.parse_args(arguments)
    if options.output is None and len(options.runs) > 1:
        parser.error("several runs need a place for their page: -o report.html")
    return run_command(parser.prog, run, options)


if __name__ == "__main__":
    sys.exit(main())
