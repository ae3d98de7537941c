"""Measures the limits of cases: each harmless variation in a separate process, against the goldens."""

from __future__ import annotations

import datetime
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from bench.calibration.derivation import NoLimits, derive_limits
from bench.calibration.messages import Answer, Assignment, Made, NotHeld
from bench.calibration.processes import NoEffectHere, VariationFailed, run_variation
from bench.calibration.spread import MARGIN, measured
from bench.calibration.variations import ANOTHER_PROCESS, Variation, variations_here
from bench.calls.device import Device, instruction_set
from bench.pictures.check import judge
from bench.pictures.limits import PORTABLE, CalibratedLimits, TwinsMeasured, VariationMeasured, default_limits
from bench.pictures.similarity import Incomparable, compare
from bench.pictures.store import Golden, GoldenError, accept_limits, describe_origin, find_golden, read_golden
from bench.suite.case import Case
from bench.verdicts import Verdict

PROGRESS_EVERY_S = 15.0


@dataclass(frozen=True)
class Calibrated:
    """The result of one case.

    Attributes:
        limits: measured and written; ``None`` if the case could not be calibrated.
        problem: why no limits were written, or that they detect nothing; one sentence, empty if all is well.
        raises: the case raises, and no golden says that it has pictures, so there is nothing to calibrate.
    """

    case: Case
    limits: CalibratedLimits | None = None
    problem: str = ""
    raises: bool = False


@dataclass
class Calibration:
    """Calibrates cases on one device.

    Attributes:
        suite_folder: absolute.
        goldens: the store that is compared with and written to.
        libraries: versions, for the evidence.
        announce: gets the progress, line by line.
        again: measure everything again. Otherwise the evidence in a golden is kept, whichever processor it came from,
            since it is about the same picture; only missing evidence is measured.
    """

    device: Device
    suite_folder: Path
    goldens: Path
    libraries: dict[str, str | None]
    announce: Callable[[str], None] = print
    again: bool = False
    _references: dict[str, list[Image.Image]] = field(default_factory=dict)
    _evidence: dict[str, list[VariationMeasured]] = field(default_factory=dict)
    _twins: dict[str, list[TwinsMeasured]] = field(default_factory=dict)
    _left_out: dict[str, list[str]] = field(default_factory=dict)
    _made_on: dict[str, tuple[str, str]] = field(default_factory=dict)
    _ended: dict[str, Calibrated] = field(default_factory=dict)

    def run(self, cases: Sequence[Case]) -> dict[str, Calibrated]:
        """Measures all cases and writes the limits of each; returns the results by the id of the case."""
        variations, not_here = variations_here(self.device.type, torch.get_num_threads())
        for sentence in not_here:
            self.announce(f"left out: {sentence}")
        self._left_out = {case.id: list(not_here) for case in cases}
        for number, variation in enumerate(variations, start=1):
            chosen = [case for case in cases if case.id not in self._ended and self._wants(variation, case)]
            if chosen:
                self._variation(variation, chosen, f"[{number}/{len(variations)}] {variation.name}")
        for case in cases:
            if case.id not in self._ended:
                self._ended[case.id] = self._limits_of(case)
        return {case.id: self._ended[case.id] for case in cases}

    def _wants(self, variation: Variation, case: Case) -> bool:
        if not variation.applies_to(case):
            return False
        if variation.twins:
            kept = [one for one in self._twins.get(case.id, []) if one.name == variation.name]
            wanted = (variation.twins, variation.roundoff_of(case))
            return all((len(one.ssim), one.roundoff) != wanted for one in kept)
        return all(one.name != variation.name for one in self._evidence.get(case.id, []))

    def _variation(self, variation: Variation, cases: Sequence[Case], title: str) -> None:
        self.announce(f"{title}: {len(cases)} cases ({variation.reason})")
        announced = began = time.monotonic()
        found: dict[str, list[VariationMeasured]] = {}
        try:
            for done, (case, answer) in enumerate(self._answers(variation, cases), start=1):
                measurements = self._take(variation, case, answer)
                if measurements:
                    found[case.id] = measurements
                if time.monotonic() - announced >= PROGRESS_EVERY_S and done < len(cases):
                    announced = time.monotonic()
                    self.announce(f"  {done} of {len(cases)} cases, {announced - began:.0f} s")
        except NoEffectHere as error:
            self._leave_out(variation, cases, f"no effect here: {error}")
            return
        except VariationFailed as error:
            for case in cases:
                self._fail(case, f"not calibrated: '{variation.name}' cannot be run: {error}")
            self.announce(f"  cannot be run: {error}")
            return
        self._count(variation, cases, found, time.monotonic() - began)

    def _answers(self, variation: Variation, cases: Sequence[Case]) -> Iterator[tuple[Case, Answer]]:
        """The answers of the processes of a variation, as they come; processes of one thread share the cores."""
        threads = torch.get_num_threads()
        shares = variation.threads is not None and self.device.type == "cpu"
        count = min(max(1, threads // (variation.threads or threads)), len(cases)) if shares else 1
        longest_first = sorted(cases, key=lambda case: -case.settings.steps * case.settings.images)
        part_of = {case.id: number % count for number, case in enumerate(longest_first)}
        parts = [[case for case in cases if part_of[case.id] == number] for number in range(count)]
        assignments = [
            Assignment(variation.name, tuple(part), threads, str(self.device.torch_device), self.suite_folder)
            for part in parts
        ]
        yield from _side_by_side([run_variation(variation, assignment) for assignment in assignments])

    def _count(
        self, variation: Variation, cases: Sequence[Case], found: dict[str, list[VariationMeasured]], seconds: float
    ) -> None:
        """Takes what a variation did as evidence, unless it changed no case."""
        moved = [one for measurements in found.values() for one in measurements if one.max_diff]
        if not moved and not variation.twins and variation is not ANOTHER_PROCESS:
            self._leave_out(variation, cases, "no effect on any case, so it is no evidence")
            return
        of_id = {case.id: case for case in cases}
        for case_id, measurements in found.items():
            if variation.twins:
                kept = [one for one in self._twins.get(case_id, []) if one.name != variation.name]
                self._twins[case_id] = [*kept, _as_twins(variation.roundoff_of(of_id[case_id]), measurements)]
            else:
                self._evidence.setdefault(case_id, []).extend(measurements)
        worst = f", worst SSIM {min(one.ssim for one in moved):.6f}" if moved else ""
        count = sum(any(one.max_diff for one in measurements) for measurements in found.values())
        self.announce(f"  moved {count} of {len(found)} cases{worst}, {seconds:.0f} s")

    def _leave_out(self, variation: Variation, cases: Sequence[Case], why: str) -> None:
        self.announce(f"  {why}")
        for case in cases:
            self._left_out[case.id].append(f"{variation.name}: {why}")

    def _take(self, variation: Variation, case: Case, answer: Answer) -> list[VariationMeasured]:
        """How far each repeat of the variation moved the case; empty, with the reason noted, if that is unknown."""
        if isinstance(answer, NotHeld):
            self._left_out[case.id].append(f"{variation.name}: {answer.reason}")
            return []
        if variation is ANOTHER_PROCESS and not self._start(case, answer):
            return []
        if not isinstance(answer, Made):
            self._fail(case, f"not calibrated under '{variation.name}': {answer.reason}")
            return []
        try:
            found = [compare(images, self._references[case.id]) for images in answer.grids]
        except Incomparable as error:
            self._fail(case, f"not calibrated: under '{variation.name}' its pictures cannot be compared: {error}")
            return []
        return [measured(variation.name, variation.tier, similarity) for similarity in found]

    def _start(self, case: Case, answer: Answer) -> bool:
        """Chooses the picture that the variations of a case are compared with: the one that this machine makes.

        It must be the golden, or within its limits: then another processor drew the golden, and how far apart the two
        are is evidence too. A case that must match another one is compared with the picture of that case.
        """
        if not isinstance(answer, Made):
            if self._has_pictures(case):
                return True
            self._ended[case.id] = Calibrated(case, raises=True)
            return False
        origin = describe_origin(case, answer.weights, answer.revision, self.device, self.libraries)
        images = answer.grids[0]
        pictures, golden = judge(case, images, origin, self.goldens, self.device)
        near = golden is not None and golden.origin.like and self._is_near(case, images, golden.tiles)
        if golden is None or not (Verdict(pictures.verdict).passes or near):
            word = "not what this machine makes" if pictures.verdict == Verdict.CHANGED else pictures.verdict
            self._fail(case, f"not calibrated, its golden is {word}: {pictures.message.rstrip('.')}.")
            return False
        if golden.known:
            self._fail(case, f"not calibrated, it is known to differ from its golden {golden.known}.")
            return False
        elsewhere = [one["type"] for one in (golden.origin.device, golden.made_on) if one["type"] != self.device.type]
        if elsewhere:
            self._fail(
                case,
                f"not calibrated, its golden was made on {elsewhere[0]}, whose limits another type of device must not "
                "replace; accept a golden of this device with --golden-update first.",
            )
            return False
        if not self.again:
            self._keep(case, golden.origin.limits)
        another_machine = pictures.verdict == Verdict.WITHIN_LIMITS and not golden.origin.like
        self._made_on[case.id] = self._maker(golden) if another_machine else self._here
        self._references[case.id] = images if another_machine else golden.tiles
        if another_machine:
            drawn = measured(f"drawn by {' '.join(self._here)}", PORTABLE, compare(images, golden.tiles))
            others = [one for one in self._evidence.get(case.id, []) if one.name != drawn.name]
            self._evidence[case.id] = [*others, drawn]
        return True

    @property
    def _here(self) -> tuple[str, str]:
        return self.device.name, instruction_set(self.device)

    def _maker(self, golden: Golden) -> tuple[str, str]:
        """The processor that drew a golden, and its instructions, which only an earlier calibration there knows."""
        limits = golden.origin.limits
        known = limits.instruction_set if limits and limits.processor == golden.origin.device["name"] else "unknown"
        return golden.origin.device["name"], known

    def _keep(self, case: Case, limits: CalibratedLimits | None) -> None:
        """Keeps the evidence of an earlier calibration."""
        if limits is None:
            return
        self._evidence[case.id] = [one for one in limits.evidence if one.name != ANOTHER_PROCESS.name]
        self._twins[case.id] = list(limits.twins)

    def _has_pictures(self, case: Case) -> bool:
        place = find_golden(self.goldens, case, self.device)
        try:
            return place is not None and read_golden(place).error is None
        except GoldenError:
            return True

    def _is_near(self, case: Case, images: list[Image.Image], tiles: list[Image.Image]) -> bool:
        """A case that must match another one computes differently, so it may differ as another processor does."""
        try:
            return compare(images, tiles).verdict(default_limits(case.settings.dtype, PORTABLE)) != Verdict.CHANGED
        except Incomparable:
            return False

    def _fail(self, case: Case, problem: str) -> None:
        self._ended[case.id] = Calibrated(case, problem=problem)

    def _limits_of(self, case: Case) -> Calibrated:
        evidence, twins = tuple(self._evidence[case.id]), tuple(self._twins.get(case.id, []))
        try:
            derived = derive_limits(case.settings.dtype, evidence, twins)
        except NoLimits as error:
            return Calibrated(case, problem=str(error))
        limits = CalibratedLimits(
            strict=derived.strict,
            portable=derived.portable,
            other=derived.other,
            unstable=derived.unstable,
            evidence=evidence,
            twins=twins,
            left_out=tuple(self._left_out[case.id]),
            margin=MARGIN,
            processor=self._made_on[case.id][0],
            instruction_set=self._made_on[case.id][1],
            libraries=self.libraries,
            date=datetime.date.today().isoformat(),
        )
        try:
            accept_limits(self.goldens, case, self.device, limits)
        except GoldenError as error:
            return Calibrated(case, problem=str(error))
        return Calibrated(case, limits, derived.blind)


def _as_twins(roundoff: float, measurements: Sequence[VariationMeasured]) -> TwinsMeasured:
    return TwinsMeasured(
        name=measurements[0].name,
        tier=measurements[0].tier,
        roundoff=roundoff,
        ssim=tuple(round(one.ssim, 8) for one in measurements),
        max_diff=tuple(one.max_diff for one in measurements),
        changed_share=tuple(round(one.changed_share, 6) for one in measurements),
        mean_diff=tuple(round(one.mean_diff, 5) for one in measurements),
    )


def _side_by_side(sources: Sequence[Iterator[tuple[Case, Answer]]]) -> Iterator[tuple[Case, Answer]]:
    """The items of several iterators as they come, each read in its own thread."""
    if len(sources) == 1:
        yield from sources[0]
        return
    results: queue.Queue[tuple[Case, Answer] | Exception | None] = queue.Queue()

    def read(source: Iterator[tuple[Case, Answer]]) -> None:
        try:
            for one in source:
                results.put(one)
            results.put(None)
        except Exception as error:  # raised again where the results are read
            results.put(error)

    for source in sources:
        threading.Thread(target=read, args=(source,), daemon=True).start()
    running = len(sources)
    while running:
        result = results.get()
        if isinstance(result, Exception):
            raise result
        if result is None:
            running -= 1
        else:
            yield result
