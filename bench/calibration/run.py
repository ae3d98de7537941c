"""Measures the limits of cases: each harmless variation in a process of its own, against the goldens."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from bench.calibration.messages import Answer, Made, NotHeld, Task
from bench.calibration.processes import NoEffectHere, VariationFailed, run_variation
from bench.calibration.spread import MARGIN, is_blind, limits_from, measured, spread_of
from bench.calibration.variations import PLAIN, Variation, variations_here
from bench.device import Device, instruction_set
from bench.golden_store import GoldenError, accept_limits, describe_origin, find_golden, read_golden
from bench.goldens import CHANGED, IDENTICAL, PASSED, judge
from bench.limits import PORTABLE, STRICT, CalibratedLimits, VariationMeasured, default_limits
from bench.similarity import Incomparable, compare
from bench.suite import Case

TELL_EVERY_S = 15.0


@dataclass(frozen=True)
class Calibrated:
    """What came of one case.

    Attributes:
        limits: measured and written; ``None`` if the case could not be calibrated.
        problem: why not, or that it is blind; one sentence, empty if all is well.
        raises: the case raises, and no golden says that it has pictures, so there is nothing to be calibrated.
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
        announce: told of the progress.
    """

    device: Device
    suite_folder: Path
    goldens: Path
    libraries: dict[str, str | None]
    announce: Callable[[str], None] = print
    _references: dict[str, list[Image.Image]] = field(default_factory=dict)
    _evidence: dict[str, list[VariationMeasured]] = field(default_factory=dict)
    _left_out: dict[str, list[str]] = field(default_factory=dict)
    _ended: dict[str, Calibrated] = field(default_factory=dict)

    def run(self, cases: Sequence[Case]) -> dict[str, Calibrated]:
        """Measures all cases and writes the limits of each; what came of it, by the case's id."""
        variations, not_here = variations_here(self.device.type, torch.get_num_threads())
        for sentence in not_here:
            self.announce(f"left out: {sentence}")
        self._left_out = {case.id: list(not_here) for case in cases}
        for number, variation in enumerate(variations, start=1):
            chosen = [case for case in cases if case.id not in self._ended and variation.applies_to(case)]
            if chosen:
                self._variation(variation, chosen, f"[{number}/{len(variations)}] {variation.name}")
        for case in cases:
            if case.id not in self._ended:
                self._ended[case.id] = self._limits_of(case)
        return {case.id: self._ended[case.id] for case in cases}

    def _variation(self, variation: Variation, cases: Sequence[Case], title: str) -> None:
        self.announce(f"{title}: {len(cases)} cases ({variation.reason})")
        told = began = time.monotonic()
        task = Task(
            variation.name, tuple(cases), torch.get_num_threads(), str(self.device.torch_device), self.suite_folder
        )
        found: dict[str, VariationMeasured] = {}
        try:
            for done, (case, answer) in enumerate(run_variation(variation, task), start=1):
                similarity = self._take(variation, case, answer)
                if similarity:
                    found[case.id] = similarity
                if time.monotonic() - told >= TELL_EVERY_S and done < len(cases):
                    told = time.monotonic()
                    self.announce(f"  {done} of {len(cases)} cases, {told - began:.0f} s")
        except NoEffectHere as error:
            self._leave_out(variation, cases, f"no effect here: {error}")
            return
        except VariationFailed as error:
            for case in cases:
                self._fail(case, f"not calibrated: '{variation.name}' cannot be run: {error}")
            self.announce(f"  cannot be run: {error}")
            return
        self._count(variation, cases, found, time.monotonic() - began)

    def _count(
        self, variation: Variation, cases: Sequence[Case], found: dict[str, VariationMeasured], seconds: float
    ) -> None:
        """Takes what a variation did as evidence, unless it did nothing to any case."""
        moved = [one for one in found.values() if one.max_diff]
        if not moved and variation is not PLAIN:
            self._leave_out(variation, cases, "no effect on any case, so it is no evidence")
            return
        for case_id, one in found.items():
            self._evidence.setdefault(case_id, []).append(one)
        worst = f", worst SSIM {min(one.ssim for one in moved):.6f}" if moved else ""
        self.announce(f"  moved {len(moved)} of {len(found)} cases{worst}, {seconds:.0f} s")

    def _leave_out(self, variation: Variation, cases: Sequence[Case], why: str) -> None:
        self.announce(f"  {why}")
        for case in cases:
            self._left_out[case.id].append(f"{variation.name}: {why}")

    def _take(self, variation: Variation, case: Case, answer: Answer) -> VariationMeasured | None:
        """How far the variation moved the case; ``None`` if that cannot be told, which is noted."""
        if isinstance(answer, NotHeld):
            self._left_out[case.id].append(f"{variation.name}: {answer.reason}")
            return None
        if variation is PLAIN and not self._start(case, answer):
            return None
        if not isinstance(answer, Made):
            self._fail(case, f"not calibrated under '{variation.name}': {answer.reason}")
            return None
        try:
            similarity = compare(answer.images, self._references[case.id])
        except Incomparable as error:
            self._fail(case, f"not calibrated: under '{variation.name}' its pictures are others: {error}")
            return None
        return measured(variation.name, variation.tier, similarity)

    def _start(self, case: Case, answer: Answer) -> bool:
        """Looks whether the golden is what this machine makes, else nothing could be measured against it."""
        if not isinstance(answer, Made):
            if self._has_pictures(case):
                return True
            self._ended[case.id] = Calibrated(case, raises=True)
            return False
        origin = describe_origin(case, answer.weights, answer.revision, self.device, self.libraries)
        pictures, golden = judge(case, answer.images, origin, self.goldens, self.device)
        # Kernels of accelerators may add in another order each time; a processor must repeat itself to the bit.
        enough = {IDENTICAL} if self.device.type == "cpu" else PASSED
        alike = golden is not None and golden.origin.like and self._is_near(case, answer.images, golden.tiles)
        if golden is None or (pictures.verdict not in enough and not alike):
            word = "not what this machine makes" if pictures.verdict in {CHANGED, *PASSED} else pictures.verdict
            self._fail(case, f"not calibrated, its golden is {word}: {pictures.message.rstrip('.')}.")
            return False
        self._references[case.id] = golden.tiles
        return True

    def _has_pictures(self, case: Case) -> bool:
        place = find_golden(self.goldens, case, self.device)
        try:
            return place is not None and read_golden(place).origin.error is None
        except GoldenError:
            return True

    def _is_near(self, case: Case, images: list[Image.Image], tiles: list[Image.Image]) -> bool:
        """A case that must be like another computes in another way, so it may differ as another processor does."""
        try:
            return compare(images, tiles).verdict(default_limits(case.settings.dtype, PORTABLE)) != CHANGED
        except Incomparable:
            return False

    def _fail(self, case: Case, problem: str) -> None:
        self._ended[case.id] = Calibrated(case, problem=problem)

    def _limits_of(self, case: Case) -> Calibrated:
        evidence = self._evidence[case.id]
        limits = CalibratedLimits(
            strict=limits_from(spread_of(evidence, STRICT)),
            portable=limits_from(spread_of(evidence, PORTABLE)),
            evidence=tuple(evidence),
            left_out=tuple(self._left_out[case.id]),
            margin=MARGIN,
            processor=self.device.name,
            instruction_set=instruction_set(self.device),
            libraries=self.libraries,
            date=datetime.date.today().isoformat(),
        )
        try:
            accept_limits(self.goldens, case, self.device, limits)
        except GoldenError as error:
            return Calibrated(case, problem=str(error))
        if not is_blind(limits.portable):
            return Calibrated(case, limits)
        worst = spread_of(evidence, PORTABLE)
        return Calibrated(
            case,
            limits,
            f"blind: '{worst.name}' alone moves it to SSIM {worst.ssim:.4f}, so a wrong picture can hide within its "
            "limits on other machines; change its settings, or measure it elsewhere.",
        )
