"""The base class of everything that is stored in a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, and without undeclared keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
