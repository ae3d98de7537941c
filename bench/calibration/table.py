"""What a calibration measured, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from bench.calibration.run import Calibrated
from bench.calibration.spread import evidence_for_limits, spread_of
from bench.console import table_text
from bench.pictures.limits import OTHER, PORTABLE, STRICT

TABLE_WIDTH = 200


def render_calibration(found: Iterable[Calibrated], colour: bool) -> str:
    """Three lines per case: what the evidence did, and the limit that follows, for each tier."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", no_wrap=True)
    table.add_column("limits for", no_wrap=True)
    table.add_column("worst variation", no_wrap=True)
    for heading in ("SSIM", "levels", "values that differ", "shift"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        if not one.limits:
            continue
        for tier, limits in ((STRICT, one.limits.strict), (PORTABLE, one.limits.portable), (OTHER, one.limits.other)):
            if limits is None:
                table.add_row("", tier, "not compared, unstable")
                continue
            spread = spread_of(evidence_for_limits(one.case.settings.dtype, one.limits.measurements, tier), tier)
            table.add_row(
                one.case.id if tier == STRICT else "",
                tier,
                spread.name,
                f"{spread.ssim:.6f} → {limits.ssim:.6f}",
                f"{spread.max_diff} → {limits.max_diff}",
                f"{spread.changed_share * 100:.3g} → {limits.changed_share * 100:.3g} %",
                f"{spread.mean_diff:.3f} → {limits.mean_diff:.3f}",
                style="red" if one.problem else None,
            )
    return table_text(table, TABLE_WIDTH, colour)
