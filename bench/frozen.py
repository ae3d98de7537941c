"""The base of everything that is kept in a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Never changed once it is made, and with no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")
