"""A known slow-down, to prove that the check sees one: layers of the UNet that do their work twice.

It is made of work and not of sleep, so it is slowed by whatever slows the UNet itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

ROUNDS = 5


def layer_seconds(unet: Any, call: Callable[[], Any]) -> tuple[dict[str, float], float]:
    """What the layers of a UNet take, by module name, and what its whole forward takes, in seconds.

    Args:
        call: runs the pipeline once; the shortest forward of ``ROUNDS`` calls counts, and the shortest of each layer.
    """
    began: dict[str, float] = {}
    shortest: dict[str, float] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            began[name] = time.perf_counter()

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            seconds = time.perf_counter() - began[name]
            shortest[name] = min(seconds, shortest.get(name, seconds))

        return hook

    def shortest_of(modules: list[tuple[str, Any]]) -> None:
        handles = [module.register_forward_pre_hook(before(name)) for name, module in modules]
        handles += [module.register_forward_hook(after(name)) for name, module in modules]
        try:
            for _ in range(ROUNDS):
                call()
        finally:
            for handle in handles:
                handle.remove()

    shortest_of([("", unet)])
    shortest_of([(name, module) for name, module in unet.named_modules() if not list(module.children())])
    whole = shortest.pop("")
    return shortest, whole


def choose_layers(seconds: dict[str, float], wanted: float) -> list[str]:
    """Layers, the longest that fit first, that together take as nearly ``wanted`` seconds as can be without more."""
    chosen = []
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        if took <= wanted:
            chosen.append(name)
            wanted -= took
    return chosen


def repeat_layers(unet: Any, names: list[str]) -> None:
    """Makes these layers compute each output twice; the pictures stay the same, since the second one is dropped."""
    modules = dict(unet.named_modules())

    def again(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], _output: Any) -> None:
        module.forward(*inputs, **named)

    for name in names:
        modules[name].register_forward_hook(again, with_kwargs=True)
