"""The model card of an embedded checkpoint, written from what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors import safe_open

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


def parameter_counts(folder: Path) -> dict[str, int]:
    """Parameters by component."""
    counts = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        with safe_open(path, "pt") as weights:
            names = list(weights.keys())
            counts[path.parent.name] = sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return counts


def write_card(folder: Path, training: dict[str, Any], figures: dict[str, Any], data: dict[str, int]) -> Path:
    """Writes ``README.md`` and ``figures.json`` into the checkpoint's folder.

    Args:
        training: ``machine`` and ``stages``, each with steps, batch, hours and loss.
        figures: what ``bench.training.measure`` returned.
        data: ``emoji``, ``colours``, ``size``, ``pairs`` and ``held_out``.
    """
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    card = folder / "README.md"
    text = TEMPLATES.get_template("card.md.jinja").render(
        name=folder.name, training=training, figures=figures, data=data, parameters=parameter_counts(folder)
    )
    card.write_text(text, encoding="utf-8")
    return card
