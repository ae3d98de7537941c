"""The tables of the power proof, in Markdown."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.proofs.ended import Ended, ended
from bench.proofs.other_rules import Verdicts, other_verdicts, own_verdicts
from bench.proofs.resampling import Pool, resampled_runs
from bench.proofs.trials import PER_ROUND, WHOLE, Setup, Trial, all_starts
from bench.suite.case import Case
from bench.upgrade.decision import FEWEST_STARTS
from bench.upgrade.lockstep import Places
from bench.upgrade.measuring import Measured
from bench.upgrade.speeds import judge

WHOLE_RUNS = 1000
SLOW_RUNS = 200
COUNTS_OF_STARTS = (FEWEST_STARTS, 5, 6, 8, 10, 15, 20)


@dataclass(frozen=True)
class Group:
    """All trials with one setup, and how each ended."""

    setup: Setup
    trials: list[Trial]
    ends: list[Ended]
    cases: list[Case]

    @property
    def pool(self) -> Pool:
        starts = [start for trial in self.trials for start in all_starts(trial)]
        plan = self.setup.plan(Places(self.trials[0].mode))
        return Pool(starts, self.cases, plan, self.setup.fault, [trial.seen for trial in self.trials])


def groups_of(trials: Iterable[Trial], cases: Mapping[str, Case]) -> list[Group]:
    """The trials by setup: equal sides, slow parts, slow schedulers; within these, in the order of a first trial."""
    by_setup: dict[Setup, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_setup[trial.setup].append(trial)
    ordered = sorted(by_setup, key=_place)
    return [
        Group(
            setup,
            by_setup[setup],
            [_end(trial, [cases[name] for name in setup.cases]) for trial in by_setup[setup]],
            [cases[name] for name in setup.cases],
        )
        for setup in ordered
    ]


def _place(setup: Setup) -> tuple[int, str, float, float]:
    fault = setup.fault
    return list(PER_ROUND).index(setup.kind), fault.part if fault else "", fault.share if fault else 0.0, setup.spell_s


def _end(trial: Trial, cases: Sequence[Case]) -> Ended:
    speeds = judge(trial.starts, cases, trial.setup.plan(Places(trial.mode)), trial.seen)
    return ended(Measured(trial.starts, speeds), trial.setup.fault)


def render_report(
    trials: Sequence[Trial], cases: Mapping[str, Case], *, whole_runs: int = WHOLE_RUNS, slow_runs: int = SLOW_RUNS
) -> str:
    """All tables: equal sides, slow-downs found, and what the rules of other tools say.

    Args:
        cases: of all trials, by id.
        whole_runs, slow_runs: how many runs are resampled of each setup.
    """
    groups = groups_of(trials, cases)
    equal = [group for group in groups if group.setup.kind == WHOLE]
    slow = [group for group in groups if group.setup.kind != WHOLE]
    parts = [_equal_sides(equal, whole_runs)] if equal else []
    parts += [_slow_downs(slow), _detection(slow, slow_runs)] if slow else []
    return "\n\n".join([*parts, _rules(groups)])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are texts and whose others are numbers."""
    lines = [header, ["---"] * texts + ["---:"] * (len(header) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _median_and_longest(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.median(values):.0f} ({max(values):.0f})"


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.1%})" if of else "–"


def _equal_sides(groups: Sequence[Group], runs: int) -> str:
    """False alarms of measured and of resampled runs, and which they were."""
    rows, names = [], Counter[str]()
    for group in groups:
        names.update(name for end in group.ends for name in end.worse)
        rows.append(_equal_row("measured", group, group.ends))
        resampled = resampled_runs(group.pool, runs)
        if resampled:
            rows.append(_equal_row(f"resampled from {len(group.pool.starts)} starts", group, resampled))
    header = ["runs of equal sides", "cases", "runs", "with a false alarm (something worse)", "with something better"]
    header += ["cases decided", "starts, median (most)", "seconds, median (longest)"]
    text = _table(header, rows)
    if names:
        text += "\n\nFalse alarms of measured runs: " + ", ".join(f"{name} ({n})" for name, n in names.most_common())
    return text


def _equal_row(what: str, group: Group, ends: Sequence[Ended]) -> list[str]:
    decided, asked = sum(end.decided for end in ends), sum(len(end.ratios) for end in ends)
    return [
        what,
        str(len(group.cases)),
        str(len(ends)),
        _share(sum(bool(end.worse) for end in ends), len(ends)),
        _share(sum(bool(end.better) for end in ends), len(ends)),
        f"{decided / asked:.1%}" if asked else "–",
        _median_and_longest(end.starts for end in ends),
        _median_and_longest(end.seconds for end in ends),
    ]


def _columns(setup: Setup) -> tuple[str, str, str]:
    return setup.where, setup.share, setup.calls


def _slow_downs(groups: Sequence[Group]) -> str:
    header = ["extra work in the", "of a call", "calls per start", "trials", "found", "named correctly"]
    header += ["measured ratio, median", "starts, median (most)", "seconds, median (longest)"]
    rows = []
    for group in groups:
        assert group.setup.fault
        ratios = [end.ratios[case] for end in group.ends for case in group.setup.fault.cases if case in end.ratios]
        rows.append(
            [
                *_columns(group.setup),
                str(len(group.ends)),
                _share(sum(end.found for end in group.ends), len(group.ends)),
                _share(sum(end.named for end in group.ends), len(group.ends)),
                f"{statistics.median(ratios):.3f}" if ratios else "–",
                _median_and_longest(end.starts for end in group.ends),
                _median_and_longest(end.seconds for end in group.ends),
            ]
        )
    return _table(header, rows, texts=3)


def _detection(groups: Sequence[Group], runs: int) -> str:
    """The share of resampled runs that found the slow-down within each number of starts."""
    header = ["extra work in the", "of a call", "calls per start", "starts in the pool"]
    header += [f"found within {count} starts" for count in COUNTS_OF_STARTS]
    rows = []
    for group in groups:
        ends = resampled_runs(group.pool, runs)
        found = [sum(end.found and end.starts <= count for end in ends) for count in COUNTS_OF_STARTS]
        shares = [f"{count / len(ends):.0%}" if ends else "–" for count in found]
        rows.append([*_columns(group.setup), str(len(group.pool.starts)), *shares])
    return _table(header, rows, texts=3)


def _rules(groups: Sequence[Group]) -> str:
    """The share of cases that each rule calls slower, by slow-down."""
    trials = [trial for group in groups for trial in group.trials]
    own = own_verdicts(trials, [end for group in groups for end in group.ends])
    by_rule: dict[str, dict[float, Verdicts]] = {}
    for verdicts in [*own, *other_verdicts(trials)]:
        by_rule.setdefault(verdicts.rule, {})[verdicts.slow_down] = verdicts
    shares = [verdicts.slow_down for verdicts in own]
    rows = [[rule, *(_share_slower(judged.get(share)) for share in shares)] for rule, judged in by_rule.items()]
    return _table(["cases called slower by", *(f"{100 * share:g} %" if share else "A/A" for share in shares)], rows)


def _share_slower(verdicts: Verdicts | None) -> str:
    return f"{verdicts.share_slower:.1%} of {verdicts.counts.total()}" if verdicts else ""
