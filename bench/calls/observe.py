"""Notices the calls of a pipeline's parts without touching them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

# What a call of a pipeline spends its time in. Between calls are the scheduler and the pipeline's own Python; the rest
# is what comes before the first and after the last of the others.
ENCODER, DENOISER, BETWEEN, DECODER, REST = "encoder", "denoiser", "between calls", "decoder", "rest"
Shape = tuple[int, ...]


def _nothing(*_: Any, **__: Any) -> None:
    pass


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of an object or a class for as long as the block takes."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


@contextlib.contextmanager
def around(
    part: Any, method: str, before: Callable[..., None] = _nothing, after: Callable[[Any], None] = _nothing
) -> Iterator[None]:
    """Calls ``before``, with the same arguments, and ``after``, with the output, around each call of a part's method.

    The class is patched for as long as that takes: a hook on a module would be seen by ``torch.compile`` and make it
    compile again. A method that was set on the part itself is patched there.
    """
    owner = part if method in vars(part) else type(part)
    original = getattr(owner, method)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        inputs = args if owner is part else args[1:]
        noticed = owner is part or args[0] is part
        if noticed:
            before(*inputs, **kwargs)
        output = original(*args, **kwargs)
        if noticed:
            after(output)
        return output

    with replaced(owner, method, call):
        yield


def before_call(module: Any, notice: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """Calls ``notice`` before each call of this module."""
    return around(module, "__call__", before=lambda *_, **__: notice())


@contextlib.contextmanager
def watched_parts(pipeline: Any, enter: Callable[[str, Shape], None]) -> Iterator[None]:
    """Calls ``enter`` whenever a call of this pipeline passes to another of its parts.

    ``enter`` gets the part and the shape of what it is called with, which is empty for ``BETWEEN`` and ``REST``. A call
    begins in ``REST``, of which nothing is said.
    """

    def watch(module: Any, method: str, part: str, then: str) -> contextlib.AbstractContextManager[None]:
        return around(
            module,
            method,
            before=lambda *args, **kwargs: enter(part, _first_shape((*args, *kwargs.values()))),
            after=lambda _: enter(then, ()),
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(watch(pipeline.unet, "__call__", DENOISER, BETWEEN))
        if getattr(pipeline, "text_encoder", None) is not None:
            stack.enter_context(watch(pipeline.text_encoder, "__call__", ENCODER, REST))
        if getattr(pipeline, "vae", None) is not None:
            stack.enter_context(watch(pipeline.vae, "decode", DECODER, REST))
        yield


def _first_shape(values: tuple[Any, ...]) -> Shape:
    return next((tuple(value.shape) for value in values if hasattr(value, "shape")), ())
