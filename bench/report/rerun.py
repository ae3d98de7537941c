"""The command that runs one case again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bench.record.record import Record

TIMED = "bench/test_cases.py::test_case"
PICTURED = "golden/test_goldens.py::test_picture"
UPGRADED = "bench/test_upgrade.py::test_upgrade"


def rerun_case(test: str, case: str, options: Sequence[str] = ()) -> str:
    return shlex.join(["pytest", f"{test}[{case}]", *options])


def rerun_record(record: Record, options: Sequence[str] = ()) -> str:
    """Times the case if the record has times; adds ``-m slow`` for a slow case."""
    slow = ["-m", "slow"] if record.settings.get("slow") and "slow" not in options else []
    test = TIMED if record.first_call_s is not None else PICTURED
    return rerun_case(test, record.case, [*options, *slow])
