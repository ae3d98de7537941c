"""Notices the calls of a pipeline's parts without changing them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def before_call(module: Any, notice: Callable[[], None]) -> Iterator[None]:
    """Calls ``notice`` before each call of this module.

    The class is patched meanwhile: ``torch.compile`` would see a hook on the module and compile again.
    """
    owner = type(module)
    inherited = owner.__call__
    own = owner.__dict__.get("__call__")

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is module:
            notice()
        return inherited(self, *args, **kwargs)

    owner.__call__ = call
    try:
        yield
    finally:
        if own is None:
            del owner.__call__
        else:
            owner.__call__ = own
