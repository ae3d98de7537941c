"""What all cases share: the components of pipelines, and how many times as long each takes on the candidate.

An upgrade slows down a part of a pipeline: its encoder, its denoiser, its scheduler with the pipeline's own Python
around it, its decoder. Cases with the same model, dtype, optimizations and shapes share these components, so what their
calls say is pooled: one ratio per component and start.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import trim_mean

from bench.calls.observe import BETWEEN, DENOISER, REST
from bench.suite.case import Case
from bench.upgrade.lockstep import PairedCall, Segments
from bench.upgrade.start import Pair, Start, pipeline_of

# A segment whose ratio differs by this factor from the middle of its place was hit by something else; it counts, but no
# more than that.
MOST_ODD = 1.5
ENOUGH_CALLS = 3
# Of a denoiser's calls in a start: how many there must be to leave out this share at either end, and how much of their
# time, as a logarithm, would be missed if it were left out every time.
MANY_SEGMENTS = 8
TRIMMED = 0.25
HIDDEN_COST = 0.01
# A network does the same in every case, so it takes more to be odd: so many times the change that matters.
NETWORK_IS_ODD = 3.0
# How many times the usual deviation of a part from that of other cases is beyond noise.
BEYOND_NOISE = 4.0
# Median absolute deviation to standard deviation, of a normal distribution.
MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True, order=True)
class Component:
    """A part of a pipeline as it is called with one shape.

    Attributes:
        scheduler: with its options, where other cases of the pipeline have another one and another ratio, or none has.
            A case instead, where a network is odd in that case alone.
    """

    pipeline: str
    part: str
    shape: tuple[int, ...] = ()
    scheduler: str = ""

    @property
    def name(self) -> str:
        """Without its shape, which rarely distinguishes two components."""
        return f"{self.part} of {self.pipeline}{f' with {self.scheduler}' if self.scheduler else ''}"

    def __str__(self) -> str:
        shape = f" ({' × '.join(map(str, self.shape))})" if self.shape else ""
        return f"{self.name}{shape}"


def short_names(components: Iterable[Component]) -> dict[Component, str]:
    """Each component's name, with its shape only where another one has that name too."""
    components = list(components)
    count = Counter(component.name for component in components)
    return {one: one.name if count[one.name] == 1 else str(one) for one in components}


@dataclass(frozen=True)
class Samples:
    """What all starts say.

    Attributes:
        components: ``log(candidate / baseline)`` of each component, by number of the start.
        parts: of each case, the baseline's seconds in each of its components.
        odd: the parts of cases whose calls contradict those of other cases; see ``odd_parts``.
    """

    components: dict[Component, dict[int, float]] = field(default_factory=dict)
    parts: dict[str, dict[Component, float]] = field(default_factory=dict)
    odd: dict[str, frozenset[str]] = field(default_factory=dict)

    def shares(self, case: str) -> dict[Component, float]:
        """Of the time of a case's call on the baseline; they add up to 1."""
        parts = self.parts[case]
        return {component: seconds / sum(parts.values()) for component, seconds in parts.items()}

    def ratios(self, case: str) -> dict[int, float]:
        """``log(candidate / baseline)`` of a case's call as it follows from its components, by number of the start.

        Only starts in which each of its components was measured, by whichever case.
        """
        shares = self.shares(case)
        starts = set.intersection(*(set(self.components.get(component, {})) for component in shares))
        return {
            start: math.log(sum(share * math.exp(self.components[one][start]) for one, share in shares.items()))
            for start in sorted(starts)
        }


def samples_of(
    starts: Sequence[Start], cases: Iterable[Case], seen: Mapping[str, PairedCall], min_change: float
) -> Samples:
    """Pools what the starts measured of these cases, component by component.

    Args:
        seen: a call of each case before the starts, which shows what it is made of; for a case without one, its first
            call in a start is used.
        min_change: smallest change of a case that matters, as a share.
    """
    known = {case.id: case for case in cases}
    calls = {name: found for name, found in calls_by_case(starts).items() if name in known}
    looks = {name: found[0][1] for name, found in calls.items()} | {name: seen[name] for name in seen if name in known}
    # Calls in starts are measured better than those that drew the pictures, so they settle what is odd.
    evidence = looks | {name: _joined([call for _, call in found]) for name, found in calls.items()}
    odd = odd_parts({name: (pipeline_of(known[name]), call) for name, call in evidence.items()}, min_change)
    labels = _Labels([known[name] for name in looks], odd)
    pairs: dict[Component, dict[int, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for name, found in calls.items():
        for number, of_start in itertools.groupby(found, key=lambda one: one[0]):
            for segments in segments_by_part([call for _, call in of_start]):
                for part, of_part in segments.items():
                    pairs[labels.component(known[name], part, looks[name].shapes)][number] += of_part
    each = {
        component: statistics.fmean(before for found in by_start.values() for before, _ in found)
        for component, by_start in pairs.items()
    }
    parts = {}
    for name, look in looks.items():
        counts = _counts(look)
        made_of = {
            labels.component(known[name], part, look.shapes): (counts[part], took)
            for part, (took, _) in _sums(look).items()
        }
        parts[name] = {one: count * each[one] if one in each else took for one, (count, took) in made_of.items()}
    logs = {component: log_ratios(by_start, component.part) for component, by_start in pairs.items()}
    return Samples(logs, parts, odd)


def log_ratios(by_start: Mapping[int, Sequence[Pair]], part: str) -> dict[int, float]:
    """``log(candidate / baseline)`` of a component, by number of the start.

    Totals are compared. Every call of a denoiser does the same work, so of its many calls in a start the ratios are
    compared, and the quarter with the largest and with the smallest ones is left out: what slows one side for a while
    reaches fewer. That would hide a cost in few of the calls, such as the first one of each picture. So where the
    totals differ from it in the same direction in every start, they count.
    """
    totals = {
        number: math.log(sum(after for _, after in pairs) / sum(before for before, _ in pairs))
        for number, pairs in by_start.items()
    }
    if part != DENOISER or min(map(len, by_start.values())) < MANY_SEGMENTS:
        return totals
    trimmed = {
        number: float(trim_mean([math.log(after / before) for before, after in pairs], TRIMMED))
        for number, pairs in by_start.items()
    }
    gaps = [totals[number] - trimmed[number] for number in totals]
    hidden = len(gaps) >= ENOUGH_CALLS and max(min(gaps), -max(gaps)) > HIDDEN_COST
    return totals if hidden else trimmed


def _joined(calls: Sequence[PairedCall]) -> PairedCall:
    """The segments of several calls as if they were one call."""
    return PairedCall(
        baseline=tuple(segment for call in calls for segment in call.baseline),
        candidate=tuple(segment for call in calls for segment in call.candidate),
    )


class _Labels:
    """Which cases share a component: all of one pipeline and shape, but for what is odd."""

    def __init__(self, cases: Sequence[Case], odd: Mapping[str, frozenset[str]]) -> None:
        self._odd = odd
        self._schedulers: dict[str, set[str]] = defaultdict(set)
        for case in cases:
            self._schedulers[pipeline_of(case)].add(_scheduler(case))

    def component(self, case: Case, part: str, shapes: Mapping[str, tuple[int, ...]]) -> Component:
        around = part in (BETWEEN, REST)
        pipeline = pipeline_of(case)
        label = ""
        if part in self._odd.get(case.id, ()):
            label = _scheduler(case) if around else case.id.partition("/")[2]
        elif around and len(self._schedulers[pipeline]) == 1:
            label = _scheduler(case)
        return Component(pipeline, part, shapes.get(DENOISER if around else part, ()), label)


def _scheduler(case: Case) -> str:
    options = case.settings.options
    return case.settings.scheduler + (f" {json.dumps(options, sort_keys=True)}" if options else "")


def odd_parts(looks: Mapping[str, tuple[str, PairedCall]], min_change: float) -> dict[str, frozenset[str]]:
    """The parts of cases that an upgrade changes in another way than the same part of other cases of the pipeline.

    That is how a scheduler shows that is slower alone, or a table whose cost grows with the steps. Odd is a part whose
    ratio is beyond the noise of the others', and that changes the call by half of ``min_change``, or by several times
    that for a network. The noise of a part falls with the root of its seconds. To find too many costs time and nothing
    else: an odd part gets calls of its own.

    Args:
        looks: of each case, its pipeline and a call on both sides.
    """
    sides: dict[tuple[str, str], dict[str, Pair]] = defaultdict(dict)
    for name, (pipeline, call) in looks.items():
        for part, pair in _sums(call).items():
            sides[pipeline, part][name] = pair
    totals = {name: sum(seconds for _, seconds in call.baseline) for name, (_, call) in looks.items()}
    odd: dict[str, set[str]] = defaultdict(set)
    for (_, part), pairs in sides.items():
        logs = {name: math.log(after / before) for name, (before, after) in pairs.items()}
        middle = statistics.median(logs.values())
        roots = {name: math.sqrt(before) for name, (before, _) in pairs.items()}
        noise = MAD_TO_DEVIATION * statistics.median(abs(log - middle) * roots[name] for name, log in logs.items())
        for name, log in logs.items():
            effect = pairs[name][0] / totals[name] * abs(math.exp(log) - math.exp(middle))
            matters = min_change / 2 if part in (BETWEEN, REST) else NETWORK_IS_ODD * min_change
            if effect > matters and abs(log - middle) > BEYOND_NOISE * noise / roots[name]:
                odd[name].add(part)
    return {name: frozenset(parts) for name, parts in odd.items()}


def calls_by_case(starts: Sequence[Start]) -> dict[str, list[tuple[int, PairedCall]]]:
    """The calls of each case, with the number of their start."""
    found: dict[str, list[tuple[int, PairedCall]]] = defaultdict(list)
    for number, start in enumerate(starts):
        for name, calls in start.calls.items():
            found[name] += [(number, call) for call in calls]
    return found


def segments_by_part(calls: Sequence[PairedCall]) -> list[dict[str, list[Pair]]]:
    """The seconds of each part's segments on both sides, for each call of one case within one start.

    Both sides measure a segment within the same few milliseconds. Where its ratio is odd among the calls, its longer
    side is cut back to ``MOST_ODD`` times what the middle ratio of that place makes of the shorter, so that an
    interruption counts for little, and a place that is slower in every call counts in full. Both sides are cut by the
    same rule, so equal sides stay unbiased. Nothing is cut with fewer than ``ENOUGH_CALLS`` calls, or where calls
    differ in their segments; there, the segments of a part are equally long, and as many as the baseline has.

    A part that only one side has counts as ``REST``.
    """
    layouts = {tuple(part for part, _ in side) for call in calls for side in (call.baseline, call.candidate)}
    if len(layouts) > 1:
        return [_equal_segments(call) for call in calls]
    places = [_cut(place) for place in zip(*map(_pairs, calls), strict=True)]
    found: list[dict[str, list[Pair]]] = []
    for pairs in zip(*places, strict=True):
        by_part: dict[str, list[Pair]] = defaultdict(list)
        for (part, _), pair in zip(calls[0].baseline, pairs, strict=True):
            by_part[part].append(pair)
        found.append(dict(by_part))
    return found


def _equal_segments(call: PairedCall) -> dict[str, list[Pair]]:
    counts = _counts(call)
    return {
        part: [(before / counts[part], after / counts[part])] * counts[part]
        for part, (before, after) in _sums(call).items()
    }


def totals_by_part(calls: Sequence[PairedCall]) -> list[dict[str, Pair]]:
    """As ``segments_by_part``, added up."""
    return [
        {part: (sum(before for before, _ in pairs), sum(after for _, after in pairs)) for part, pairs in call.items()}
        for call in segments_by_part(calls)
    ]


def _pairs(call: PairedCall) -> list[Pair]:
    """Seconds of both sides, segment by segment, of a call whose sides have the same segments."""
    return [(before, after) for (_, before), (_, after) in zip(call.baseline, call.candidate, strict=True)]


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


def _sums(call: PairedCall) -> dict[str, Pair]:
    """The seconds of each part on both sides; what only one side has is added to the rest."""
    before, after = (_by_part(side) for side in (call.baseline, call.candidate))
    for side, other in ((before, after), (after, before)):
        for part in [part for part in side if part not in other]:
            side[REST] += side.pop(part)
    return {part: (before[part], after[part]) for part in before}


def _counts(call: PairedCall) -> Counter[str]:
    """How many segments of the baseline belong to each part that both sides have."""
    both = {part for part, _ in call.candidate}
    return Counter(part if part in both else REST for part, _ in call.baseline)


def _by_part(segments: Segments) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for part, seconds in segments:
        sums[part] += seconds
    return sums
