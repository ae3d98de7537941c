"""What each case asks of the simulated accelerator, as accepted: one file beside the goldens.

A simulated accelerator draws the pictures of a processor, so it has no goldens. What it alone knows is how a real one
would be used: kernels, copies to and from the host, waits that leave it idle.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from bench.calls.device import Device
from bench.calls.device_work import DeviceWork
from bench.calls.work import Work
from bench.calls.work_verdict import compare_work
from bench.console import shown
from bench.files import write_atomically
from bench.pictures.check import Check, check_golden, verdict_of_case
from bench.pictures.compared import ComparedWork
from bench.pictures.store import SIMULATED, GoldenError, Origin
from bench.suite.case import Case
from bench.verdicts import Verdict

_KEPT = TypeAdapter(dict[str, DeviceWork])


def read_simulated(root: Path) -> dict[str, DeviceWork]:
    """The accepted work of each case, by id; empty without a file.

    Raises:
        GoldenError: the file is damaged.
    """
    path = root / SIMULATED
    try:
        return _KEPT.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise GoldenError(f"{shown(path)}: not the work of cases ({reason}); restore the file.") from None


def accept_simulated(root: Path, case: Case, work: DeviceWork) -> None:
    """Adds the work of a case to the file, or replaces it; a crash leaves the old file or the new one.

    Raises:
        GoldenError: the file is damaged or cannot be written.
    """
    path = root / SIMULATED
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(Path(tempfile.gettempdir()) / f"golden-simulated-{os.getuid()}.lock"):
            kept = {**read_simulated(root), case.id: work}
            lines = (f"{json.dumps(name)}: {_line(kept[name])}" for name in sorted(kept))
            write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as error:
        reason = error.strerror or error
        raise GoldenError(
            f"{shown(path)}: not written ({reason}); free disk space or make the folder writable."
        ) from None


def _line(work: DeviceWork) -> str:
    return TypeAdapter(DeviceWork).dump_json(work).decode()


def check_simulated(
    case: Case,
    images: list[Image.Image],
    origin: Origin,
    root: Path,
    device: Device,
    *,
    update: bool = False,
    announce: Callable[[str], None] = print,
) -> Check:
    """Pictures against the golden of another device, and the counted work against what was accepted.

    Args:
        update: whether work that is not the same is accepted. No picture is ever written, and no run passes by what it
            wrote.

    Raises:
        GoldenError: the file of the accepted work is damaged, or cannot be written.
    """
    check = check_golden(case, images, origin, root, device, announce=announce)
    work = Work.from_json(origin.work) if origin.work else None
    if work is None or work.on_device is None:
        return check
    found = _judged(case, work, root)
    verdict = verdict_of_case(check.pictures, found)
    if update and found.verdict != Verdict.SAME_WORK:
        accept_simulated(root, case, work.on_device)
        verdict = verdict_of_case(check.pictures, found, accepted=True)
        announce(f"wrote {shown(root / SIMULATED)} ({case.id}: {found.message})")
        found = found.model_copy(update={"message": "accepted; run again without --golden-update to check it"})
    return replace(check, work=found, verdict=verdict)


def _judged(case: Case, work: Work, root: Path) -> ComparedWork:
    known = read_simulated(root).get(case.id)
    if known is None:
        verdict, message = Verdict.MISSING, f"{shown(root / SIMULATED)} has no such case; add it with --golden-update"
    else:
        compared = compare_work(work, replace(work, on_device=known))
        verdict, message = compared.verdict, compared.message
    return ComparedWork(verdict=verdict, message=message, counts=work.to_json())


def unused_simulated(root: Path, cases: Iterable[Case]) -> list[str]:
    """Entries of the file that belong to no case of the suite."""
    known = {case.id for case in cases}
    try:
        return [f"{shown(root / SIMULATED)} ({name})" for name in read_simulated(root) if name not in known]
    except GoldenError:  # its cases say what is wrong
        return []
