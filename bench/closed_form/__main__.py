"""``python -m bench.closed_form accept``: makes what the schedulers give now the goldens."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import diffusers

from bench.closed_form.goldens import GOLDENS, describe_origin, read_goldens, write_goldens
from bench.closed_form.moments import SAMPLERS, STEPS, propagate
from bench.closed_form.moments import measured_order as of_moments
from bench.closed_form.outcomes import Outcome, compare, outcome
from bench.closed_form.sampling import UnknownOption
from bench.closed_form.settings import all_settings
from bench.closed_form.truth import METHODS, error, measured_order


def _check(accept: bool, path: Path) -> int:
    goldens, accepted, changed = read_goldens(path), dict[str, Outcome](), 0
    settings = all_settings()
    started = time.process_time()
    for name, setting in settings.items():
        golden = goldens.get(name)
        try:
            now = outcome(setting)
        except UnknownOption as missing:
            print(f"{name}: left out, {missing}")
            if golden is not None:
                accepted[name] = golden
            continue
        difference = compare(setting, now, golden) if golden is not None else None
        accepted[name] = now if golden is None or difference else golden
        if golden is None:
            print(f"{name}: new")
        elif difference:
            print(f"{name}: {difference.sentence}")
        changed += golden is None or difference is not None
    for name in sorted(goldens.keys() - settings.keys()):
        print(f"{name}: no such setting any more")
        changed += 1
    print(f"{len(settings)} settings in {time.process_time() - started:.1f} s of processor time, {changed} changed")
    if accept and changed:
        write_goldens(accepted, describe_origin(), path)
        print(f"written: {path}")
    return 0 if accept else int(changed > 0)


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
    """``check`` compares every setting with its golden and prints what changed, ``accept`` writes the goldens then.

    ``orders`` prints the table of measured orders. Returns 1 where something changed and was not accepted. Goldens
    that moved within their limits stay as they are.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.closed_form", description=__doc__)
    parser.add_argument("command", choices=("check", "accept", "orders"))
    chosen = parser.parse_args(arguments)
    diffusers.logging.set_verbosity_error()
    return _orders() if chosen.command == "orders" else _check(chosen.command == "accept", path)


if __name__ == "__main__":
    raise SystemExit(main())
