"""Shares and times as people write them: ``3%`` and ``5m``."""

from __future__ import annotations

import re


def percent(text: str) -> float:
    """The share above 0 that a text such as ``3%`` or ``0.5 %`` means.

    Raises:
        ValueError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if not match or not float(match[1]):
        raise ValueError("give percent, such as 3%.")
    return float(match[1]) / 100


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """The seconds above 0 that a text such as ``90s``, ``5m``, ``2h`` or ``60`` means.

    Raises:
        ValueError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise ValueError("give a time, such as 90s, 5m or 2h.")
    return float(match[1]) * _UNITS[match[2]]
