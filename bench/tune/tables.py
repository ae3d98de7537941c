"""A study in the terminal: its front as a table, and its picks as lines."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from bench.console import table_text
from bench.tune.outcome import TuneFound

MOST_REASONS = 6
WIDTH = 200


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """Why combinations cannot be tried, the most frequent reason first."""
    order = sorted(left_out.items(), key=lambda item: -item[1])
    lines = [f"left out: {count} combinations: {reason}" for reason, count in order[:MOST_REASONS]]
    more = sum(count for _, count in order[MOST_REASONS:])
    return [*lines, f"left out: {more} combinations for other reasons"] if more else lines


def front_table(found: TuneFound, colour: bool) -> str:
    """The front, fastest first."""
    start = found.by_case.get(found.start)
    has_memory = any(one.peak_bytes is not None for one in found.front_tried)
    table = Table(box=None, pad_edge=False, header_style="bold" if colour else "")
    table.add_column("the front, fastest first", no_wrap=True)
    for name in ("ms per picture", "× faster", "quality", "worst SSIM", "FLIP", "first call", *["memory"] * has_memory):
        table.add_column(name, justify="right")
    for timed, tried in zip(found.front, found.front_tried, strict=True):
        table.add_row(
            f"{tried.case.partition('/')[2]}{' =' if timed.ties_with_next else ''}",
            f"{1000 * timed.seconds:.1f}",
            f"{start.seconds / timed.seconds:.1f}" if start else "",
            f"{tried.quality:.4f}",
            f"{tried.worst_ssim:.4f}",
            f"{tried.mean_flip:.3f}",
            f"{tried.first_call_s:.1f} s",
            *([f"{(tried.peak_bytes or 0) / 2**20:.0f} MiB"] if has_memory else []),
        )
    lines = [table_text(table, WIDTH, colour)]
    if any(timed.ties_with_next for timed in found.front):
        lines.append("=: its time cannot be distinguished from that of the next setting")
    return "\n".join(lines)


def pick_lines(found: TuneFound) -> list[str]:
    """The picks with what they gain, and how the search ended."""
    start = found.by_case.get(found.start)
    known = {tried.case: tried for tried in found.front_tried}
    lines = []
    for pick in found.picks:
        tried = known[pick.case]
        faster = f", {start.seconds / tried.seconds:.1f} × as fast as {found.start}" if start else ""
        lines.append(
            f"{pick.name}: {pick.case}: {1000 * tried.seconds:.1f} ms per picture{faster}, "
            f"quality {tried.quality:.4f} ({pick.reason})"
        )
    if not found.picks and found.max_seconds:
        lines.append(f"no setting of the front takes at most {found.max_seconds:g} s per picture")
    lines.append(
        f"{len(found.tried)} of {found.settings} settings tried, {len(found.failed)} cannot be used, "
        f"{found.seconds:.0f} s"
    )
    return lines
