"""Tries one setting after the other until the time is up, and ends with the front."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from bench.errors import BenchError
from bench.pictures.grids import make_grid
from bench.record.folder import RunFolder
from bench.tune.errors import TuneError
from bench.tune.finals import measure_in_turns, ranked
from bench.tune.front import Pick, front_of, picks_of, undominated
from bench.tune.result import Timed, Tried, with_new_times
from bench.tune.study import Claim, Study
from bench.tune.trial import Studio

# Of the budget, for measuring the front again.
FINAL_SHARE = 0.2
# A front with more settings than these is thinned before it is measured again.
MOST_FINALISTS = 16
# A setting that is this much slower than one of the front, and as good, may change places with it.
NEARLY = 1.05


@dataclass
class Worker:
    """One process of a study.

    Attributes:
        budget_s: of search and measuring again; ``None`` tries every setting.
    """

    studio: Studio
    study: Study
    folder: RunFolder
    budget_s: float | None
    min_quality: float
    announce: Callable[[str], None]
    max_seconds: float | None = None
    rng: random.Random = field(default_factory=random.Random)
    _began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def references(self) -> list[Image.Image]:
        """The pictures of the reference, drawn once per study and machine."""
        case = self.studio.space.reference
        kept = self.folder.path / "reference"
        count = self.studio.space.tuning.pictures
        files = [kept / f"{number:02}.png" for number in range(count)]
        if not all(file.exists() for file in files):
            self.announce(f"drawing {count} pictures of the reference, {case.id}")
            self.folder.make()
            kept.mkdir(exist_ok=True)
            for file, image in zip(files, self.studio.draw(case), strict=True):
                image.save(file)
        return [Image.open(file).convert("RGB") for file in files]

    def search(self, references: Sequence[Image.Image]) -> None:
        """Tries settings until the time for them is up, or none is left.

        Raises:
            TuneError: the storage is gone, or the user's measure fails.
            KeyboardInterrupt: the setting that was being tried is free again.
        """
        until = None if self.budget_s is None else self.budget_s * (1 - FINAL_SHARE)
        number = 0
        while until is None or self.seconds < until:
            claim = self.study.claim()
            if claim is None:
                self.announce("the search ends: no other setting promises to improve the front")
                break
            number += 1
            self.announce(
                f"[{number}] {claim.case.id.partition('/')[2]}: {self._try(claim, references)}{self._left(until)}"
            )

    def _left(self, until: float | None) -> str:
        return "" if until is None else f"; {max(0.0, until - self.seconds):.0f} s left"

    def _try(self, claim: Claim, references: Sequence[Image.Image]) -> str:
        try:
            with self.study.alive(claim):
                tried = self.studio.try_case(claim.case, references)
        except TuneError:
            self.study.release(claim)
            raise
        except BenchError as error:
            return self._failed(claim, str(error))
        except Exception as error:  # whatever the libraries raise for a combination that nobody tried before
            return self._failed(claim, f"{type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[0]}")
        except BaseException:
            self.study.release(claim)
            raise
        self.study.end(claim, tried)
        return described(tried, self.min_quality)

    def _failed(self, claim: Claim, reason: str) -> str:
        self.study.fail(claim, reason)
        return f"cannot be used: {reason}"

    def front(self) -> list[Timed]:
        """The front, measured again in turns; empty if no setting is acceptable.

        A setting that another one beats by its new time is left out, unless their times cannot be distinguished.
        """
        tried = self.study.tried()
        finalists = finalists_of(tried, self.min_quality)
        if not finalists:
            return []
        cases = [self.studio.space.cases[one.case] for one in finalists]
        share = self.budget_s * FINAL_SHARE if self.budget_s is not None else 60 * len(cases)
        timed = measure_in_turns(self.studio.time, cases, share, self.rng, self.announce)
        return unbeaten(timed, {one.case: one.quality for one in finalists})

    def save_pictures(self, front: Sequence[Timed], references: Sequence[Image.Image]) -> None:
        """The grids of the front and of the reference, for the report."""
        self.folder.save_picture(self.studio.space.reference.id, make_grid(references, references[0].size))
        for timed in front:
            case = self.studio.space.cases[timed.case]
            images = self.studio.draw(case)
            self.folder.save_picture(case.id, make_grid(images, images[0].size))

    def picks(self, front: Sequence[Timed], tried: Sequence[Tried]) -> list[Pick]:
        start = next((one for one in tried if one.case == self.studio.space.start.id), None)
        return picks_of(with_new_times(tried, front), start, self.max_seconds)


def described(tried: Tried, min_quality: float) -> str:
    """A trial in one line."""
    much = f"{1000 * tried.seconds:.0f} ms per picture, quality {tried.quality:.3f}"
    if not tried.complete or tried.quality < min_quality:
        return f"{much}, below {min_quality:g}"
    return much


def finalists_of(tried: Sequence[Tried], min_quality: float) -> list[Tried]:
    """The front and what may turn out to belong to it; of very many, those whose quality differs most."""
    front = front_of(tried, min_quality)
    near = [
        one
        for one in tried
        if one.complete and one.quality >= min_quality and one not in front and not _is_beaten(one, front)
    ]
    chosen = sorted([*front, *near], key=lambda one: one.seconds)
    while len(chosen) > MOST_FINALISTS:
        gaps = [after.quality - before.quality for before, after in zip(chosen, chosen[2:], strict=False)]
        del chosen[1 + gaps.index(min(gaps))]
    return chosen


def _is_beaten(one: Tried, front: Sequence[Tried]) -> bool:
    """Whether a setting of the front is as good, and faster by more than what measuring again may change."""
    return any(other.quality >= one.quality and other.seconds * NEARLY < one.seconds for other in front)


def unbeaten(timed: Sequence[Timed], quality: dict[str, float]) -> list[Timed]:
    """Those that no faster one beats in quality, each compared with the next slower one that is left."""
    kept = undominated(timed, lambda one: (one.seconds, quality[one.case]))
    return ranked({one.case: list(one.samples_s) for one in kept})
