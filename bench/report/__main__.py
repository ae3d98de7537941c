"""``python -m bench.report RUN… -o report.html``: builds the page of a run again, or one page for several runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import CommandParser, run_command
from bench.errors import UsageError
from bench.report.page import write_page
from bench.report.write import REPORT, read_story


def run(options: argparse.Namespace) -> int:
    """Writes the page and prints its verdict and path.

    Raises:
        Unreadable: a folder has no run.
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
        description="Builds the page of a run from its files. Shards of one run share a page; other runs are compared.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, such as results/latest")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help=f"the page to write (default: {REPORT} in a single run's folder)",
    )
    options = parser.parse_args(arguments)
    if options.output is None and len(options.runs) > 1:
        parser.error("several runs need a path for their page: -o report.html")
    return run_command(parser.prog, run, options)


if __name__ == "__main__":
    sys.exit(main())
