"""A known slow-down, to prove that the check finds one: extra work inside one part of a pipeline.

It is made of work and not of sleep, so it is slowed by whatever slows the pipeline itself.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.calls.observe import DECODER, DENOISER, ENCODER, around

SCHEDULER = "scheduler"
# Small enough for the innermost cache, so that the work does not disturb the data of the pipeline.
SIZE = 64
ROUNDS = 5
MULTIPLICATIONS_PER_ROUND = 3000


def part_methods(pipeline: Any, scheduler: Any) -> dict[str, tuple[Any, str]]:
    """The object and its method that do the work of each part that this pipeline has.

    The scheduler's is its class, since each call of the pipeline gets a new scheduler.
    """
    found = {
        ENCODER: (getattr(pipeline, "text_encoder", None), "__call__"),
        DENOISER: (pipeline.unet, "__call__"),
        SCHEDULER: (type(scheduler), "step"),
        DECODER: (getattr(pipeline, "vae", None), "decode"),
    }
    return {part: (owner, method) for part, (owner, method) in found.items() if owner is not None}


def after_calls(
    pipeline: Any, scheduler: Any, part: str, do: Callable[[], None]
) -> contextlib.AbstractContextManager[None]:
    """Does this at the end of each call of a part, so that whoever times the part times it too.

    Raises:
        ValueError: the pipeline has no such part.
    """
    methods = part_methods(pipeline, scheduler)
    if part not in methods:
        raise ValueError(f"this pipeline has no {part}")
    owner, method = methods[part]
    return around(owner, method, after=lambda _: do())


def multiplier() -> Callable[[int], None]:
    """A function that multiplies a small matrix as many times as it is asked to.

    It is numpy's: where torch's operators are counted, which slows each of them down, it takes as long as ever.
    """
    import numpy

    factor: Any = numpy.full((SIZE, SIZE), 0.5, dtype="float32")
    product = numpy.empty_like(factor)

    def multiply(count: int) -> None:
        for _ in range(count):
            numpy.matmul(factor, factor, out=product)

    return multiply


def calls_of_parts(pipeline: Any, scheduler: Any, call: Callable[[], Any]) -> dict[str, int]:
    """How often a call of the pipeline calls each of its parts."""
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for part in part_methods(pipeline, scheduler):
            stack.enter_context(after_calls(pipeline, scheduler, part, partial(counts.update, [part])))
        call()
    return dict(counts)


def multiplications_as_long_as(call: Callable[[], Any]) -> float:
    """How many multiplications take as long as a call: the median of ``ROUNDS`` rounds, each of which times both."""
    multiply = multiplier()
    multiply(MULTIPLICATIONS_PER_ROUND)
    ratios = []
    for _ in range(ROUNDS):
        call_s = _seconds(call)
        ratios.append(call_s / _seconds(lambda: multiply(MULTIPLICATIONS_PER_ROUND)))
    return MULTIPLICATIONS_PER_ROUND * statistics.median(ratios)


def _seconds(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
