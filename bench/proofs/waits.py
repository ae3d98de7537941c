"""How often each scheduler makes the host wait for the device, as a table from ``golden/simulated.json``.

``python -m bench.proofs.waits`` takes the sentinels that call each scheduler with its defaults, and compares the two
calls with the most steps, so that what happens once per call, or in its first or last step, does not count as happening
in each step.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.calls.device_work import DeviceWork
from bench.command import CommandParser, run_command
from bench.console import REPOSITORY
from bench.errors import UsageError
from bench.pictures.simulated_work import read_simulated
from bench.suite.case import Case
from bench.suite.file import read_suite

PROG = "python -m bench.proofs.waits"
GROUP = "schedulers"


@dataclass(frozen=True)
class Waits:
    """Of one scheduler.

    Attributes:
        per_step: by cause, of each further step; a fraction where steps differ.
    """

    scheduler: str
    per_step: Mapping[str, float]

    @property
    def of_steps(self) -> float:
        return sum(self.per_step.values())


def waits_of(scheduler: str, few: tuple[int, DeviceWork], many: tuple[int, DeviceWork]) -> Waits:
    """From two calls that differ in nothing but their steps.

    Args:
        few, many: number of steps and work of each.
    """
    (few_steps, short), (many_steps, long) = few, many
    steps = many_steps - few_steps
    per_step = {cause: (count - short.waits.get(cause, 0)) / steps for cause, count in long.waits.items()}
    return Waits(scheduler, {cause: count for cause, count in per_step.items() if count})


def waits_by_scheduler(cases: Sequence[Case], kept: Mapping[str, DeviceWork], model: str) -> list[Waits]:
    """Those of each scheduler of the model that has two counted cases, the one with most waits per step first."""
    counted: dict[str, dict[int, DeviceWork]] = defaultdict(dict)
    for case in cases:
        settings = case.settings
        if case.model.name == model and settings.sentinel == GROUP and not settings.options and case.id in kept:
            counted[settings.scheduler][settings.steps] = kept[case.id]
    found = [
        waits_of(scheduler, *sorted(by_steps.items())[-2:])
        for scheduler, by_steps in counted.items()
        if len(by_steps) > 1
    ]
    return sorted(found, key=lambda one: (-one.of_steps, one.scheduler))


def table(found: Sequence[Waits]) -> str:
    """In Markdown."""
    lines = ["| scheduler | waits per step | causes |", "|---|---:|---|"]
    for one in found:
        causes = ", ".join(f"{cause} {count:.3g}" for cause, count in sorted(one.per_step.items()))
        lines.append(f"| {one.scheduler} | {one.of_steps:.3g} | {causes} |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """
    Raises:
        BenchError: nothing was counted for this model.
    """
    found = waits_by_scheduler(read_suite().cases, read_simulated(options.golden_dir), options.model)
    if not found:
        raise UsageError(
            f"--model {options.model}: no scheduler of it was counted with two numbers of steps; count with "
            "pytest -m golden --device sim --golden-update."
        )
    print(table(found))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="emoji-sd", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--golden-dir", type=Path, default=REPOSITORY / "golden", metavar="FOLDER", help="(default: golden/)"
    )
    return run_command(PROG, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
