"""Which faults the suite detects, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.faults.fault import Fault
from bench.faults.outcomes import CLOSED_FORM, CONTROL, FaultOutcome

LISTED = 10


def unseen(faults: Mapping[str, Fault], outcomes: Mapping[str, FaultOutcome]) -> list[str]:
    return [name for name in faults if name in outcomes and not outcomes[name].seen]


def not_run(faults: Mapping[str, Fault], outcomes: Mapping[str, FaultOutcome]) -> list[str]:
    return [name for name in faults if name not in outcomes]


def render_report(faults: Mapping[str, Fault], outcomes: Mapping[str, FaultOutcome]) -> str:
    """A sentence, a table of areas, a table of faults, and at the end the faults that were not detected.

    Outcomes of faults that are not in the catalogue are left out.
    """
    ran = [name for name in faults if name in outcomes]
    missed, missing = unseen(faults, outcomes), not_run(faults, outcomes)
    control = outcomes.get(CONTROL)
    cases = [case for case in control.cases if case.case != CLOSED_FORM] if control else []
    of_cases = f" by a suite of {len(cases)} cases" if cases else ""
    lines = [f"{len(ran) - len(missed)} of {len(ran)} faults were detected{of_cases}.", ""]
    lines += _table(("area", "faults", "detected"), _areas(faults, ran, missed), ":-- --: --:")
    lines.append("")
    seen = [name for name in ran if name not in missed]
    rows = [_row(faults[name], outcomes[name]) for name in seen]
    lines += _table(
        ("fault", "what", "detected by", "cases that detected it", "times over the limit"), rows, ":-- :-- :-- --: --:"
    )
    if missing:
        more = f" and {len(missing) - LISTED} others" if len(missing) > LISTED else ""
        lines += ["", f"Not run: {', '.join(missing[:LISTED])}{more}."]
    if missed:
        lines += ["", f"**NOT DETECTED: {len(missed)} of {len(ran)} faults**", ""]
        lines += [f"- `{name}`: {_described(faults[name])}" for name in missed]
    return "\n".join(lines) + "\n"


def _areas(faults: Mapping[str, Fault], ran: Sequence[str], missed: Sequence[str]) -> list[tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    for name in ran:
        names.setdefault(faults[name].area, []).append(name)
    return [
        (area, str(len(of_area)), str(sum(name not in missed for name in of_area))) for area, of_area in names.items()
    ]


def _described(fault: Fault) -> str:
    """What the fault is, with a link to its source such as ``transformers issue 36686``."""
    *_, repository, kind, number = fault.source.split("/")
    kind = {"pull": "PR", "issues": "issue"}.get(kind, kind)
    where = f"{'' if repository == 'diffusers' else f'{repository} '}{kind} {number}"
    return f"{fault.what.rstrip('.')} ([{where}]({fault.source}))"


def _row(fault: Fault, outcome: FaultOutcome) -> tuple[str, ...]:
    margin = outcome.margin
    times = "" if margin is None else f"{margin:,.1f}" if margin < 10 else f"{margin:,.0f}"
    return (
        f"`{fault.name}`",
        _described(fault),
        ", ".join(outcome.measures),
        f"{len(outcome.seen_by)} of {len(outcome.cases)}",
        times,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    lines = [head, alignment.replace("--", "---").split(), *rows]
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
