"""``python -m bench.proofs.closed_form``: checks the schedulers against goldens, or accepts what they give now."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import diffusers

from bench.command import CommandParser, run_command
from bench.proofs.closed_form.goldens import (
    GOLDENS,
    describe_origin,
    read_goldens,
    read_limits,
    read_origin,
    write_goldens,
)
from bench.proofs.closed_form.moments import SAMPLERS, STEPS, propagate
from bench.proofs.closed_form.moments import measured_order as of_moments
from bench.proofs.closed_form.outcomes import FLOORS, ILL_CONDITIONED, Outcome, compare, measured_limit, outcome
from bench.proofs.closed_form.sampling import NotInDiffusers
from bench.proofs.closed_form.settings import all_settings
from bench.proofs.closed_form.truth import METHODS, error, measured_order

PROGRESS_EVERY_S = 15.0


def _check(accept: bool, path: Path) -> int:
    goldens, limits, accepted = read_goldens(path), read_limits(path), dict[str, Outcome]()
    settings = all_settings()
    changed = unknown = 0
    started = time.process_time()
    for name, setting in settings.items():
        golden = goldens.get(name)
        try:
            now = outcome(setting)
        except NotInDiffusers as missing:
            unknown += 1
            print(f"{name}: cannot be checked, {missing}")
            if golden is not None:
                accepted[name] = golden
            continue
        difference = compare(setting, now, golden, limits.get(name)) if golden is not None else None
        accepted[name] = now if golden is None or difference else golden
        if golden is None:
            print(f"{name}: new")
        elif difference:
            print(f"{name}: {difference.sentence}")
        changed += golden is None or difference is not None
    for name in sorted(goldens.keys() - settings.keys()):
        print(f"{name}: this setting no longer exists")
        changed += 1
    print(
        f"{len(settings)} settings in {time.process_time() - started:.1f} s of processor time: {changed} changed, "
        f"{unknown} unknown to diffusers {diffusers.__version__}"
    )
    if accept and changed:
        kept = {name: limit for name, limit in limits.items() if accepted.get(name) == goldens.get(name)}
        write_goldens(accepted, describe_origin(), path, kept)
        print(f"written: {path}; measure the limits of what is new with 'limits'")
    return int(unknown > 0 or (changed > 0 and not accept))


def _limits(path: Path) -> int:
    """Measures the limits of all settings again and writes them to the file of the goldens."""
    goldens, settings, limits = read_goldens(path), all_settings(), dict[str, float]()
    began = reported = time.monotonic()
    for number, (name, golden) in enumerate(goldens.items(), start=1):
        limit = measured_limit(settings[name], golden)
        if limit > FLOORS[settings[name].dtype]:
            limits[name] = limit
        if time.monotonic() - reported > PROGRESS_EVERY_S:
            reported = time.monotonic()
            print(f"{number} of {len(goldens)} settings, {reported - began:.0f} s", flush=True)
    write_goldens(goldens, read_origin(path), path, limits)
    print(f"{len(limits)} of {len(goldens)} limits are above the floor of their dtype; written: {path}")
    return 0


def _conditions(path: Path) -> int:
    """A row of Markdown for each ill-conditioned setting."""
    ill = {name: limit for name, limit in read_limits(path).items() if limit > ILL_CONDITIONED}
    print(f"{len(ill)} settings whose numbers rounding alone may move by more than {ILL_CONDITIONED:.0%}:")
    print("| setting | rounding may move it by |\n| --- | ---: |")
    for name, limit in ill.items():
        _row((name, f"{limit:.2g}"))
    return 0


def _orders() -> int:
    """A row of Markdown for each method and sampler: promised order, measured order, errors."""
    print("| method | steps | promised | measured | errors | source |\n| --- | --- | ---: | ---: | --- | --- |")
    for method in METHODS.values():
        errors = [error(method, steps) for steps in method.steps]
        order = f"{measured_order(errors, method.steps):.2f}"
        _row((method.id, _list(method.steps), f"{method.order:g}", order, _sizes(errors), method.source))
    for sampler in SAMPLERS.values():
        counts = STEPS if sampler.order else (1, 2, 4, 8)
        errors = [propagate(sampler, steps).error for steps in counts]
        promised, order = (
            ("exact", "") if sampler.order is None else (f"{sampler.order:g}", f"{of_moments(errors):.2f}")
        )
        _row((sampler.id, _list(counts), promised, order, _sizes(errors), sampler.source))
    return 0


def _row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def _list(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))


def _sizes(errors: Sequence[float]) -> str:
    return ", ".join(f"{size:.1e}" for size in errors)


def main(arguments: Sequence[str] | None = None, path: Path = GOLDENS) -> int:
    """``check`` compares every setting with its golden and prints what changed; ``accept`` also writes the goldens.

    ``limits`` measures how far rounding may move each setting, ``conditions`` lists the settings that are
    ill-conditioned, ``orders`` prints the table of measured orders. Returns 1 if something changed and was not
    accepted, or if a setting is unknown to this diffusers. Goldens that moved within their limits stay as they are.
    """
    parser = CommandParser(prog="python -m bench.proofs.closed_form", description=__doc__)
    parser.add_argument("command", choices=("check", "accept", "limits", "conditions", "orders"))
    chosen = parser.parse_args(arguments)
    diffusers.logging.set_verbosity_error()
    commands = {"orders": _orders, "limits": lambda: _limits(path), "conditions": lambda: _conditions(path)}
    chosen_command = commands.get(chosen.command, lambda: _check(chosen.command == "accept", path))
    return run_command(parser.prog, chosen_command)


if __name__ == "__main__":
    sys.exit(main())
