"""Accepts the pictures of a reviewed run as goldens of the machine that it ran on, such as a runner of CI.

``python -m bench.accept results/RUN`` lists what would be written; ``--yes`` writes it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.command import FAILED, CommandParser, run_command
from bench.console import REPOSITORY, shown
from bench.errors import UsageError
from bench.pictures.check import Check
from bench.pictures.store import LEVELS, LEVELS_HELP
from bench.record.candidate import Candidate, Recorded, Unacceptable, candidate_of, read_recorded, refuse_other_recipes
from bench.report.write import REPORT
from bench.suite.case import Case
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import add_case_option, cases_matching
from bench.verdicts import Verdict

PROG = "python -m bench.accept"
MOST_NAMED = 3


@dataclass(frozen=True)
class Acceptance:
    """A case and what accepting it does.

    Attributes:
        line: what is written, such as ``wrote golden/emoji-sd/pndm-s5-g7.5-fp32.png (changed, SSIM was 0.91)``; empty
            if nothing is.
        refused: why it cannot be accepted; empty if it can.
    """

    case: Case
    candidate: Candidate | None = None
    line: str = ""
    refused: str = ""


def _accept(recorded: Recorded, cases: Sequence[Case], goldens: Path, update: str, *, errors: bool) -> list[Acceptance]:
    """Writes what can be accepted into a store of goldens."""
    found = []
    for case in cases:
        try:
            candidate = candidate_of(recorded, case)
        except Unacceptable as error:
            found.append(Acceptance(case, refused=str(error)))
            continue
        check, line = candidate.check(goldens, update, errors=errors)
        found.append(Acceptance(case, candidate, line, "" if line else _why_not(check)))
    return found


def _why_not(check: Check) -> str:
    """Why nothing was written, if that is no good sign."""
    if Verdict(check.pictures.verdict).passes and check.verdict.passes:
        return ""
    return check.pictures.message if not Verdict(check.pictures.verdict).passes else str(check.verdict)


def _rehearse(
    recorded: Recorded, cases: Sequence[Case], goldens: Path, update: str, *, errors: bool
) -> list[Acceptance]:
    """As ``_accept``, in a copy of the goldens: what is listed is what is then done."""
    with tempfile.TemporaryDirectory(prefix="goldens-") as folder:
        copy = Path(folder).resolve() / "golden"
        for name in {case.model.name for case in cases}:
            if (goldens / name).is_dir():
                shutil.copytree(goldens / name, copy / name)
        found = _accept(recorded, cases, copy, update, errors=errors)
        return [
            Acceptance(
                one.case,
                one.candidate,
                one.line.replace("wrote", "would write", 1).replace(str(copy), shown(goldens)),
                one.refused.replace(str(copy), shown(goldens)),
            )
            for one in found
        ]


def _print(found: Sequence[Acceptance]) -> None:
    for one in found:
        if one.refused:
            print(f"{one.case.id}: not accepted: {one.refused}")
        elif one.line and one.candidate:
            error = one.candidate.origin.error
            print(f"{one.case.id}: {one.line}")
            print(f"  {f'raises {error.sentence}' if error else one.candidate.picture}")
    same = sum(not one.line and not one.refused for one in found)
    if same:
        print(f"{same} of {len(found)} cases show their goldens already")


def _next_step(written: Sequence[Acceptance], options: argparse.Namespace) -> str:
    """What is left to do after goldens were written: their limits have to be measured."""
    names = [one.case.id for one in written]
    chosen = " or ".join(name.rpartition("/")[2] for name in names) if len(names) <= MOST_NAMED else options.case
    marker = "golden and slow" if any(one.case.settings.slow for one in written) else "golden"
    words = ["pytest", "-m", marker, *(["-k", chosen] if chosen else []), "--golden-calibrate"]
    devices = dict.fromkeys(one.candidate.device.name for one in written if one.candidate)
    where, how = " and ".join(devices), shlex.join(words)
    return f"next: measure their limits on {where} ({how}), then commit {shown(options.golden_dir)}"


def run(options: argparse.Namespace) -> int:
    """Returns:
        The exit code; a case that cannot be accepted is a failure.

    Raises:
        BenchError: the run cannot be used.
    """
    recorded = read_recorded(options.run)
    suite = read_suite(options.suite)
    known = {case.id: case for case in suite.cases}
    strange = next((case for case in recorded.records if case not in known), None)
    if strange and not options.case:
        raise UsageError(
            f"{shown(options.run)}: of another suite ({strange} is not in {shown(suite.file)}); choose cases with -k."
        )
    cases = cases_matching([case for case in suite.cases if case.id in recorded.records], options.case)
    refuse_other_recipes(recorded, cases, options.suite.parent)
    accept = _accept if options.yes else _rehearse
    found = accept(recorded, cases, options.golden_dir, options.golden_level, errors=options.golden_errors)
    _print(found)
    written = [one for one in found if one.line]
    refused = [one for one in found if one.refused]
    if (options.run / REPORT).is_file() and written:
        print(f"report: {options.run / REPORT}")
    count = f"{len(written)} of {len(found)} cases"
    if not written:
        print("nothing to accept")
    elif options.yes:
        print(f"accepted: {count}")
        print(_next_step(written, options))
    else:
        print(f"nothing is written yet: look at the pictures of these {count}, then accept them with --yes")
    return FAILED if refused else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a bench or golden run, such as results/latest")
    add_case_option(parser)
    parser.add_argument("--yes", action="store_true", help="write the goldens (default: only list them)")
    parser.add_argument("--suite", type=Path, default=SUITE_FILE, metavar="PATH", help="default: bench/suite.toml")
    parser.add_argument(
        "--golden-dir", type=Path, default=REPOSITORY / "golden", metavar="PATH", help="default: golden/"
    )
    parser.add_argument(
        "--golden-level",
        choices=LEVELS,
        default="auto",
        help=f"where the goldens go: {LEVELS_HELP}",
    )
    parser.add_argument(
        "--golden-errors", action="store_true", help="accept what a case raises also where it names no issue"
    )
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
