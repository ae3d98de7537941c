"""The proof of the speed verdicts: false alarms between two equal sides, and known slow-downs found.

``python -m bench.proofs.power run`` measures as the upgrade check does and appends each trial to a file, so that it can
be stopped and continued; ``python -m bench.proofs.power report`` judges all trials by the check's own rule and by those
of other tools, and prints the tables.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.calls.pipelines import find_checkpoint
from bench.command import CommandParser, run_command
from bench.console import shown
from bench.errors import UsageError
from bench.proofs.ended import ended
from bench.proofs.power_report import render_report
from bench.proofs.trials import CASES, KINDS, Fault, Setup, Trial, keep, next_setup, read_trials, setups
from bench.suite.case import Case
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import add_case_option, cases_matching
from bench.upgrade.lockstep import PairedCall, Places, places_for
from bench.upgrade.measuring import measure_until_decided
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.request import load_request
from bench.upgrade.side_results import PictureProcesses, paired
from bench.upgrade.start import Requests, ask_both, measure_start
from bench.upgrade.workers import SIDES, TIMEOUT_S, Sides, fresh_pair

TRIALS = Path("results/power/trials.jsonl")
SLOW_WORKER = "bench.proofs.slow_worker"
DEVICE = "cpu"
DEFAULTS = ComparisonPlan(Places(""))


@dataclass(frozen=True)
class Cost:
    """What a call of a case takes.

    Attributes:
        multiplications: how many take as long as the call.
        calls: of each part within the call.
    """

    multiplications: float
    calls: Mapping[str, int]

    def extra(self, part: str, share: float) -> int:
        """Multiplications in each call of this part that make the case slower by this share."""
        return round(share * self.multiplications / self.calls[part])


def measure_costs(sides: Sides, requests: Mapping[str, dict[str, Any]], places: Places) -> dict[str, Cost]:
    """The cost of each case, while both sides do the same, as they do in a trial."""
    costs = {}
    for case, request in requests.items():
        with ExitStack() as stack:
            pair = stack.enter_context(fresh_pair(sides.take()))
            ask_both(pair, places, False, "load", (request, request))
            replies = [reply for reply, _ in ask_both(pair, places, False, "calibrate")]
        middle = math.sqrt(math.prod(reply["multiplications"] for reply in replies))
        costs[case] = Cost(middle, replies[0]["calls"])
    return costs


def extra_work(fault: Fault | None, costs: Mapping[str, Cost]) -> dict[str, int]:
    """Multiplications in each call of the slow part, by case."""
    return {case: costs[case].extra(fault.part, fault.share) for case in fault.cases} if fault else {}


def requests_of(setup: Setup, plain: Mapping[str, dict[str, Any]], multiplications: Mapping[str, int]) -> Requests:
    """What each side is to load, by case: the same, but for the extra work of the candidate."""
    part = setup.fault.part if setup.fault else ""
    extra = {case: {"slow_part": part, "multiplications": count} for case, count in multiplications.items()}
    return {case: (plain[case], plain[case] | extra.get(case, {})) for case in setup.cases}


def seen_calls(processes: PictureProcesses, requests: Requests, places: Places) -> dict[str, PairedCall]:
    """The calls that the check draws the pictures with, before it measures; by case."""
    found = {case: paired(*processes.both((before, after), places)) for case, (before, after) in requests.items()}
    return {case: call for case, call in found.items() if call}


@dataclass(frozen=True)
class Wanted:
    """When to stop: after this many trials, or once this many minutes are over."""

    trials: float = math.inf
    minutes: float = math.inf

    def more(self, done: int, began: float) -> bool:
        return done < self.trials and time.monotonic() - began < 60 * self.minutes


def measure(choices: Sequence[Setup], cases: Sequence[Case], wanted: Wanted, file: Path, rng: random.Random) -> None:
    """Measures trials and appends each to the file; those setups first of which it has the fewest."""
    places = places_for(DEVICE)
    by_id = {case.id: case for case in cases}
    plain = {
        case.id: load_request(case, find_checkpoint(case.model, SUITE_FILE.parent), DEVICE, places.threads)
        for case in cases
    }
    done = [trial.setup for trial in read_trials(file)] if file.exists() else []
    slow = {case for setup in choices if setup.fault for case in setup.fault.cases}
    began, number = time.monotonic(), 0
    with (
        Sides(dict.fromkeys(SIDES, Path(sys.executable)), TIMEOUT_S, program=SLOW_WORKER) as sides,
        PictureProcesses(sides.process) as processes,
    ):
        costs = measure_costs(sides, {case: plain[case] for case in by_id if case in slow}, places)
        while wanted.more(number, began):
            setup = next_setup(choices, done, rng)
            multiplications = extra_work(setup.fault, costs)
            requests = requests_of(setup, plain, multiplications)
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            chosen, plan = [by_id[case] for case in setup.cases], setup.plan(places)
            seen = seen_calls(processes, requests, places)
            measured = measure_until_decided(sides, chosen, requests, plan, rng=rng, seen=seen)
            several = len(chosen) > 1
            trial = Trial(
                setup=setup,
                mode=places.mode,
                seen=seen,
                starts=measured.starts,
                complete=measure_start(sides, chosen, requests, plan, rng) if several else None,
                multiplications=multiplications,
                seconds=measured.seconds,
                date=date,
            )
            keep(file, trial)
            done.append(setup)
            number += 1
            print(f"[{number}] {setup}: {ended(measured, setup.fault)}", flush=True)


def known_cases(expression: str) -> tuple[Case, ...]:
    """The cases of a run, in the order of ``CASES``, that ``--case`` chooses; see ``cases_matching``.

    Raises:
        UsageError: it chooses none.
    """
    by_id = _by_id(CASES)
    return cases_matching([by_id[name] for name in CASES], expression)


def _by_id(ids: Iterable[str]) -> dict[str, Case]:
    wanted = set(ids)
    return {case.id: case for case in read_suite().cases if case.id in wanted}


def report(file: Path, kinds: Sequence[str], expression: str) -> str:
    """The tables of all trials of these kinds whose cases ``--case`` chooses.

    Raises:
        UsageError: there is no such trial.
    """
    chosen = {case.id for case in known_cases(expression)}
    trials = [trial for trial in read_trials(file) if trial.setup.kind in kinds and chosen >= set(trial.setup.cases)]
    if not trials:
        raise UsageError(f"{shown(file)}: no trial is of this kind and these cases.")
    return render_report(trials, _by_id(chosen))


def run(options: argparse.Namespace) -> int:
    kinds = [options.kind] if options.kind else KINDS
    if options.do == "run":
        cases = known_cases(options.case)
        choices = setups(cases, kinds, options.budget, options.min_change)
        wanted = Wanted(options.trials or math.inf, options.minutes or math.inf)
        if wanted == Wanted():
            wanted = Wanted(trials=len(choices))
        try:
            measure(choices, cases, wanted, options.file, random.Random())
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the trials so far are in {shown(options.file)}") from None
    print(report(options.file, kinds, options.case))
    print(f"\ntrials: {shown(options.file)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m bench.proofs.power", description=__doc__.split("\n")[0])
    parser.add_argument("do", choices=("run", "report"))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--trials", type=int, metavar="N", help="stop after N trials (default: one of each)")
    length.add_argument("--minutes", type=float, metavar="M", help="begin no trial after M minutes")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="whole runs of equal sides, slow parts of one case, or one slow scheduler of a run",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=DEFAULTS.budget_s,
        metavar="SECONDS",
        help="per trial (default: %(default)g, as in the check)",
    )
    parser.add_argument(
        "--min-change", type=float, default=DEFAULTS.min_change, metavar="SHARE", help="(default: %(default)g)"
    )
    parser.add_argument(
        "--file", type=Path, default=TRIALS, metavar="PATH", help="of the trials (default: %(default)s)"
    )
    add_case_option(parser)
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
