"""Which tests pytest leaves out."""

from __future__ import annotations

import pytest


def leave_out_slow(config: pytest.Config, items: list[pytest.Item], *, wanted: bool) -> None:
    """Takes tests marked ``slow`` out of the collected items, and tells pytest, unless they are wanted."""
    slow = [] if wanted else [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
