"""Which release of a library changed a case first? Tries about log2(n) of the n releases in a range.

``tox run -e bisect -- diffusers 0.34.0..0.42.1 --case emoji-ddpm/ddpm-s100-bf16`` is
``python -m bench.history.bisect diffusers 0.34.0..0.42.1 --case emoji-ddpm/ddpm-s100-bf16``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from bench.command import FAILED, CommandParser, run_command
from bench.console import announce
from bench.errors import UsageError
from bench.history.bisect_outcome import BisectFound, CommitsFound, Step, write_bisect
from bench.history.choice import GOLDENS, Choice, Requests, add_options, parse_options, read_choice
from bench.history.commit_search import CommitSearch, describe_commits
from bench.history.commits import tag_of
from bench.history.question import PICTURES, SPEED, USABLE, Answer, Judge, Question
from bench.history.release_pictures import Unusable
from bench.history.search import Narrowed, find_change, steps_left
from bench.pictures.check import limits_side_by_side
from bench.record.folder import RunFolder, new_run_name
from bench.suite.selection import add_case_option, case_matching
from bench.upgrade.amounts import percent, seconds
from bench.upgrade.pictures import keep_pictures
from bench.upgrade.side_results import SideResult

PROG = "bisect"


@dataclass
class Bisection:
    """The search over the releases.

    Attributes:
        folder: for results; ``bisect.json`` is written after each step.
    """

    choice: Choice
    judge: Judge
    folder: RunFolder
    announce: Callable[[str], None]
    _steps: list[Step] = field(default_factory=list)

    def search(self) -> Narrowed[Version]:
        looks = 2 + max(0, math.ceil(math.log2(len(self.choice.releases) - 1)))
        self.announce(f"{len(self.choice.releases)} releases, about {looks} of them to try")
        return find_change(self.choice.releases, self._judge, self._announce_left)

    def _announce_left(self, left: int) -> None:
        self.announce(f"{left} releases left, {steps_left(left)}")

    def _judge(self, release: Version) -> str:
        began = time.monotonic()
        self.announce(f"{self.choice.library} {release}")
        answer = self.judge.answer(self.choice.side_of(release))
        self._steps.append(Step(item=str(release), answer=answer, seconds=time.monotonic() - began))
        self.announce(f"{self.choice.library} {release}: {answer.answer}: {answer.message}")
        self.write(self.found(None))
        return answer.answer

    def answer_of(self, release: Version | None) -> Answer | None:
        """The answer for a release."""
        return next((step.answer for step in self._steps if step.item == str(release)), None)

    def found(self, narrowed: Narrowed[Version] | None) -> BisectFound:
        """The result so far."""
        device = self.choice.device
        return BisectFound(
            library=self.choice.library,
            span=self.choice.span,
            alongside=self.choice.alongside,
            case=self.judge.question.case,
            by=self.judge.question.by,
            releases=tuple(map(str, self.choice.releases)),
            device=str(device.torch_device),
            device_name=device.name,
            steps=tuple(self._steps),
            last_good=_text(narrowed.last_good) if narrowed else None,
            first_bad=_text(narrowed.first_bad) if narrowed else None,
            between=tuple(map(str, narrowed.between)) if narrowed else (),
        )

    def write(self, found: BisectFound) -> None:
        write_bisect(self.folder.make() / "bisect.json", found)

    def keep(self, narrowed: Narrowed[Version]) -> None:
        """Keeps the pictures under the reference and under the first release that differs."""
        if narrowed.first_bad is None or self.judge.question.by != PICTURES:
            return
        sides = [self.judge.look(self.choice.side_of(one)) for one in (self.choice.releases[0], narrowed.first_bad)]
        before, after = (side if isinstance(side, SideResult) else SideResult() for side in sides)
        keep_pictures(self.folder, self.judge.question.case, before, after)


def _text(release: Version | None) -> str | None:
    return None if release is None else str(release)


def describe(bisection: Bisection, narrowed: Narrowed[Version]) -> str:
    """The answer in one sentence."""
    choice, question = bisection.choice, bisection.judge.question
    library, first, last = choice.library, choice.releases[0], choice.releases[-1]
    if narrowed.first_bad is None and narrowed.undecided:
        return f"nothing is known about {question.case} from {library} {first} to {last}: {narrowed.undecided}"
    answer = bisection.answer_of(last if narrowed.first_bad is None else narrowed.first_bad)
    assert answer, "the ends, and what the search found, were judged"
    if narrowed.first_bad is None:
        return f"nothing changed: {question.case} is the same under {library} {first} and {last} ({answer.message})"
    what = {PICTURES: f"changed {question.case}", SPEED: f"slowed {question.case}", USABLE: "changed"}[question.by]
    because = f"({answer.message}; compared with {first})"
    if narrowed.is_found:
        return f"{library} {narrowed.first_bad} is the first release that {what} {because}"
    left = ", ".join(map(str, narrowed.between))
    why = f"the search stopped there: {narrowed.undecided}" if narrowed.undecided else f"{left} could not be tried"
    return (
        f"a release after {library} {narrowed.last_good}, {narrowed.first_bad} at the latest, {what} {because}; {why}"
    )


def _option(read: Callable[[str], float]) -> Callable[[str], float]:
    def value(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return value


def _parser(*, several: bool = False) -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    add_options(parser, several=several)
    add_case_option(parser, required=True)
    parser.add_argument(
        "--by",
        choices=(PICTURES, SPEED),
        default=PICTURES,
        help="what to look for: pictures (also a case that raises or works now) or speed (default: pictures)",
    )
    parser.add_argument("--exact", action="store_true", help="differences within the limits count too")
    parser.add_argument("--repo", type=Path, metavar="PATH", help="continue over the commits of this checkout")
    parser.add_argument(
        "--min-change",
        type=_option(percent),
        default=0.03,
        metavar="PERCENT",
        help="smallest change of speed that counts (default: 3%%)",
    )
    parser.add_argument(
        "--budget",
        type=_option(seconds),
        default=60.0,
        metavar="SECONDS",
        help="time to compare the speed of one release (default: 60s)",
    )
    return parser


def start_judge(question: Question, choice: Choice) -> Judge:
    """A judge that has looked at both ends; if only one of them is usable, usability becomes the question.

    Raises:
        UsageError: neither end can be used, the process of one was lost, or one has no speed to compare.
    """
    judge = Judge(question, announce)
    ends = {}
    for release in (choice.releases[0], choice.releases[-1]):
        announce(f"{choice.library} {release}: an end of the range")
        ends[release] = judge.look(choice.side_of(release))
    broken = {release: end for release, end in ends.items() if isinstance(end, Unusable)}
    if len(broken) == len(ends):
        reasons = "; ".join(f"{release} is {end.status}: {end}" for release, end in broken.items())
        raise UsageError(
            f"neither end of {choice.library} {choice.span} can be used; give another range, or matching libraries by "
            f"--with ({reasons})"
        )
    if question.by == SPEED:
        for release, end in ends.items():
            reason = str(end) if isinstance(end, Unusable) else end.error
            if reason:
                raise UsageError(f"{question.case} has no speed under {choice.library} {release}: {reason}")
        return judge
    if broken:
        judge = Judge(question.model_copy(update={"by": USABLE}), announce, judge.looked)
    for release, end in ends.items():
        if reason := judge.loss(end):
            raise UsageError(
                f"nothing is known about {question.case} under {choice.library} {release}: {reason}; run again, or "
                "give another range"
            )
    return judge


def run(options: argparse.Namespace) -> int:
    """Raises:
    BenchError: an option is wrong, or something that it names is not available.
    """
    choice = read_choice(options, every=True)
    case = case_matching(choice.suite.cases, options.case)
    if options.repo:
        _check_repo(options.repo, choice)
    question = Question(
        case=case.id,
        request=Requests(choice.suite, choice.device).of(case),
        limits=limits_side_by_side(GOLDENS, case, choice.device),
        reference=choice.side_of(choice.releases[0]),
        by=options.by,
        exact=options.exact,
        min_change=options.min_change,
        budget_s=options.budget,
        device=str(choice.device.torch_device),
        environments=choice.environments,
    )
    bisection = Bisection(choice, start_judge(question, choice), RunFolder(choice.results, new_run_name()), announce)
    narrowed = bisection.search()
    sentence = describe(bisection, narrowed)
    bisection.keep(narrowed)
    found = bisection.found(narrowed).model_copy(update={"sentence": sentence})
    bisection.write(found)
    if options.repo and narrowed.first_bad is not None and narrowed.last_good is not None:
        announce(f"{sentence}; continuing over its commits")
        good, bad = (tag_of(options.repo, choice.library, str(one)) for one in (narrowed.last_good, narrowed.first_bad))

        def note(steps: tuple[Step, ...]) -> None:
            commits = CommitsFound(good_tag=good, bad_tag=bad, steps=steps)
            bisection.write(found.model_copy(update={"commits": commits}))

        search = CommitSearch(bisection.judge, options.repo, choice.alongside, note, announce)
        commits = search.between(good, bad)
        sentence = f"{sentence}; {describe_commits(commits)}"
        bisection.write(found.model_copy(update={"commits": commits, "sentence": sentence}))
    announce(f"{sentence}.")
    announce(f"results: {bisection.folder.path}")
    return FAILED if narrowed.undecided else 0


def _check_repo(repo: Path, choice: Choice) -> None:
    """Raises:
    CommitsError: it is not a checkout, or it has no tag for an end of the range.
    """
    for release in (choice.releases[0], choice.releases[-1]):
        tag_of(repo, choice.library, str(release))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(_parser, arguments)
    return run_command(PROG, run, options)


if __name__ == "__main__":
    sys.exit(main())
