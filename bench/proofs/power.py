"""The proof of the speed verdicts: false alarms between two equal sides, and known slow-downs found.

``python -m bench.proofs.power run`` measures decisions in random order and appends each to a file, so that it can be
stopped and gone on with; ``python -m bench.proofs.power report`` judges what is there by the check's own rule and by
those of others, and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import mannwhitneyu

from bench.calls.device import Cpu
from bench.calls.pipelines import find_checkpoint
from bench.command import CommandParser, run_command
from bench.errors import UsageError
from bench.files import append_line, read_lines
from bench.proofs.slow_down import choose_layers
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import add_case_option, cases_matching
from bench.upgrade.decision import decide
from bench.upgrade.lockstep import PairedCall, Places, log_ratio, places_for
from bench.upgrade.pairs import Plan, measure_until_decided
from bench.upgrade.request import load_request
from bench.upgrade.workers import SIDES, TIMEOUT_S, Sides, WorkerProcess, fresh
from bench.verdicts import Verdict

# With how often each is drawn: short ones more often, so that a day's measurement holds more decisions.
CASES = {"emoji-sd/pndm-s5-g7.5-fp32": 4, "emoji-sd/pndm-s5-g7.5-bf16-seed4": 4, "emoji-ddpm/ddim-s20-fp32": 1}
# One block of decisions: (share of more work in the UNet, how many).
BLOCK = ((0.0, 10), (0.03, 1), (0.05, 2), (0.10, 1))
DECISIONS = Path("results/power/decisions.jsonl")
ASV_P = 0.002
SPEEDS = (Verdict.SLOWER, Verdict.FASTER, Verdict.SAME, Verdict.CANNOT_TELL)
SLOW_WORKER = "bench.proofs.slow_worker"


@dataclass(frozen=True)
class Trial:
    """The raw data of one decision; ``calls`` as seconds of the segments per pair, call and side."""

    case: str
    slow_down: float
    budget_s: float
    began: float
    seconds: float
    calls: list[list[tuple[list[float], list[float]]]]

    @property
    def paired_calls(self) -> list[list[PairedCall]]:
        return [[PairedCall(before, after, ("", "")) for before, after in pair] for pair in self.calls]


def _blocks(rng: random.Random, cases: Mapping[str, int]) -> Iterator[tuple[float, str]]:
    while True:
        block = [slow_down for slow_down, count in BLOCK for _ in range(count)]
        rng.shuffle(block)
        for slow_down in block:
            yield slow_down, rng.choices(list(cases), list(cases.values()))[0]


def measure(
    blocks: int, budget_s: float, decisions: Path, min_change: float, rng: random.Random, *, expression: str = ""
) -> None:
    """Measures ``blocks`` blocks of decisions and appends each to the file.

    Args:
        expression: draws only the cases that it chooses; see ``cases_matching``.

    Raises:
        UsageError: it chooses none.
    """
    cases = cases_matching([case for case in read_suite().cases if case.id in CASES], expression)
    plan = Plan(places_for("cpu"), budget_s=budget_s, min_change=min_change)
    requests = {
        case.id: load_request(
            case, find_checkpoint(case.model, SUITE_FILE.parent), str(Cpu().torch_device), plan.places.threads
        )
        for case in cases
    }
    decisions.parent.mkdir(parents=True, exist_ok=True)
    per_block = sum(count for _, count in BLOCK)
    trials = _blocks(rng, {name: CASES[name] for name in requests})
    with Sides(dict.fromkeys(SIDES, Path(sys.executable)), TIMEOUT_S, program=SLOW_WORKER) as sides:
        print("choosing the layers that the slow candidates repeat", flush=True)
        layers = {name: _layers_to_repeat(sides.take()[0], requests[name], plan.places) for name in requests}
        for number in range(blocks * per_block):
            slow_down, name = next(trials)
            began = time.time()
            slowed = requests[name] | {"repeated_layers": layers[name][slow_down]}
            samples = measure_until_decided(sides, (requests[name], slowed), plan, rng=rng)
            calls = [[(call.baseline, call.candidate) for call in pair] for pair in samples.calls]
            trial = Trial(name, slow_down, budget_s, began, samples.seconds, calls)
            append_line(decisions, json.dumps(asdict(trial)))
            print(
                f"[{number + 1}/{blocks * per_block}] {name} +{slow_down:.0%}: {len(calls)} pairs, "
                f"{samples.seconds:.0f} s, {statistics.fmean(samples.log_ratios):+.1%}",
                flush=True,
            )


def _layers_to_repeat(worker: WorkerProcess, request: dict[str, Any], places: Places) -> dict[float, list[str]]:
    """Per slow-down, the layers of the UNet whose time is that share of its forward."""
    with fresh(worker) as process:
        process.ask("load", cores=list(places.halves[0]), **request)
        costs, _ = process.ask("layers")
    return {share: choose_layers(costs["layers"], share * costs["whole"]) for share, _ in BLOCK}


def read_trials(decisions: Path) -> list[Trial]:
    """
    Raises:
        UsageError: there is no such file, or a line of it is damaged.
    """
    try:
        lines = read_lines(decisions)
    except OSError:
        raise UsageError(f"{decisions}: no such file; measure first, with 'run'.") from None
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(Trial(**json.loads(line)))
        except (ValueError, TypeError):
            raise UsageError(f"{decisions}, line {number}: not a decision; delete the line.") from None
    return trials


@dataclass(frozen=True)
class Verdicts:
    """What a rule said of all decisions with one slow-down."""

    rule: str
    slow_down: float
    counts: Counter[str]

    @property
    def share_slower(self) -> float:
        return self.counts[Verdict.SLOWER] / self.counts.total()


def own_verdicts(trials: Sequence[Trial], min_change: float) -> list[Verdicts]:
    """The verdicts of the upgrade check, by slow-down."""
    found: dict[float, Counter[str]] = {}
    for trial in trials:
        ratios = [log_ratio(calls) for calls in trial.paired_calls]
        found.setdefault(trial.slow_down, Counter())[decide(ratios, min_change).verdict] += 1
    return [Verdicts("this check", slow_down, found[slow_down]) for slow_down in sorted(found)]


def _call_seconds(trial: Trial, side: int) -> list[float]:
    return [sum(call[side]) for pair in trial.calls for call in pair]


def runs_apart(trials: Sequence[Trial]) -> Iterator[tuple[float, list[float], list[float]]]:
    """Slow-down, call times of the baseline, and call times of the candidate from the next decision of the same case.

    That is what people do who run one install, and then the other: the two lie seconds to minutes apart.
    """
    equal: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda trial: trial.began):
        if trial.case in equal:
            yield trial.slow_down, _call_seconds(equal[trial.case], 0), _call_seconds(trial, 1)
        if not trial.slow_down:
            equal[trial.case] = trial


def median_rule(before: Sequence[float], after: Sequence[float], factor: float) -> str:
    """pytest-benchmark's ``--benchmark-compare-fail=median:5%``, for a factor of 1.05."""
    return Verdict.SLOWER if statistics.median(after) > factor * statistics.median(before) else Verdict.SAME


def rank_rule(before: Sequence[float], after: Sequence[float], factor: float) -> str:
    """asv's ``continuous``: Mann-Whitney U test at p < 0.002, and medians apart by more than the factor."""
    if mannwhitneyu(before, after).pvalue >= ASV_P:
        return Verdict.SAME
    return median_rule(before, after, factor)


OTHERS: tuple[tuple[str, Callable[[Sequence[float], Sequence[float]], str]], ...] = (
    ("runs apart, median over 5 % (pytest-benchmark)", lambda before, after: median_rule(before, after, 1.05)),
    ("runs apart, p < 0.002 and factor 1.05 (asv)", lambda before, after: rank_rule(before, after, 1.05)),
    ("runs apart, p < 0.002 and factor 1.1 (asv)", lambda before, after: rank_rule(before, after, 1.1)),
)


def other_verdicts(trials: Sequence[Trial]) -> list[Verdicts]:
    """What others' rules say of runs apart, by slow-down."""
    apart = list(runs_apart(trials))
    found = []
    for rule, judge in OTHERS:
        for slow_down in sorted({slow_down for slow_down, _, _ in apart}):
            counts = Counter(judge(before, after) for share, before, after in apart if share == slow_down)
            found.append(Verdicts(rule, slow_down, counts))
    return found


def render_report(trials: Sequence[Trial], min_change: float) -> str:
    """Tables in Markdown: verdicts of this check with what they took, then the shares that each rule calls slower."""
    lines = [
        "| more work in the UNet | decisions | slower | faster | same | cannot tell | measured ratio, median "
        "| pairs, median | seconds, median (longest) |",
        "| --- " + "| ---: " * 8 + "|",
    ]
    own = own_verdicts(trials, min_change)
    for verdicts in own:
        chosen = [trial for trial in trials if trial.slow_down == verdicts.slow_down]
        ratio = statistics.median(
            math.exp(statistics.fmean(log_ratio(calls) for calls in trial.paired_calls)) for trial in chosen
        )
        counts, seconds = verdicts.counts, [trial.seconds for trial in chosen]
        cells = [
            f"{verdicts.slow_down:.0%}" if verdicts.slow_down else "none (A/A)",
            str(counts.total()),
            *(f"{counts[name]} ({counts[name] / counts.total():.1%})" for name in SPEEDS),
            f"{ratio:.3f}",
            f"{statistics.median(len(trial.calls) for trial in chosen):g}",
            f"{statistics.median(seconds):.0f} ({max(seconds):.0f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    shares = [verdicts.slow_down for verdicts in own]
    lines += ["", "| called slower by | " + " | ".join(f"{share:.0%}" if share else "A/A" for share in shares) + " |"]
    lines.append("| --- " + "| ---: " * len(shares) + "|")
    by_rule: dict[str, dict[float, Verdicts]] = {}
    for verdicts in [*own, *other_verdicts(trials)]:
        by_rule.setdefault(verdicts.rule, {})[verdicts.slow_down] = verdicts
    for rule, judged in by_rule.items():
        cells = [f"{judged[share].share_slower:.1%}" if share in judged else "" for share in shares]
        lines.append("| " + " | ".join([rule, *cells]) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    if options.do == "run":
        rng = random.Random()
        try:
            measure(options.blocks, options.budget, options.decisions, options.min_change, rng, expression=options.case)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the decisions so far are in {options.decisions}") from None
    print(render_report(read_trials(options.decisions), options.min_change))
    print(f"decisions: {options.decisions}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m bench.proofs.power", description=__doc__.split("\n")[0])
    parser.add_argument("do", choices=("run", "report"))
    parser.add_argument("--blocks", type=int, default=20, help="blocks of 14 decisions (default: 20)")
    parser.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="per decision (default: 60)")
    parser.add_argument("--decisions", type=Path, default=DECISIONS, metavar="PATH")
    parser.add_argument("--min-change", type=float, default=0.03, metavar="SHARE", help="(default: 0.03)")
    add_case_option(parser)
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
