"""The arguments of operators: which tensors there are, and the same arguments with others in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch


def replace(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """The value with ``function`` applied to all instances of ``kind`` in it, inside lists, tuples and dicts too."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        return {key: replace(part, kind, function) for key, part in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)([replace(part, kind, function) for part in value])
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def on_cpu(value: Any) -> Any:
    """The value with every device replaced by the CPU."""
    return replace(value, torch.device, lambda _: torch.device("cpu"))
