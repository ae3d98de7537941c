"""What an upgrade check found, as it is written to ``upgrade.json``.

Schema: ``upgrade.schema.json``, written by ``python -m bench.upgrade.outcome``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from bench.files import write_atomically
from bench.frozen import Frozen
from bench.pictures.compared import ComparedPictures
from bench.record.groups import Group
from bench.upgrade.decision import Decision
from bench.verdicts import Verdict

UPGRADE = "upgrade.json"
# What no single case is about, among problems and counts.
IMPORT, COMPONENTS = "import", "components"
SCHEMA_FILE = Path(__file__).with_name("upgrade.schema.json")


class Figure(Frozen):
    """One question that was measured: speed, load, first call, import or memory; a start of both sides is a sample."""

    verdict: str = Field(description="slower, faster, same or cannot tell; memory: more, less, same or cannot tell")
    ratio: float = Field(description="candidate / baseline, geometric mean over the starts")
    low: float = Field(description="lower end of its confidence interval")
    high: float | None = Field(description="upper end; null while it has none")
    min_change: float = Field(description="smallest change that counts, as a share")
    pairs: int = Field(description="starts of both sides that it was measured in")
    pair_ratios: tuple[float, ...] = Field(default=(), description="candidate / baseline of each start")
    more_pairs: int | None = Field(default=None, description="of 'cannot tell': starts that would still be needed")
    baseline: float | None = Field(default=None, description="median of the baseline, seconds or bytes")
    candidate: float | None = Field(default=None, description="median of the candidate, seconds or bytes")

    @classmethod
    def of(
        cls,
        decision: Decision,
        min_change: float,
        baseline: float | None = None,
        candidate: float | None = None,
        pair_ratios: Sequence[float] = (),
    ) -> Figure:
        return cls(
            verdict=decision.verdict,
            ratio=decision.ratio,
            low=decision.low,
            high=None if math.isinf(decision.high) else decision.high,
            min_change=min_change,
            pairs=decision.starts,
            pair_ratios=tuple(pair_ratios),
            more_pairs=decision.more_starts,
            baseline=baseline,
            candidate=candidate,
        )

    @property
    def interval(self) -> str:
        """Such as ``-0.8 … +1.4 %``, the change with its interval's ends."""
        if self.high is None:
            return "unknown"
        return f"{100 * (self.low - 1):+.1f} … {100 * (self.high - 1):+.1f} %"


class PicturesFound(ComparedPictures):
    """How the candidate's pictures compare with the baseline's, from the same seeds on the same machine."""

    verdict: str = Field(
        description="identical, within limits, changed, broken, raises now, works now, raises something else, "
        "raises as before, nothing compared or not repeatable"
    )


class WorkFound(Frozen):
    """What one call of a case does on both sides, counted and not timed."""

    verdict: str = Field(description="same work, more work or less work")
    message: str = Field(description="the verdict with what is more or less, and by how much")
    baseline: dict[str, Any] = Field(
        description="operators and host_syncs by name, copies, copied_bytes, peak_bytes, unet_calls, flops, tokens"
    )
    candidate: dict[str, Any]


class CaseFound(Frozen):
    """One case on both sides."""

    case: str
    settings: dict[str, Any]
    pictures: PicturesFound
    unet_calls: tuple[int | None, int | None] = Field(description="of the baseline and of the candidate")
    new_warnings: tuple[str, ...] = Field(
        validation_alias=AliasChoices("new_warnings", "new_notices"),
        description="warnings that only the candidate gave",
    )
    work: WorkFound | None = None
    work_reason: str | None = Field(default=None, description="why work is null, if it should not be")
    speed: Figure | None = Field(default=None, description="time of a call, steady")
    speed_reason: str | None = Field(default=None, description="why speed is null, if it should not be")
    odd_parts: tuple[str, ...] = Field(
        default=(), description="parts whose ratio is not that of other cases, so that they are components of their own"
    )
    unsteady: tuple[str, ...] = Field(
        default=(), description="sides whose pictures differ from call to call, or that failed once, a sentence each"
    )
    checksums: tuple[str, str] = Field(default=("", ""), description="of the output of each side")
    load: Figure | None = None
    first_call: Figure | None = None
    memory: Figure | None = None
    memory_reason: str | None = Field(default=None, description="why memory is null")
    seconds: float = Field(description="wall time that the case took")

    @property
    def figures(self) -> dict[str, Figure]:
        named = {
            "speed": self.speed,
            "load": self.load,
            "first call": self.first_call,
            "memory": self.memory,
        }
        return {name: figure for name, figure in named.items() if figure}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is worse than it was, a sentence each; the test of the case fails if there is any."""
        found = [self.pictures.message] if Verdict(self.pictures.verdict).is_worse else []
        found += [
            f"{name}: {figure.verdict} by {abs(figure.ratio - 1):.1%} ({figure.interval}, {figure.pairs} starts)"
            for name, figure in self.figures.items()
            if Verdict(figure.verdict).is_worse
        ]
        if self.work and Verdict(self.work.verdict).is_worse:
            found.append(self.work.message)
        if self.speed_reason:
            found.append(f"speed: {Verdict.NOT_COMPARED}: {self.speed_reason}")
        return tuple(found)


class ComponentFound(Frozen):
    """A part of a pipeline that cases share, timed over all of their calls."""

    name: str
    part: str = Field(description="encoder, denoiser, decoder; between calls: the scheduler and the pipeline; or rest")
    pipeline: str = Field(description="model, dtype and optimizations")
    shape: tuple[int, ...] = Field(description="of what it is called with")
    scheduler: str = Field(default="", description="with its options; empty for a network")
    figure: Figure = Field(description="baseline and candidate: seconds in a call of the case where they are fewest")
    share: tuple[float, float] = Field(description="smallest and largest share of the time of its cases' calls")
    effect: tuple[float, float] = Field(description="by how much its ratio changes the time of these calls, as a share")
    cases: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Such as ``decoder of emoji-sd in float32: 1.42 ×, which makes its calls 3.1 to 9.0 % slower``."""
        low, high = sorted(100 * abs(effect) for effect in self.effect)
        word = "slower" if self.figure.ratio > 1 else "faster"
        span = f"{high:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        calls = "its calls" if len(self.cases) > 1 else f"calls of {self.cases[0]}"
        return f"{self.name}: {self.figure.ratio:.2f} ×, which makes {calls} {span} % {word}"


def slower_components(components: Iterable[ComponentFound]) -> list[ComponentFound]:
    """Those that take longer, the one with the largest effect first."""
    worse = [one for one in components if Verdict(one.figure.verdict).is_worse]
    return sorted(worse, key=lambda one: -max(one.effect))


class SideFound(Frozen):
    asked: str
    libraries: dict[str, str]


class UpgradeFound(Frozen):
    """The whole check. Times are seconds, memory bytes, ratios candidate / baseline."""

    schema_version: int = Field(default=1, alias="schema", serialization_alias="schema")
    baseline: SideFound
    candidate: SideFound
    changes: tuple[str, ...] = Field(description="libraries that differ, such as 'diffusers 0.41.0 → 0.42.1'")
    device: str
    device_name: str
    mode: str = Field(description="duet (both at once) or alternate; 'pictures' where nothing was timed")
    budget_s: float = Field(description="of measuring, for all cases together")
    min_change: float
    min_component_change: float | None = Field(
        default=None, description="smallest change of a component that fails although it changes no call by min_change"
    )
    error_rate: float | None = Field(
        default=None, description="how often, at most, a run of two equal sides calls anything slower or larger"
    )
    questions: int | None = Field(default=None, description="how many verdicts share that rate")
    import_time: Figure | None = None
    components: tuple[ComponentFound, ...] = ()
    cases: tuple[CaseFound, ...]
    groups: tuple[Group, ...] = Field(default=(), description="cases that are worse in the same way, worst first")

    @property
    def problems(self) -> dict[str, tuple[str, ...]]:
        """What is worse, by case."""
        found = {case.case: case.problems for case in self.cases if case.problems}
        figure = self.import_time
        if figure and Verdict(figure.verdict).is_worse:
            found[IMPORT] = (f"import: {figure.verdict} by {figure.ratio - 1:.1%} ({figure.interval})",)
        if self.slower_components:
            found[COMPONENTS] = tuple(one.sentence for one in self.slower_components)
        return found

    @property
    def slower_components(self) -> list[ComponentFound]:
        """Those that take longer, the one with the largest effect first."""
        return slower_components(self.components)

    def counts(self) -> dict[str, Counter[str]]:
        """How often each verdict was given, by question."""
        counted: dict[str, Counter[str]] = {"pictures": Counter(case.pictures.verdict for case in self.cases)}
        for case in self.cases:
            if case.work:
                counted.setdefault("work", Counter())[case.work.verdict] += 1
            for name, figure in case.figures.items():
                counted.setdefault(name, Counter())[figure.verdict] += 1
        if self.import_time:
            counted[IMPORT] = Counter([self.import_time.verdict])
        if self.components:
            counted[COMPONENTS] = Counter(one.figure.verdict for one in self.components)
        return counted


def side_found(asked: str, libraries: Mapping[str, str]) -> SideFound:
    return SideFound(asked=asked, libraries=dict(sorted(libraries.items())))


def write_upgrade(path: Path, found: UpgradeFound) -> None:
    write_atomically(path, found.model_dump_json(by_alias=True, indent=2) + "\n")


def read_upgrade(path: Path) -> UpgradeFound:
    return UpgradeFound.model_validate_json(path.read_bytes())


def worst_cases(found: UpgradeFound, count: int = 3) -> Sequence[str]:
    """The problems of the worst cases, pictures before times."""

    def badness(case: CaseFound) -> tuple[bool, float]:
        ssim = case.pictures.ssim_worst_tile
        return not Verdict(case.pictures.verdict).is_worse, -1.0 if ssim is None else ssim

    bad = sorted((case for case in found.cases if case.problems), key=badness)
    return [f"{case.case}: {'; '.join(case.problems)}" for case in bad[:count]]


def schema() -> str:
    return json.dumps(UpgradeFound.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema())
    print(f"wrote {SCHEMA_FILE}")
