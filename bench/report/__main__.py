"""``python -m bench.report RUN… -o report.html``: builds the page of a run again, or one page for several runs.

Shards of one run are merged into a run of its own.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import FAILED, CommandParser, run_command
from bench.console import announce
from bench.errors import UsageError
from bench.record.folder import RunFolder, new_run_name
from bench.report.merge import ShardRun, merge_shards, read_shards
from bench.report.page import write_page
from bench.report.summary import publish_summary, render_summary
from bench.report.write import REPORT, SUMMARY, read_story


def run(options: argparse.Namespace) -> int:
    """Writes the page and prints its verdict and path.

    Returns:
        The exit code; a merged run that failed, or that is incomplete, is a failure.

    Raises:
        Unreadable: a folder has no run.
        UsageError: the page cannot be written, or has no path.
    """
    shards = read_shards(options.runs) if len(options.runs) > 1 else None
    if shards:
        return _merge(shards, options)
    if options.output is None and len(options.runs) > 1:
        raise UsageError("several runs need a path for their page: -o report.html")
    output = options.output or options.runs[0] / REPORT
    story = read_story(options.runs)
    print(story.headline)
    try:
        page = write_page(story, output)
    except OSError as error:
        raise UsageError(f"{output}: not written ({error.strerror or error}).") from None
    print(f"report: {page}")
    return 0


def _merge(shards: Sequence[ShardRun], options: argparse.Namespace) -> int:
    """Writes the merged run, its page and its summary, and says where they are."""
    folder = RunFolder(options.results, new_run_name())
    command = shlex.join(["python", "-m", "bench.report", *map(str, options.runs)])
    try:
        passes = merge_shards(shards, folder, command, announce)
        story = read_story([folder.path])
        publish_summary(render_summary(story), folder.path / SUMMARY)
        page = write_page(story, options.output or folder.path / REPORT)
    except OSError as error:
        raise UsageError(f"{error.filename or folder.path}: not written ({error.strerror or error}).") from None
    print(story.headline)
    for warning in story.warnings:
        print(warning)
    print(f"results: {folder.path}")
    print(f"report: {page}")
    return 0 if passes else FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m bench.report",
        description="Builds the page of a run from its files. Shards of one run (--shard) are merged into one, which "
        "fails unless each case ran exactly once; other runs are compared.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, such as results/latest")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help=f"the page to write (default: {REPORT} in the folder of a single or merged run)",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="PATH", help="where a merged run gets its folder "
        "(default: results/)"
    )  # fmt: skip
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
