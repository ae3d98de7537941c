"""``python -m bench.report RUN… -o report.html``: the page of a run made again, or one of several runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report.page import write_page
from bench.report.tell import REPORT, Unreadable, read_story

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
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
    output = options.output or options.runs[0] / REPORT
    try:
        story = read_story(options.runs)
        print(story.headline)
        print(f"report: {write_page(story, output)}")
    except Unreadable as error:
        print(f"report: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"report: {output}: not written ({error.strerror or error}).", file=sys.stderr)
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
