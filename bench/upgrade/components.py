"""What all cases share: the components of pipelines, and how many times as long each takes on the candidate.

An upgrade slows down a part of a pipeline: its encoder, its denoiser, its scheduler with the pipeline's own Python
around it, its decoder. Cases with the same model, dtype, optimizations and shapes share these components, so what their
calls say is pooled: one ratio per component and start.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.calls.observe import BETWEEN, DENOISER, REST
from bench.suite.case import Case
from bench.upgrade.lockstep import PairedCall
from bench.upgrade.start import Pair, Start, pipeline_of

# A segment whose ratio differs by this factor from the middle of its place was hit by something else; it counts, but no
# more than that.
MOST_ODD = 1.5
ENOUGH_CALLS = 3


@dataclass(frozen=True, order=True)
class Component:
    """A part of a pipeline as it is called with one shape.

    Attributes:
        scheduler: with its options; empty for a network, which is the same with any.
    """

    pipeline: str
    part: str
    shape: tuple[int, ...] = ()
    scheduler: str = ""

    @property
    def name(self) -> str:
        """Without its shape, which seldom tells two components apart."""
        return f"{self.part} of {self.pipeline}{f' with {self.scheduler}' if self.scheduler else ''}"

    def __str__(self) -> str:
        shape = f" ({' × '.join(map(str, self.shape))})" if self.shape else ""
        return f"{self.name}{shape}"


def short_names(components: Iterable[Component]) -> dict[Component, str]:
    """Each component's name, with its shape only where another one has that name too."""
    components = list(components)
    count = Counter(component.name for component in components)
    return {one: one.name if count[one.name] == 1 else str(one) for one in components}


def component_of(case: Case, part: str, shapes: Mapping[str, tuple[int, ...]]) -> Component:
    """The component that a part of a case's call belongs to.

    Args:
        shapes: of what the parts are called with.
    """
    if part not in (BETWEEN, REST):
        return Component(pipeline_of(case), part, shapes.get(part, ()))
    options = case.settings.options
    scheduler = case.settings.scheduler + (f" {json.dumps(options, sort_keys=True)}" if options else "")
    return Component(pipeline_of(case), part, shapes.get(DENOISER, ()), scheduler)


@dataclass(frozen=True)
class Samples:
    """What all starts say.

    Attributes:
        components: ``log(candidate / baseline)`` of each component, by number of the start.
        parts: of each case, the baseline's seconds in each of its components, mean over its calls.
        calls: of each case, its whole calls: number of the start and seconds of both sides.
    """

    components: dict[Component, dict[int, float]] = field(default_factory=dict)
    parts: dict[str, dict[Component, float]] = field(default_factory=dict)
    calls: dict[str, list[tuple[int, Pair]]] = field(default_factory=dict)

    def shares(self, case: str) -> dict[Component, float]:
        """Of the time of a case's call on the baseline; they add up to 1."""
        parts = self.parts[case]
        return {component: seconds / sum(parts.values()) for component, seconds in parts.items()}

    def ratios(self, case: str) -> dict[int, float]:
        """``log(candidate / baseline)`` of a case's call as it follows from its components, by number of the start.

        Only starts in which each of its components was measured, by whichever case.
        """
        shares = self.shares(case)
        starts = set.intersection(*(set(self.components[component]) for component in shares))
        return {
            start: math.log(sum(share * math.exp(self.components[one][start]) for one, share in shares.items()))
            for start in sorted(starts)
        }


def samples_of(starts: Sequence[Start], cases: Iterable[Case]) -> Samples:
    """Pools what the starts measured of these cases, component by component."""
    known = {case.id: case for case in cases}
    sums: dict[Component, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    parts: dict[str, dict[Component, float]] = defaultdict(lambda: defaultdict(float))
    whole: dict[str, list[tuple[int, Pair]]] = defaultdict(list)
    for name, calls in _calls(starts).items():
        if name not in known:
            continue
        case = known[name]
        for (number, call), totals in zip(calls, totals_by_part([call for _, call in calls]), strict=True):
            for part, (before, after) in totals.items():
                component = component_of(case, part, call.shapes)
                sums[component][number][0] += before
                sums[component][number][1] += after
                parts[name][component] += before / len(calls)
            sides = list(totals.values())
            whole[name].append((number, (sum(side[0] for side in sides), sum(side[1] for side in sides))))
    for number, start in enumerate(starts):
        for pipeline in start.pipelines:
            for name, pairs in pipeline.whole_calls.items():
                if name in known:
                    whole[name] = [one for one in whole[name] if one[0] != number] + [(number, pair) for pair in pairs]
    logs = {
        component: {number: math.log(after / before) for number, (before, after) in by_start.items()}
        for component, by_start in sums.items()
    }
    return Samples(logs, {name: dict(found) for name, found in parts.items()}, dict(whole))


def _calls(starts: Sequence[Start]) -> dict[str, list[tuple[int, PairedCall]]]:
    """The calls of each case, with the number of their start."""
    found: dict[str, list[tuple[int, PairedCall]]] = defaultdict(list)
    for number, start in enumerate(starts):
        for pipeline in start.pipelines:
            for name, calls in pipeline.calls.items():
                found[name] += [(number, call) for call in calls]
    return found


def totals_by_part(calls: Sequence[PairedCall]) -> list[dict[str, Pair]]:
    """The seconds of each part on both sides, for each call of one case.

    Both sides measure a segment within the same few milliseconds. Where its ratio is odd among the calls, its longer
    side is cut back to ``MOST_ODD`` times what the middle ratio of that place makes of the shorter, so that an
    interruption counts for little, and a place that is slower in every call counts in full. Both sides are cut by the
    same rule, so equal sides stay unbiased. Nothing is cut with fewer than ``ENOUGH_CALLS`` calls, or where calls
    differ in their segments.

    A part that only one side has counts as ``REST``.
    """
    layouts = {tuple(part for part, _ in side) for call in calls for side in (call.baseline, call.candidate)}
    by_call = [_pairs(call) for call in calls]
    if len(layouts) == 1:
        places = [_cut(place) for place in zip(*by_call, strict=True)]
        by_call = [list(call) for call in zip(*places, strict=True)]
    return [_sums(call, pairs) for call, pairs in zip(calls, by_call, strict=True)]


def _pairs(call: PairedCall) -> list[Pair]:
    """Seconds of both sides, segment by segment; meaningless where the sides differ in their segments."""
    return [(before, after) for (_, before), (_, after) in zip(call.baseline, call.candidate, strict=False)]


def _cut(place: Sequence[Pair]) -> Sequence[Pair]:
    if len(place) < ENOUGH_CALLS:
        return place
    middle = math.exp(_middle(place))
    return [(min(before, after * MOST_ODD / middle), min(after, before * MOST_ODD * middle)) for before, after in place]


def _middle(pairs: Sequence[Pair]) -> float:
    """The median of ``log(after / before)``, weighted by the shorter of the two, which nothing interrupted."""
    half = sum(map(min, pairs)) / 2
    for value, weight in sorted((math.log(after / before), min(before, after)) for before, after in pairs):
        half -= weight
        if half <= 0:
            return value
    raise ValueError("no segments")


def _sums(call: PairedCall, pairs: Sequence[Pair]) -> dict[str, Pair]:
    layout = [part for part, _ in call.baseline]
    if layout == [part for part, _ in call.candidate]:
        before, after = (_by_part(layout, seconds) for seconds in zip(*pairs, strict=True))
    else:
        before, after = (_by_part(*zip(*side, strict=True)) for side in (call.baseline, call.candidate))
        for side, other in ((before, after), (after, before)):
            for part in [part for part in side if part not in other]:
                side[REST] += side.pop(part)
    return {part: (before[part], after[part]) for part in before}


def _by_part(parts: Iterable[str], seconds: Iterable[float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for part, took in zip(parts, seconds, strict=True):
        sums[part] += took
    return sums
