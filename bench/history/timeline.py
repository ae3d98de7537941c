"""The pictures of all releases of a library, each compared with the release before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.version import Version

from bench.history.choice import Choice
from bench.history.neighbours import Neighbours
from bench.history.release_pictures import Bench, Unusable
from bench.history.timeline_outcome import RAN, TIMELINE, CaseInRelease, ReleaseFound, TimelineFound, write_timeline
from bench.history.timeline_summary import outcome_line
from bench.installs.installed import Environment, changes
from bench.record.folder import RunFolder
from bench.upgrade.pictures import keep_pictures
from bench.upgrade.side_results import SideResult
from bench.verdicts import Verdict

PROGRESS_EVERY_S = 15.0


@dataclass
class Timeline:
    """Runs the cases under each release.

    Attributes:
        requests: with which a worker loads each case.
        folder: where results go; ``timeline.json`` is written after each release.
    """

    choice: Choice
    requests: Mapping[str, dict[str, Any]]
    bench: Bench
    neighbours: Neighbours
    folder: RunFolder
    announce: Callable[[str], None]
    _done: list[ReleaseFound] = field(default_factory=list)
    _last: Environment | None = None

    def run(self) -> TimelineFound:
        for number, release in enumerate(self.choice.releases, start=1):
            place = f"[{number}/{len(self.choice.releases)}] {self.choice.library} {release}"
            self.announce(f"{place}: starting")
            found = self._release(release)
            self._done.append(found)
            write_timeline(self.folder.make() / TIMELINE, self.found())
            self.announce(f"{place}: {outcome_line(found)}, {found.seconds:.0f} s{self._time_left()}")
        return self.found()

    def found(self) -> TimelineFound:
        """The result so far."""
        device = self.choice.device
        return TimelineFound(
            library=self.choice.library,
            span=self.choice.span,
            alongside=self.choice.alongside,
            planned=tuple(map(str, self.choice.releases)),
            cases=tuple(self.requests),
            settings={case: request["settings"] for case, request in self.requests.items()},
            device=str(device.torch_device),
            device_name=device.name,
            releases=tuple(self._done),
        )

    def _release(self, release: Version) -> ReleaseFound:
        began = time.monotonic()
        name = str(release)
        try:
            environment, results = self.bench.pictures(self.choice.side_of(release), self.requests, self._progress())
        except Unusable as error:
            return ReleaseFound(
                release=name,
                status=error.status,
                reason=str(error),
                libraries=error.libraries,
                seconds=time.monotonic() - began,
            )
        cases = self.neighbours.compare(results)
        for case in cases:
            self._keep(name, case, results[case.case])
        self.neighbours.remember(name, results)
        changed = changes(self._last, environment) if self._last else ()
        self._last = environment
        return ReleaseFound(
            release=name,
            status=RAN,
            changes=tuple(map(str, changed)),
            libraries=dict(environment.libraries),
            seconds=time.monotonic() - began,
            cases=cases,
        )

    def _progress(self) -> Callable[[int], None]:
        """Announces how many cases are done, every ``PROGRESS_EVERY_S`` seconds at most."""
        last = time.monotonic()

        def announce(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= PROGRESS_EVERY_S and done < len(self.requests):
                last = time.monotonic()
                self.announce(f"  {done} of {len(self.requests)} cases")

        return announce

    def _time_left(self) -> str:
        left = len(self.choice.releases) - len(self._done)
        took = [release.seconds for release in self._done if release.ran]
        if not left or not took:
            return ""
        minutes, seconds = divmod(round(left * sum(took) / len(took)), 60)
        return f"; about {minutes}:{seconds:02} min left"

    def _keep(self, release: str, case: CaseInRelease, result: SideResult) -> None:
        """Keeps the pictures of both releases if they differ."""
        before = self.neighbours.before(case.case)
        if not before or not result.images or case.verdict == Verdict.IDENTICAL:
            return
        keep_pictures(self.folder, f"{release}/{case.case}", before.result, result)
