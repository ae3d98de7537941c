"""What an upgrade check prints: a line per case, a table, and the counts."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table

from bench.console import table_text
from bench.upgrade.outcome import COMPONENTS, CaseFound, Figure, UpgradeFound
from bench.verdicts import Rank, Verdict

TABLE_WIDTH = 190
MOST_LINES = 4


def percent(figure: Figure) -> str:
    """Such as ``same +0.3 %``."""
    return f"{figure.verdict} {100 * (figure.ratio - 1):+.1f} %"


def pictures_line(found: CaseFound) -> str:
    """The line for a case whose pictures and work have just been compared."""
    parts = [found.case, found.pictures.verdict]
    if found.work and found.work.verdict != Verdict.SAME_WORK:
        parts.append(found.work.verdict)
    parts.append(f"{found.seconds:.0f} s")
    return "  ".join(parts)


def speed_line(found: CaseFound) -> str:
    """The line for a case whose speed has been decided on."""
    speed = f"{percent(found.speed)} ({found.speed.interval})" if found.speed else Verdict.NOT_COMPARED
    parts = [found.case, f"speed {speed}"]
    if found.memory:
        parts.append(f"memory {percent(found.memory)}")
    return "  ".join(parts)


def component_lines(found: UpgradeFound) -> list[str]:
    """The parts of the pipelines that are slower or faster, the one with the largest effect first, and all others."""
    changed = [one for one in found.components if one.figure.verdict in (Verdict.SLOWER, Verdict.FASTER)]
    lines = [one.sentence for one in sorted(changed, key=lambda one: -max(map(abs, one.effect)))]
    others = Counter(one.figure.verdict for one in found.components if one not in changed)
    if others:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in others.most_common())
        lines.append(f"{'other ' if changed else ''}components: {counts}")
    return lines


def _ssim(found: CaseFound) -> str:
    ssim = found.pictures.ssim_worst_tile
    return "" if ssim is None else f"{ssim:.5f}"


def _cell(figure: Figure | None) -> str:
    return "" if figure is None else percent(figure)


def _is_quiet(case: CaseFound) -> bool:
    """Whether this is a sentinel with nothing to report."""
    words = [case.pictures.verdict, *([case.work.verdict] if case.work else [])]
    return bool(case.settings.get("sentinel")) and all(Verdict(word).rank == Rank.AS_BEFORE for word in words)


def render_upgrade(found: UpgradeFound, colour: bool) -> str:
    """The table of all cases but sentinels without any difference, which are counted below it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", no_wrap=True)
    table.add_column("pictures", no_wrap=True)
    table.add_column("SSIM", justify="right")
    table.add_column("work", no_wrap=True)
    for heading in ("speed", "interval", "memory", "load", "first call"):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = [case for case in found.cases if not _is_quiet(case)]
    for case in shown:
        table.add_row(
            case.case,
            case.pictures.verdict,
            _ssim(case),
            case.work.verdict if case.work else "",
            _cell(case.speed),
            case.speed.interval if case.speed else "",
            _cell(case.memory),
            _cell(case.load),
            _cell(case.first_call),
            style="red" if case.problems else None,
        )
    quiet = len(found.cases) - len(shown)
    below = f"\nand {quiet} sentinels with the same pictures and the same work" if quiet else ""
    return (table_text(table, TABLE_WIDTH, colour) if shown else "") + below


def counts_lines(found: UpgradeFound) -> list[str]:
    """The verdicts of each question; ``component_lines`` has those of the components."""
    return [
        f"{question}: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        for question, verdicts in found.counts().items()
        if question != COMPONENTS
    ]


def _undecided(case: str, speed: Figure) -> str:
    wanted = f"about {speed.more_pairs}" if speed.more_pairs else "very many"
    return f"{case}: the speed is undecided; it would take {wanted} more starts of both sides (--budget)"


def _few(lines: list[str], kind: str) -> list[str]:
    """The first of many lines of one kind, and how many there are more: the report has them all."""
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} more cases: {kind}"]


def notes(found: UpgradeFound) -> list[str]:
    """What more time would decide, and what the candidate newly warns of or calls more often."""
    undecided = [
        (case.case, case.speed) for case in found.cases if case.speed and case.speed.verdict == Verdict.CANNOT_TELL
    ]
    lines = _few([_undecided(case, speed) for case, speed in undecided], "undecided")
    lines += _few([f"{case.case}: {text}" for case in found.cases for text in case.unsteady], "not steady")
    odd = [
        f"{case.case}: measured alone: {', '.join(case.odd_parts)} (changed in another way than in other cases)"
        for case in found.cases
        if case.odd_parts
    ]
    lines += _few(odd, "measured alone")
    less = [case for case in found.cases if case.work and case.work.verdict == Verdict.LESS_WORK]
    lines += _few([f"{case.case}: {case.work.message}" for case in less if case.work], Verdict.LESS_WORK)
    lines += [f"{case.case}: work: {case.work_reason}" for case in found.cases if case.work_reason]
    for text in dict.fromkeys(one for case in found.cases for one in case.new_warnings):
        lines.append(f"{Verdict.WARNS}: {text}")
    for case in found.cases:
        before, after = case.unet_calls
        if None not in (before, after) and before != after:
            lines.append(f"{case.case}: {after} UNet calls, the baseline made {before}")
    return lines
