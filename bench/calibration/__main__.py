"""``python -m bench.calibration``: what the measured limits of the goldens detect, and how often they are too narrow.

``detects`` prints, for each group of cases and dtype, the smallest change that is surely detected. ``validate`` leaves
out each kind of evidence in turn and counts how often it is outside the limits from the rest. ``derive`` derives the
limits again from the existing evidence, after a change of the method. ``keep`` stores the grids of a run on another
processor, against which the limits are tested.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.calibration.derivation import NoLimits, derive_limits
from bench.calibration.processors import FOLDER, keep
from bench.calibration.spread import MARGIN
from bench.calibration.validation import leave_each_out
from bench.calls.device import choose_device
from bench.command import CommandParser, run_command
from bench.errors import UsageError
from bench.pictures.limits import OTHER, PORTABLE, STRICT, CalibratedLimits
from bench.pictures.similarity import Limits
from bench.pictures.store import accept_limits, find_golden, read_golden
from bench.suite.case import DTYPES, Case
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import add_case_option, cases_matching

GOLDENS = Path(__file__).parents[2] / "golden"


def calibrated_cases(
    goldens: Path = GOLDENS, suite: Path = SUITE_FILE, expression: str = ""
) -> Iterator[tuple[Case, CalibratedLimits]]:
    """The cases of a suite whose goldens have measured limits.

    Args:
        expression: chooses the cases; see ``cases_matching``.

    Raises:
        GoldenError: a golden is damaged.
        SuiteError: the suite file has a mistake.
        UsageError: the expression chooses no case.
    """
    device = choose_device("cpu")
    for case in cases_matching(read_suite(suite).cases, expression):
        place = find_golden(goldens, case, device)
        limits = read_golden(place).origin.limits if place else None
        if limits:
            yield case, limits


def _detects(expression: str) -> int:
    groups: dict[tuple[str, str, str], list[CalibratedLimits]] = defaultdict(list)
    for case, limits in calibrated_cases(expression=expression):
        key = (case.model.name, case.settings.sentinel or "timed", DTYPES[case.settings.dtype])
        groups[key].append(limits)
    print("Smallest change that is surely detected: median of the cases (loosest case)")
    print("| model | group | dtype | cases | limits for | SSIM below | levels above | shift above |")
    print("| --- | --- | --- | ---: | --- | --- | --- | --- |")
    for (model, group, dtype), members in groups.items():
        tiers: dict[str, list[Limits]] = {
            PORTABLE: [one.portable for one in members],
            OTHER: [one.other for one in members if one.other],
        }
        for tier, found in tiers.items():
            if found:
                gaps = [1 - one.ssim for one in found]
                levels = [one.max_diff for one in found]
                shifts = [one.mean_diff for one in found]
                print(
                    f"| {model} | {group} | {dtype} | {len(found)} | {tier} "
                    f"| {1 - median(gaps):.5f} ({1 - max(gaps):.4f}) | {median(levels):g} ({max(levels)}) "
                    f"| {median(shifts):.2f} ({max(shifts):.2f}) |"
                )
    return 0


def _validate(expression: str) -> int:
    tried: dict[tuple[str, str], int] = defaultdict(int)
    failed: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case, limits in calibrated_cases(expression=expression):
        for one in leave_each_out(case.settings.dtype, limits):
            tried[one.tier, one.kind] += one.count
            failed[one.tier, one.kind] += [case.id] * len(one.outside)
    print("| limits for | left out | observations | outside the limits from the rest |\n| --- | --- | ---: | ---: |")
    for tier in (STRICT, PORTABLE, OTHER):
        for (of_tier, kind), count in tried.items():
            if of_tier == tier:
                print(f"| {tier} | {kind} | {count} | {len(failed[tier, kind])} |")
    for (of_tier, kind), cases in failed.items():
        for case_id in dict.fromkeys(cases):
            print(f"{case_id}: '{kind}' is outside the limits for {of_tier} that follow without it")
    return int(any(failed.values()))


def _derive(expression: str) -> int:
    """Derives all limits again from the evidence in the goldens; nothing is measured."""
    device, changed, problems = choose_device("cpu"), 0, []
    for case, limits in calibrated_cases(expression=expression):
        try:
            derived = derive_limits(case.settings.dtype, limits.evidence, limits.twins)
        except NoLimits as error:
            problems.append(f"{case.id}: {error}")
            continue
        problems += [f"{case.id}: {derived.blind}"] if derived.blind else []
        again = limits.model_copy(
            update={
                "strict": derived.strict,
                "portable": derived.portable,
                "other": derived.other,
                "unstable": derived.unstable,
                "margin": MARGIN,
            }
        )
        if again != limits:
            accept_limits(GOLDENS, case, device, again)
            changed += 1
    print(*problems, f"{changed} goldens have new limits", sep="\n")
    return int(bool(problems))


def _keep(grids: Path, path: Path, name: str) -> int:
    """
    Raises:
        UsageError: no grid there is of a case with a golden.
    """
    count = keep(grids, read_suite(SUITE_FILE).cases, GOLDENS, name, path)
    if not count:
        raise UsageError(f"{grids}: contains no grid of a case with a golden; give the folder grids/ of a run.")
    print(f"{count} cases kept in {path}")
    return 0


_OVER_CASES = {"detects": _detects, "validate": _validate, "derive": _derive}


def run(options: argparse.Namespace) -> int:
    if options.command == "keep":
        return _keep(options.grids, FOLDER / f"{options.slug}.npz", options.name)
    return _OVER_CASES[options.command](options.case)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m bench.calibration", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in _OVER_CASES:
        add_case_option(commands.add_parser(name))
    keeping = commands.add_parser("keep")
    keeping.add_argument("grids", type=Path, help="folder grids/ of a run on that processor")
    keeping.add_argument("slug", help="short name of the file, such as amd-epyc")
    keeping.add_argument("name", help="description of the processor")
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
