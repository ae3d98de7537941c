"""An exception as it is kept in a file."""

from __future__ import annotations

import re

from pydantic import Field

from bench.frozen import Frozen

# Names of exceptions, and what the first lines of other exceptions contain, where memory or a device fails.
_OF_THE_MACHINE = frozenset({"AcceleratorError", "CudaError", "MemoryError", "OutOfMemoryError"})
_FAILURE_OF_THE_MACHINE = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|resource_exhausted"
    r"|(cuda|hip|xpu|mps|cudnn|miopen) (driver |runtime )?error|(cublas|cudnn|cufft|cusolver|cusparse)_status"
    r"|(hipblas|rocblas|miopen)_?status",
    re.IGNORECASE,
)


class RaisedError(Frozen):
    type: str
    message: str = Field(description="first line")

    @classmethod
    def of(cls, error: BaseException) -> RaisedError:
        text = str(error).strip()
        return cls(type=type(error).__name__, message=text.splitlines()[0] if text else "")

    @property
    def is_of_the_machine(self) -> bool:
        """Whether memory or the device failed, which says nothing about the libraries."""
        return self.type in _OF_THE_MACHINE or _FAILURE_OF_THE_MACHINE.search(self.message) is not None

    @property
    def sentence(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type
