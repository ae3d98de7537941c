"""Which faults does the suite detect? ``run`` tries them, ``report`` prints the tables, ``cover`` chooses quick cases.

``run`` can be stopped and continued; without ``--fault`` it runs every fault that has no outcome yet.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bench.command import FAILED, CommandParser, run_command
from bench.errors import UsageError
from bench.faults.outcomes import (
    CLOSED_FORM,
    CONTROL,
    FaultOutcome,
    append,
    latest,
    read_outcomes,
    suite_hash,
)
from bench.files import write_atomically
from bench.suite.case import Case
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import add_case_option, cases_matching, is_slow

if TYPE_CHECKING:
    from bench.faults.runner import FaultTrial

RESULTS = Path("results/faults")
OUTCOMES = "outcomes.jsonl"
ROOT = Path(__file__).parents[2]


def select_cases(cases: Sequence[Case], expression: str = "") -> tuple[Case, ...]:
    """Sentinels if there are any, else every case; only embedded models and no slow cases.

    With an expression, all cases that it matches, sentinels or not, as in ``cases_matching``.

    Raises:
        UsageError: no case matches.
    """
    from bench.calls.device import Cpu, slow_dtypes

    slow = slow_dtypes(Cpu())
    usable = tuple(case for case in cases if case.model.source == "embedded" and not is_slow(case, slow))
    if expression:
        return cases_matching(usable, expression)
    return tuple(case for case in usable if case.settings.sentinel) or usable


def run(options: argparse.Namespace) -> int:
    """Runs the faults; returns 1 if one was not detected."""
    from bench.calls.device import Cpu
    from bench.faults.catalogue import FAULTS
    from bench.faults.order import likely_first
    from bench.faults.runner import FaultTrial, import_libraries, run_trials
    from bench.record.environment import describe_environment

    unknown = [name for name in options.fault if name not in FAULTS]
    if unknown:
        raise UsageError(f"--fault {unknown[0]}: not in the catalogue; 'list' shows all names.")
    cases = select_cases(read_suite(options.suite).cases, options.case)
    environment = describe_environment(Cpu(), ROOT)
    suite = suite_hash(cases, environment["libraries"])
    path = options.results / OUTCOMES
    known = latest(read_outcomes(path), suite) if path.is_file() else {}
    import_libraries()

    def trial(name: str) -> FaultTrial:
        fault, chosen = FAULTS.get(name), cases
        if fault and options.enough:
            seconds = {one.case: one.seconds for one in known[CONTROL].cases}
            chosen = tuple(likely_first(cases, fault, seconds))
        return FaultTrial(
            fault=fault,
            cases=chosen,
            suite=suite,
            suite_folder=options.suite.parent,
            goldens=options.golden_dir,
            environment=environment,
            enough=options.enough,
            closed_form=not options.case,
        )

    def keep(outcome: FaultOutcome) -> None:
        append(path, outcome)
        known[outcome.fault] = outcome

    if CONTROL not in known or options.again:
        run_trials([trial(CONTROL)], 1, keep)
        print(f"without a fault: {len(cases)} cases in {known[CONTROL].seconds:.1f} s", flush=True)
    red = known[CONTROL].seen_by
    if red:
        raise UsageError(
            f"{len(red)} of {len(cases)} cases fail without a fault, first {red[0].case} ({red[0].message}); "
            "fix or accept them, then run again with --again."
        )
    wanted = [name for name in options.fault or FAULTS if options.again or name not in known]
    try:
        _measure([trial(name) for name in wanted], options.processes, keep)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command continues from {path}") from None
    return report(options)


def _measure(trials: Sequence[FaultTrial], processes: int, keep: Callable[[FaultOutcome], None]) -> None:
    from bench.faults.runner import run_trials

    began, done = time.perf_counter(), 0
    width = max((len(trial.name) for trial in trials), default=0)

    def keep_and_print(outcome: FaultOutcome) -> None:
        nonlocal done
        keep(outcome)
        done += 1
        left = (time.perf_counter() - began) / done * (len(trials) - done)
        seen = f"detected by {len(outcome.seen_by)}: {', '.join(outcome.measures)}" if outcome.seen else "NOT DETECTED"
        counted = f"[{done:{len(str(len(trials)))}}/{len(trials)}]"
        print(f"{counted} {outcome.fault:{width}}  {outcome.seconds:5.1f} s, {_clock(left)} left  {seen}", flush=True)

    run_trials(trials, processes, keep_and_print)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def report(options: argparse.Namespace) -> int:
    """Prints the tables and writes them next to the outcomes; returns 1 if a fault was not detected."""
    from bench.faults.catalogue import FAULTS
    from bench.faults.report import render_report, unseen

    outcomes = latest(read_outcomes(options.results / OUTCOMES))
    text = render_report(FAULTS, outcomes)
    write_atomically(options.results / "report.md", text)
    print(text)
    return FAILED if unseen(FAULTS, outcomes) else 0


def cover(options: argparse.Namespace) -> int:
    """Writes the cases that get the marker ``quick``."""
    from bench.faults import quick
    from bench.faults.cover import choose_cases, seen_faults

    outcomes = latest(read_outcomes(options.results / OUTCOMES))
    if CONTROL not in outcomes:
        raise UsageError(f"{options.results / OUTCOMES}: contains no run without a fault; start one with 'run'.")
    seconds = {case.case: case.seconds for case in outcomes[CONTROL].cases if case.case != CLOSED_FORM}
    seen_by = seen_faults(outcomes)
    chosen = choose_cases(seen_by, seconds)
    if not chosen:
        raise UsageError(
            f"{options.results / OUTCOMES}: no fault was detected, so there is nothing to choose; start with 'run'."
        )
    quick.write_quick(chosen, quick.QUICK_FILE)
    once = sum(len(cases & set(chosen)) == 1 for cases in seen_by.values())
    print(
        f"{len(chosen)} of {len(seconds)} cases detect all {len(seen_by)} faults, {len(seen_by) - once} of them twice: "
        f"{sum(seconds[case] for case in chosen):.1f} s instead of {sum(seconds.values()):.1f} s"
    )
    print(f"written: {quick.QUICK_FILE}")
    return 0


def list_faults(_options: argparse.Namespace) -> int:
    from bench.faults.catalogue import FAULTS

    for fault in FAULTS.values():
        print(f"{fault.name}  ({fault.area})  {fault.what}  {fault.source}")
    return 0


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m bench.faults", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("do", choices=("run", "report", "cover", "list"))
    parser.add_argument("--fault", nargs="+", default=[], metavar="NAME", help="only these faults (default: all)")
    add_case_option(parser)
    parser.add_argument(
        "--processes", type=_at_least_one, default=2, help="processes at a time, one thread each (default: 2)"
    )
    parser.add_argument(
        "--enough",
        type=_at_least_one,
        metavar="N",
        help="next fault after N cases have detected this one (default: run all)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help=f"(default: {RESULTS})")
    parser.add_argument("--suite", type=Path, default=SUITE_FILE, metavar="PATH")
    parser.add_argument("--golden-dir", type=Path, default=ROOT / "golden", metavar="PATH")
    parser.add_argument("--again", action="store_true", help="also run faults that have an outcome already")
    options = parser.parse_args(arguments)
    chosen = {"run": run, "report": report, "cover": cover, "list": list_faults}[options.do]
    return run_command(parser.prog, chosen, options)


if __name__ == "__main__":
    sys.exit(main())
