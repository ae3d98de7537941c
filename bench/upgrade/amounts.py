"""Shares and times as people write them: ``3%`` and ``60s``."""

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


def seconds(text: str) -> float:
    """The seconds above 0 that a text such as ``60s`` or ``60`` means.

    Raises:
        ValueError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*s?", text.strip())
    if not match or not float(match[1]):
        raise ValueError("give seconds, such as 60s.")
    return float(match[1])
