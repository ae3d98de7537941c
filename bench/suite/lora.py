"""LoRA weights of a model, which a case switches on among its speed settings as ``lora-<name>``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from bench.frozen import Frozen


class Lora(Frozen):
    """Where LoRA weights are, and which schedulers belong to them.

    Attributes:
        path: a folder or a file, relative to the suite file; instead of ``id`` and ``revision`` on the hub.
        weight_name: of the file, where a folder or a repository holds several.
        scale: how strongly they are mixed in.
        schedulers: that they were made for; empty for all.
    """

    path: Path | None = None
    id: str | None = None
    revision: str | None = None
    weight_name: str | None = None
    scale: float = Field(default=1.0, gt=0)
    schedulers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Lora:
        if (self.path is None) == (self.id is None):
            raise ValueError("a LoRA needs either 'path' or 'id'")
        return self
