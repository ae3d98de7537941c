"""The file of goldens: one line for each setting, written on request only."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.files import write_atomically
from bench.proofs.closed_form.outcomes import NOISE, SEED, Outcome
from bench.record.environment import library_versions

GOLDENS = Path(__file__).with_name("goldens.json")
_ORIGIN_LIBRARIES = ("diffusers", "torch", "numpy", "scipy")


def describe_origin() -> dict[str, Any]:
    """The origin of goldens that are made now."""
    versions = library_versions()
    return {
        "libraries": {name: versions[name] for name in _ORIGIN_LIBRARIES},
        "date": datetime.date.today().isoformat(),
        "noise": NOISE.flatten().tolist(),
        "seed": SEED,
    }


def read_goldens(path: Path = GOLDENS) -> dict[str, Outcome]:
    """Accepted outcomes by setting id; empty if the file does not exist."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {name: _outcome(text) for name, text in document["outcomes"].items()}


def read_origin(path: Path = GOLDENS) -> dict[str, Any]:
    """Libraries, day, noise and seed of the goldens."""
    origin: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["origin"]
    return origin


def read_limits(path: Path = GOLDENS) -> dict[str, float]:
    """Measured limits by setting id; a setting that is not there has the floor of its dtype."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {name: float(limit) for name, limit in document.get("limits", {}).items()}


def _outcome(text: str) -> Outcome:
    try:
        return tuple(float(word) for word in text.split())
    except ValueError:
        return text


def _text(outcome: Outcome) -> str:
    """Nine digits: a float32 comes back as it was."""
    if isinstance(outcome, str):
        return outcome
    return " ".join("nan" if math.isnan(value) else f"{value:.9g}" for value in outcome)


def write_goldens(
    outcomes: Mapping[str, Outcome],
    origin: Mapping[str, Any],
    path: Path = GOLDENS,
    limits: Mapping[str, float] | None = None,
) -> None:
    """Writes all goldens, or leaves the old file unchanged; the same outcomes and origin give the same bytes.

    Args:
        limits: by setting id; only those above the floor of the dtype.
    """
    limits = limits or {}
    document = {
        "origin": origin,
        "limits": {name: f"{limits[name]:.3g}" for name in sorted(limits)},
        "outcomes": {name: _text(outcomes[name]) for name in sorted(outcomes)},
    }
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
