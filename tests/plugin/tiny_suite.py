"""A suite of three tiny cases, one slow one, and one of a hub model."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = ["tiny/ddpm-s2-fp32", "tiny/ddpm-s3-fp32", "tiny/ddpm-s4-fp32"]
SUITE = """
[models.tiny]
kind = "ddpm"
source = "local"
path = '{folder}'

[models.tiny.defaults]
images = 2

[models.far]
kind = "ddpm"
source = "hub"
id = "somebody/far"

[[cases]]
model = "tiny"
scheduler = "ddpm"
steps = [2, 3, 4]

[[cases]]
model = "tiny"
scheduler = "ddim"
steps = 2
slow = true

[[cases]]
model = "far"
scheduler = "ddpm"
steps = 2
images = 1
"""


def run_folders(pytester: pytest.Pytester) -> list[Path]:
    return [path for path in (pytester.path / "results").glob("*") if path.name != "latest"]


def text_of(result: pytest.RunResult) -> str:
    return "\n".join([*result.outlines, *result.errlines])
