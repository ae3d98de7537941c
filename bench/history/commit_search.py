"""Which commit between two releases changed a case first?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.history.bisect_outcome import CommitsFound, Step
from bench.history.commits import (
    Commit,
    CommitsError,
    branching_point,
    check_out,
    commit_at,
    commits_between,
    merged_commits,
    worktree_at,
)
from bench.history.question import Answer, Judge, Question
from bench.history.search import BAD, GOOD, SKIP, Narrowed, Undecided, find_change, steps_left
from bench.installs.sides import SideError


@dataclass
class CommitSearch:
    """The search over the commits of a checkout, in a temporary worktree.

    Attributes:
        judge: which has looked at the reference.
        alongside: requirements installed with each commit.
        note: called with all steps so far, after each.
        announce: called with lines on the progress.
    """

    judge: Judge
    repo: Path
    alongside: str
    note: Callable[[tuple[Step, ...]], None]
    announce: Callable[[str], None]
    _steps: list[Step] = field(default_factory=list)

    def between(self, good_tag: str, bad_tag: str) -> CommitsFound:
        """Searches between the tags of a good and a bad release."""
        try:
            narrowed = self._search(good_tag, bad_tag)
        except (CommitsError, Undecided) as error:
            return CommitsFound(good_tag=good_tag, bad_tag=bad_tag, steps=tuple(self._steps), problem=str(error))
        assert narrowed.first_bad, "the search ends with a bad commit"
        possible = () if narrowed.is_found or narrowed.undecided else (*narrowed.between, narrowed.first_bad)
        return CommitsFound(
            good_tag=good_tag,
            bad_tag=bad_tag,
            steps=tuple(self._steps),
            first_bad=str(narrowed.first_bad) if narrowed.is_found else None,
            possible=tuple(map(str, possible)),
            problem=narrowed.undecided,
        )

    def _search(self, good_tag: str, bad_tag: str) -> Narrowed[Commit]:
        """Along first parents, then into the branch whose merge was found."""
        environments = self.judge.question.environments
        environments.mkdir(parents=True, exist_ok=True)
        with (
            worktree_at(self.repo, bad_tag) as worktree,
            tempfile.TemporaryDirectory(prefix="commits-", dir=environments) as folder,
        ):
            # environments of commits are of no use later, so they are not kept in the cache
            question = self.judge.question.model_copy(update={"environments": Path(folder)})

            def look(commit: Commit) -> str:
                return self._look(question, worktree, commit)

            good, bad = commit_at(self.repo, good_tag), commit_at(self.repo, bad_tag)
            commits = commits_between(self.repo, good, bad)
            if not commits:
                raise CommitsError(f"{bad_tag} has no commit that {good_tag} does not have")
            start = branching_point(self.repo, good, bad)
            if start != good and (answer := look(start)) != GOOD:
                what = "is already changed" if answer == BAD else "cannot be tried"
                raise CommitsError(f"{start}, the common ancestor of {good_tag} and {bad_tag}, {what}")
            narrowed, merge = self._narrow((start, *commits), look), None
            while narrowed.is_found and narrowed.first_bad != merge:
                assert narrowed.last_good
                assert narrowed.first_bad
                merge = narrowed.first_bad
                if merged := merged_commits(self.repo, merge):
                    narrowed = self._narrow((narrowed.last_good, *merged, merge), look)
            return narrowed

    def _narrow(self, commits: Sequence[Commit], look: Callable[[Commit], str]) -> Narrowed[Commit]:
        """Searches between a first commit that is known to be good and a last one that is known to be bad."""
        known = {commits[0]: GOOD, commits[-1]: BAD}
        return find_change(
            commits,
            lambda commit: known.get(commit) or look(commit),
            lambda left: self.announce(f"{left} commits left, {steps_left(left)}"),
        )

    def _look(self, question: Question, worktree: Path, commit: Commit) -> str:
        """Raises:
        Undecided: the commit cannot be compared with the reference.
        CommitsError: git cannot check it out.
        """
        began = time.monotonic()
        check_out(worktree, commit)
        # a new judge, since a judge looks at each side once, and here all sides are the same worktree
        judge = Judge(question, self.judge.announce, dict(self.judge.looked))
        try:
            answer = judge.answer(f"{worktree} {self.alongside}".strip())
        except SideError as error:
            answer = Answer(answer=SKIP, message=str(error))
        self._steps.append(Step(item=commit.name, answer=answer, seconds=time.monotonic() - began))
        self.announce(f"{commit}: {answer.answer}: {answer.message}")
        self.note(tuple(self._steps))
        return answer.answer


def describe_commits(found: CommitsFound) -> str:
    """The answer, as the end of the sentence on the releases."""
    if found.first_bad:
        return f"its first such commit is {found.first_bad}"
    if found.possible:
        return f"its commit is one of {', '.join(found.possible)}, since the others could not be tried"
    return f"its commit was not found: {found.problem}"
