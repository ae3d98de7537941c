"""One commit of a bisection, as ``git bisect run`` starts it: ``python -m bench.upgrade.bisect_step FILE``.

The file is a ``StepRequest``. Exit codes are those that git wants: 0 good, 1 bad, 125 cannot be tried, 128 stop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.upgrade.bisect_outcome import Step, append_step
from bench.upgrade.commits import without_git_variables
from bench.upgrade.question import Judge, Question
from bench.upgrade.search import BAD, GOOD, SKIP, Undecided

EXIT_CODES = {GOOD: 0, BAD: 1, SKIP: 125}
STOP = 128


class StepRequest(BaseModel):
    """What a step must know.

    Attributes:
        worktree: of the library, at the commit to be tried.
        alongside: requirements to install with it.
        steps: file to which the step is appended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    worktree: Path
    alongside: str
    steps: Path


def announce(line: str) -> None:
    print(f"  {line}", flush=True)


def main(arguments: list[str]) -> int:
    request = StepRequest.model_validate_json(Path(arguments[0]).read_bytes())
    usual = without_git_variables()
    for name in set(os.environ) - set(usual):
        del os.environ[name]
    began = time.monotonic()
    asked = ["git", "-C", str(request.worktree), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    try:
        answer = Judge(request.question, announce).answer(f"{request.worktree} {request.alongside}".strip())
    except Undecided as error:
        announce(str(error))
        return STOP
    append_step(request.steps, Step(item=commit, answer=answer, seconds=time.monotonic() - began))
    announce(f"{commit[:10]}: {answer.answer}: {answer.message}")
    return EXIT_CODES[answer.answer]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
