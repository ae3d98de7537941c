"""From the samples of all starts to a verdict on every component, every case and every pipeline of the run.

What is promised: an install that is compared with itself is called slower, or to need more memory, in at most
``ERROR_RATE_OF_RUN`` of the runs, whatever number of questions a run asks and whenever it stops. Each question gets an
equal share of that rate (Bonferroni, which holds however the questions depend on each other), and its interval is a
confidence sequence at that share; see ``confidence.half_width`` for its source. It assumes that the ratios of the
starts are independent and normal; ``bench/proofs/README.md`` shows how often the verdicts are wrong with measured ones.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.suite.case import Case
from bench.upgrade.components import Component, Samples, samples_of, short_names
from bench.upgrade.decision import Question, decide, exactly
from bench.upgrade.lockstep import PairedCall
from bench.upgrade.outcome import ComponentFound, Figure
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.start import Pair, Start, pipeline_of
from bench.verdicts import Verdict

ERROR_RATE_OF_RUN = 0.01
# Loading, importing and the first call happen once per process, so their ratios are spread more widely.
MIN_CHANGE_ONCE = 0.2
# What is no speed of a case is not worth more than this many further starts.
WORTH_STARTS = 6
LOAD, FIRST_CALL, MEMORY, SPEED = "load", "first call", "memory", "speed"
# Peaks that differ by no more are the same: an allocator counts them, and does not measure.
SAME_PEAK = 1e-3


@dataclass(frozen=True)
class Speeds:
    """The verdicts on what was measured.

    Attributes:
        cases: speed of each case.
        pipelines: load, first call and, on a processor, memory of each pipeline.
        memory: of each case, on an accelerator.
        questions: how many share the error rate of the run.
    """

    samples: Samples
    components: dict[Component, ComponentFound] = field(default_factory=dict)
    cases: dict[str, Figure] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Figure]] = field(default_factory=dict)
    memory: dict[str, Figure] = field(default_factory=dict)
    import_time: Figure | None = None
    questions: int = 0

    def figures_of(self, case: Case) -> dict[str, Figure]:
        """What is known of a case, by name of the question; empty for a case that was not measured."""
        of_case = {SPEED: self.cases, MEMORY: self.memory}
        found = self.pipelines[pipeline_of(case)] if case.id in self.cases else {}
        return found | {name: figures[case.id] for name, figures in of_case.items() if case.id in figures}

    @property
    def undecided(self) -> list[str]:
        """Cases whose speed is still undecided; where times mean nothing, those whose memory is."""
        figures = self.cases or self.memory
        return [case for case, figure in figures.items() if figure.verdict == Verdict.CANNOT_TELL]


def judge(
    starts: Sequence[Start],
    cases: Iterable[Case],
    plan: ComparisonPlan,
    seen: Mapping[str, PairedCall] | None = None,
) -> Speeds:
    """The verdicts after these starts; may be asked after every start.

    Args:
        seen: a call of each case before the starts; see ``samples_of``.
    """
    samples = samples_of(starts, cases, seen or {}, plan.min_change)
    shares: dict[Component, dict[str, float]] = defaultdict(dict)
    for case in samples.parts:
        for component, share in samples.shares(case).items():
            shares[component][case] = share
    ratios = {case: logs for case in samples.parts if (logs := samples.ratios(case))}
    processes = _by_pipeline(starts)
    if not plan.times:
        peaks = Question(plan.min_change, ERROR_RATE_OF_RUN / max(1, len(ratios)), Verdict.MORE, Verdict.LESS)
        return Speeds(samples, memory=_memory_by_case(starts, peaks), questions=len(ratios))
    questions = len(samples.components) + len(ratios) + 3 * len(processes) + 1
    alarm_rate = ERROR_RATE_OF_RUN / questions
    names = short_names(sorted(samples.components))
    once = Question(MIN_CHANGE_ONCE, alarm_rate)
    speed = Question(plan.min_change, alarm_rate)
    peaks = Question(plan.min_change, alarm_rate, Verdict.MORE, Verdict.LESS)
    return Speeds(
        samples=samples,
        components={
            one: _component(one, samples, shares[one], plan, alarm_rate, name=name) for one, name in names.items()
        },
        cases={
            case: _case(list(logs.values()), sum(samples.parts[case].values()), speed) for case, logs in ratios.items()
        },
        pipelines={
            name: {
                LOAD: figure([one.load_s for one in found], once),
                FIRST_CALL: figure([one.first_call_s for one in found], once),
                **_memory([one.peak_bytes for one in found], peaks),
            }
            for name, found in processes.items()
        },
        memory=_memory_by_case(starts, peaks),
        import_time=figure([start.import_s for start in starts], once) if starts else None,
        questions=questions,
    )


def figure(pairs: Sequence[Pair], question: Question) -> Figure:
    """The verdict on something that each start gives one pair of, baseline and candidate."""
    logs = [math.log(after / before) for before, after in pairs]
    before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure.of(decide(logs, question), question.min_change, before, after, list(map(math.exp, logs)))


def _memory(pairs: Sequence[tuple[int | None, int | None]], question: Question) -> dict[str, Figure]:
    known = [(before, after) for before, after in pairs if before and after]
    if not known:
        return {}
    logs = [math.log(after / before) for before, after in known]
    if len(logs) < 2 or max(logs) - min(logs) > SAME_PEAK:
        return {MEMORY: figure(known, question)}
    before, after = (statistics.median(side) for side in zip(*known, strict=True))
    decision = exactly(statistics.fmean(logs), question, len(logs))
    return {MEMORY: Figure.of(decision, question.min_change, before, after, list(map(math.exp, logs)))}


def _by_pipeline(starts: Sequence[Start]) -> dict[str, list]:
    found: dict[str, list] = {}
    for start in starts:
        for one in start.pipelines:
            found.setdefault(one.pipeline, []).append(one)
    return found


def _memory_by_case(starts: Sequence[Start], question: Question) -> dict[str, Figure]:
    """From the peaks of each case's calls, the first of each start."""
    found: dict[str, list[tuple[int | None, int | None]]] = {}
    for start in starts:
        for case, calls in start.calls.items():
            found.setdefault(case, []).append(calls[0].peak_bytes)
    return {case: memory[MEMORY] for case, pairs in found.items() if (memory := _memory(pairs, question))}


def _component(
    component: Component,
    samples: Samples,
    shares: Mapping[str, float],
    plan: ComparisonPlan,
    alarm_rate: float,
    *,
    name: str,
) -> ComponentFound:
    """A component matters by what it does to a call, and beyond ``min_component_change`` in any case.

    Args:
        shares: of the time of each case's call.
    """
    largest = max(shares.values())
    min_change = min(plan.min_component_change, plan.min_change / largest)
    logs = [samples.components[component][start] for start in sorted(samples.components[component])]
    decision = decide(logs, Question(min_change, alarm_rate))
    seconds = [samples.parts[case][component] for case in shares]
    return ComponentFound(
        name=name,
        part=component.part,
        pipeline=component.pipeline,
        shape=component.shape,
        scheduler=component.scheduler,
        figure=Figure.of(decision, min_change, min(seconds), min(seconds) * decision.ratio, list(map(math.exp, logs))),
        share=(min(shares.values()), largest),
        effect=tuple(share * (decision.ratio - 1) for share in (min(shares.values()), largest)),
        cases=tuple(sorted(shares)),
    )


def _case(logs: Sequence[float], before: float, question: Question) -> Figure:
    decision = decide(logs, question)
    return Figure.of(decision, question.min_change, before, before * decision.ratio, list(map(math.exp, logs)))


def next_cases(cases: Sequence[Case], found: Speeds) -> list[Case]:
    """The cheapest cases whose calls bring what is undecided nearer to a verdict; none if nothing is worth more time.

    The speed of every case is worth more time; a component only if it looks changed.
    """
    parts = found.samples.parts
    wanted = {component for component, one in found.components.items() if _looks_changed(one.figure)}
    for case in cases:
        if case.id in parts and (case.id not in found.cases or case.id in found.undecided):
            wanted |= set(parts[case.id])
    by_cost = sorted((case for case in cases if case.id in parts), key=lambda case: seconds_of(case, found))
    chosen: list[Case] = []
    for component in sorted(wanted, key=lambda one: (not one.scheduler, one)):  # those of one scheduler cover networks
        if not any(component in parts[case.id] for case in chosen):
            chosen += [case for case in by_cost if component in parts[case.id]][:1]
    return chosen


def next_loads(cases: Sequence[Case], found: Speeds, reached: Collection[str]) -> list[Case]:
    """A case of each pipeline that is not ``reached`` and whose load, first call or memory looks changed."""
    by_pipeline = {pipeline_of(case): case for case in cases}
    return [
        by_pipeline[pipeline]
        for pipeline, figures in found.pipelines.items()
        if pipeline in by_pipeline and pipeline not in reached and any(map(_looks_changed, figures.values()))
    ]


def _looks_changed(figure: Figure) -> bool:
    """Whether something undecided may well be a change that matters, and some more starts would say so.

    It looks like half of that change, beyond two standard errors.
    """
    change = abs(math.log(figure.ratio))
    if figure.verdict != Verdict.CANNOT_TELL or change < math.log1p(figure.min_change) / 2:
        return False
    if figure.more_pairs is None or figure.more_pairs > WORTH_STARTS:
        return False
    logs = list(map(math.log, figure.pair_ratios))
    return len(logs) < 2 or change >= 2 * statistics.stdev(logs) / math.sqrt(len(logs))


def seconds_of(case: Case, found: Speeds) -> float:
    """What a call of the case takes on the baseline."""
    return sum(found.samples.parts.get(case.id, {}).values())
