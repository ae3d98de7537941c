"""Each finding of an upgrade check as soon as it is made, in ``upgrade.jsonl``: an interrupted check can continue.

Lines are objects: ``check`` (what is compared, the first line), ``case`` with its ``call``, or ``start``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bench.console import shown
from bench.errors import UsageError
from bench.files import append_line, read_lines
from bench.frozen import Frozen
from bench.suite.case import Case
from bench.upgrade.lockstep import PairedCall
from bench.upgrade.outcome import CaseFound
from bench.upgrade.start import Start

JOURNAL = "upgrade.jsonl"


class Compared(Frozen):
    """What a check compares; findings of two checks belong together only if all of this is equal.

    Attributes:
        libraries: of the baseline and the candidate.
        origins: of libraries that are no releases: commit, or hash of what is installed.
    """

    libraries: tuple[dict[str, str], dict[str, str]]
    origins: tuple[dict[str, str], dict[str, str]]
    device: str
    device_name: str
    threads: int


@dataclass
class Journal:
    """The findings so far. Without a path, they are kept in memory alone."""

    path: Path | None = None
    cases: dict[str, CaseFound] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    seen: dict[str, PairedCall] = field(default_factory=dict)

    def found(self, case: Case) -> CaseFound | None:
        """Pictures and work of a case, unless its settings have changed since."""
        found = self.cases.get(case.id)
        same = found and found.settings == case.settings.recorded()
        return found if same else None

    def add_case(self, found: CaseFound, call: PairedCall | None = None) -> None:
        """Adds what was found of a case, and the call that it was found in where that shows its parts."""
        self.cases[found.case] = found
        if call:
            self.seen[found.case] = call
        self._append({"case": found.model_dump(mode="json"), "call": call.model_dump(mode="json") if call else None})

    def add_start(self, start: Start) -> None:
        self.starts.append(start)
        self._append({"start": start.model_dump(mode="json")})

    def _append(self, line: dict[str, object]) -> None:
        if self.path:
            append_line(self.path, json.dumps(line))


def new_journal(path: Path, compared: Compared) -> Journal:
    append_line(path, json.dumps({"check": compared.model_dump(mode="json")}))
    return Journal(path)


def read_journal(path: Path, compared: Compared) -> Journal:
    """The journal of an interrupted check, to be continued.

    Raises:
        UsageError: the file is missing or damaged, or it compares something else.
    """
    journal = Journal(path)
    try:
        first, *lines = (json.loads(line) for line in read_lines(path))
        before = Compared.model_validate(first["check"])
        for line in lines:
            if "case" in line:
                found = CaseFound.model_validate(line["case"])
                journal.cases[found.case] = found
                if line.get("call"):
                    journal.seen[found.case] = PairedCall.model_validate(line["call"])
            else:
                journal.starts.append(Start.model_validate(line["start"]))
    except OSError as error:
        raise UsageError(f"--resume: {shown(path)} cannot be read ({error.strerror or error}).") from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--resume: {shown(path)} is damaged ({reason}); start the check again.") from None
    if before != compared:
        raise UsageError(
            f"--resume: {shown(path)} is of another check ({_difference(before, compared)}); give the same options, "
            "or leave out --resume."
        )
    return journal


def different_origins(path: Path, other: Path) -> str | None:
    """The first thing in which the sides of two checks differ, in words; ``None`` if nothing, or if it is not known.

    Args:
        path, other: the journals of the checks.
    """
    try:
        before, now = (Compared.model_validate(json.loads(read_lines(one)[0])["check"]) for one in (path, other))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return None if before == now else _difference(before, now)


def _difference(before: Compared, now: Compared) -> str:
    """The first thing in which two checks differ."""
    then, today = before.model_dump(), now.model_dump()
    key = next(key for key in then if then[key] != today[key])
    if key in ("libraries", "origins"):
        for side, was, is_ in zip(("baseline", "candidate"), then[key], today[key], strict=True):
            for name in sorted({*was, *is_}):
                if was.get(name) != is_.get(name):
                    return f"{name} of the {side} was {was.get(name)} and is {is_.get(name)}"
    return f"{key} was {then[key]} and is {today[key]}"
