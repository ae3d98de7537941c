"""One commit of a bisection, as ``git bisect run`` starts it: ``python -m bench.history.bisect_step FILE``.

The file is a ``StepRequest``. Exit codes are those that git wants: 0 good, 1 bad, 125 cannot be tried, 128 stop.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from bench.frozen import Frozen
from bench.history.bisect_outcome import Step, append_step
from bench.history.commits import git, without_git_variables
from bench.history.question import Answer, Judge, Question
from bench.history.search import BAD, GOOD, SKIP, Undecided
from bench.installs.sides import SideError

EXIT_CODES = {GOOD: 0, BAD: 1, SKIP: 125}
STOP = 128


class StepRequest(Frozen):
    """What a step must know.

    Attributes:
        worktree: of the library, at the commit to be tried.
        alongside: requirements to install with it.
        steps: file to which the step is appended.
    """

    question: Question
    worktree: Path
    alongside: str
    steps: Path


def announce(line: str) -> None:
    print(f"  {line}", flush=True)


def judge_commit(request: StepRequest) -> int:
    """The exit code for the commit that is checked out; the step is noted.

    Raises:
        CommitsError: the worktree is none.
    """
    began = time.monotonic()
    commit = git(request.worktree, "rev-parse", "HEAD")
    git(request.worktree, "clean", "-ffdxq")  # what was built of another commit must not get into this one
    try:
        answer = Judge(request.question, announce).answer(f"{request.worktree} {request.alongside}".strip())
    except SideError as error:
        answer = Answer(answer=SKIP, message=str(error))
    except Undecided as error:
        announce(str(error))
        return STOP
    append_step(request.steps, Step(item=commit, answer=answer, seconds=time.monotonic() - began))
    announce(f"{commit[:10]}: {answer.answer}: {answer.message}")
    return EXIT_CODES[answer.answer]


def main(arguments: list[str]) -> int:
    for name in set(os.environ) - set(without_git_variables()):
        del os.environ[name]
    try:
        return judge_commit(StepRequest.model_validate_json(Path(arguments[0]).read_bytes()))
    except Exception as error:  # Python's own exit code would tell git that the commit is bad
        traceback.print_exc()
        announce(f"stopped: {type(error).__name__}: {error}")
        return STOP


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
