"""A worker of a study whose results are made up: ``python -m tests.tune.worker_of_study URL NAME SECONDS``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench.tune.search import Shuffled
from bench.tune.study import open_storage, open_study
from tests.tune.made_up import made_up_result, made_up_space


def main(url: str, name: str, seconds: float) -> None:
    """Tries settings until none is left, each for so long; prints each when it begins."""
    space = made_up_space()
    study = open_study(name, Shuffled(space), open_storage(url, Path()), url)
    while claim := study.claim():
        print(claim.case.id, flush=True)
        time.sleep(seconds)
        study.end(claim, made_up_result(claim.case))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
