"""How a run of the check ended: what it called worse, and whether that is what was made slower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.proofs.trials import Fault
from bench.upgrade.measuring import Measured
from bench.upgrade.outcome import Figure
from bench.upgrade.speeds import Speeds
from bench.verdicts import Verdict

WORSE = frozenset({Verdict.SLOWER, Verdict.MORE})
BETTER = frozenset({Verdict.FASTER, Verdict.LESS})


@dataclass(frozen=True)
class Ended:
    """How a run of the check ended.

    Attributes:
        worse, better: the questions with such a verdict.
        decided: how many cases have a verdict on their speed.
        ratios: candidate / baseline of each case.
        slower: the cases that are slower.
        found: a component or a case is slower.
        named: the slower components are all among those with the extra work, and there is one.
    """

    worse: tuple[str, ...]
    better: tuple[str, ...]
    decided: int
    ratios: dict[str, float]
    slower: frozenset[str]
    found: bool
    named: bool
    starts: int
    seconds: float

    def __str__(self) -> str:
        worse = ", ".join(self.worse) or "nothing"
        decided = f"{self.decided} of {len(self.ratios)} cases decided"
        return f"{worse} worse, {decided}, {self.starts} starts, {self.seconds:.0f} s"


def figures_of(speeds: Speeds) -> Iterator[tuple[str, Figure]]:
    """Every question of a run, in words, with its figure."""
    for component, found in speeds.components.items():
        yield str(component), found.figure
    for case, figure in speeds.cases.items():
        yield f"speed of {case}", figure
    for pipeline, figures in speeds.pipelines.items():
        for question, figure in figures.items():
            yield f"{question} of {pipeline}", figure
    for case, figure in speeds.memory.items():
        yield f"memory of {case}", figure
    if speeds.import_time:
        yield "import", speeds.import_time


def ended(measured: Measured, fault: Fault | None = None) -> Ended:
    """How a run with this extra work ended."""
    speeds = measured.speeds
    figures = list(figures_of(speeds))
    slower = {one for one, found in speeds.components.items() if found.figure.verdict == Verdict.SLOWER}
    slower_cases = frozenset(case for case, figure in speeds.cases.items() if figure.verdict == Verdict.SLOWER)
    return Ended(
        worse=tuple(name for name, figure in figures if figure.verdict in WORSE),
        better=tuple(name for name, figure in figures if figure.verdict in BETTER),
        decided=len(speeds.cases) - len(speeds.undecided),
        ratios={case: figure.ratio for case, figure in speeds.cases.items()},
        slower=slower_cases,
        found=bool(slower or slower_cases),
        named=bool(slower) and fault is not None and slower <= fault.components(speeds.samples),
        starts=len(measured.starts),
        seconds=measured.seconds,
    )
