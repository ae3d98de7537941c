"""An exception as it is kept in a file."""

from __future__ import annotations

from pydantic import Field

from bench.frozen import Frozen


class RaisedError(Frozen):
    type: str
    message: str = Field(description="first line")

    @classmethod
    def of(cls, error: BaseException) -> RaisedError:
        text = str(error).strip()
        return cls(type=type(error).__name__, message=text.splitlines()[0] if text else "")

    @property
    def sentence(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type
