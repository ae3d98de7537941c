"""Which tests pytest leaves out, and what a run says if none is left."""

from __future__ import annotations

import re

import pytest

from bench.plugin.session import NO_CASE, case_of
from bench.suite.selection import SLOW, Selection

# Markers of tests that run only where -m names them.
ON_REQUEST = ("slow", "harness")
# Markers of tests that check cases; those of them without a case are useful only together with cases.
OF_CASES = ("golden", "upgrade")


def choose_items(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Removes the items that were not asked for, and reports them to pytest as deselected."""
    kept = [item for item in items if _stands_for_a_case(item) and not _waits_for_request(config, item)]
    if not any(map(case_of, kept)) and all(_is_beside_cases(config, item) for item in kept):
        kept = []
    keep = set(kept)
    left_out = [item for item in items if item not in keep]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _stands_for_a_case(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return not (callspec and callspec.params.get("case") is NO_CASE)


def _waits_for_request(config: pytest.Config, item: pytest.Item) -> bool:
    asked = config.getoption("markexpr") or ""
    return any(item.get_closest_marker(name) and name not in asked for name in ON_REQUEST)


def _is_beside_cases(config: pytest.Config, item: pytest.Item) -> bool:
    """Whether a test is useful only together with cases and is not named on the command line."""
    named = [*re.findall(r"\w+", config.getoption("keyword") or ""), *(path.partition("::")[2] for path in config.args)]
    return any(map(item.get_closest_marker, OF_CASES)) and not any(word and word in item.name for word in named)


def nothing_selected(config: pytest.Config, selection: Selection, verb: str) -> str:
    """The sentence for a run without tests: why, and what to do.

    Args:
        verb: what was not done: ``checked``, ``compared``.
    """
    nothing = f"no case was selected, so nothing was {verb}"
    if selection.cases or not selection.left_out:
        return f"{nothing}: correct -k, -m, --model or the path."
    # Cases of other models are worth mentioning only if no others were left out.
    reasons = {reason: count for reason, count in selection.left_out.items() if reason != "of other models"}
    reasons = reasons or selection.left_out
    slow = reasons.pop(SLOW, 0)
    others = [f"{count} {reason}" for reason, count in reasons.items()]
    if not slow:
        return f"{nothing}: left out are {', '.join(others)}."
    cases = {1: "the only case is", 2: "both cases are"}.get(slow, f"all {slow} cases are")
    also = f" (also left out: {', '.join(others)})" if others else ""
    asked = config.getoption("markexpr")
    marker = f'"({asked}) and slow"' if asked and " " in asked else f'"{asked} and slow"' if asked else "slow"
    return f"{nothing}: {cases} left out as slow on this device; run with -m {marker}{also}."
