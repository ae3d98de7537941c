"""The phases of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


def _described(description: str, **options: Any) -> Any:
    """A field with a description for the schema of the files that hold it."""
    return field(metadata={"description": description}, **options)


# No pydantic: calls are also measured in environments of old releases, which lack it.
@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds inside one call, measured in a pass of its own."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    text_encoding: float | None = _described(
        "from the first call of the text encoder to the first of the UNet; null without one", default=None
    )
    denoising: tuple[float, ...] = _described("each step, up to the end of the scheduler's part")
    unet_calls: tuple[int, ...] = _described("UNet calls of each step")
    decoding: float = _described("from the end of the last step to the end of the call")
