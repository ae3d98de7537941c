"""Goldens for the settings that were chosen, so that an upgrade check guards them from then on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.calls.device import Device
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder
from bench.run import GoldenPolicy, Run
from bench.suite.file import Suite


def write_goldens(suite: Suite, root: Path, device: Device, announce: Callable[[str], None]) -> None:
    """The pictures and the counted work of each case of a suite, as goldens that are still to be looked at."""
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        run = Run(
            device=device,
            folder=RunFolder(Path(folder), "run"),
            goldens=GoldenPolicy(root, update="auto"),
            suite_folder=suite.file.parent,
            environment=describe_environment(device, suite.file.parent),
            announce=announce,
        )
        for number, case in enumerate(suite.cases, start=1):
            run.picture(case)
            announce(f"[{number}/{len(suite.cases)}] {case.id}: golden written")
