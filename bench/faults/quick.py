"""The cases with the marker ``quick``: the few that detect the known faults."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bench.files import write_atomically
from bench.suite.file import SuiteError

QUICK_FILE = Path(__file__).with_name("quick.json")


def quick_cases(path: Path = QUICK_FILE) -> frozenset[str]:
    """The ids in the file; empty if the file does not exist.

    Raises:
        SuiteError: the file is not a list of ids.
    """
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise SuiteError(f"{path}: not a list of case ids; make it again with 'python -m bench.faults cover'.")
    return frozenset(ids)


def write_quick(ids: Iterable[str], path: Path = QUICK_FILE) -> None:
    write_atomically(path, json.dumps(sorted(ids), indent=2) + "\n")
