"""The blocks of a pipeline's networks, between which two sides that compute side by side change places.

A core of a shared machine may be a third slower than its neighbour for some milliseconds at a time. A side that keeps
its core for a call of a network gets all of that; one that changes places within the call gets half of it, as the other
side does. Measured on two such cores, the ratio of a single call of a UNet had a standard deviation of 18 % when sides
changed places at each call, and of 7 % when they did at each block.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def blocks_of(pipeline: Any) -> dict[str, Any]:
    """The modules that a network's forward pass calls one after the other, by name: items of its outermost lists."""
    import torch

    found = {}
    for component, network in pipeline.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        modules = dict(network.named_modules())
        lists = {name for name, module in modules.items() if isinstance(module, torch.nn.ModuleList)}
        for name, module in modules.items():
            parents = _parents(name) & lists
            if len(parents) == 1 and name.rpartition(".")[0] in parents:
                found[f"{component}.{name}"] = module
    return found


def _parents(name: str) -> set[str]:
    """The names of all modules that contain this one, such as ``a`` and ``a.b`` of ``a.b.c``."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


@contextlib.contextmanager
def before_each(blocks: Mapping[str, Any], notice: Callable[[], None]) -> Iterator[None]:
    """Calls ``notice`` before each call of these modules. Compiled modules would be compiled again."""
    with contextlib.ExitStack() as stack:
        for block in blocks.values():
            stack.callback(block.register_forward_pre_hook(lambda *_: notice()).remove)
        yield
