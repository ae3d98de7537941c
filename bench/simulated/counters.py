"""What a device was asked to do, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

TO_DEVICE = "host to device"
TO_HOST = "device to host"
ON_DEVICE = "device to device"


@dataclass
class Counters:
    """Counts since the start or the last ``reset``; the same on every run of the same program.

    Attributes:
        kernels: operators given to the device; copies are counted apart.
        copies: number of copies by direction.
        copied_bytes: bytes by direction.
        waits: how often the host waited for the device, by cause.
    """

    kernels: int = 0
    copies: Counter[str] = field(default_factory=Counter)
    copied_bytes: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)

    def count_copy(self, direction: str, nbytes: int) -> None:
        self.copies[direction] += 1
        self.copied_bytes[direction] += nbytes

    def reset(self) -> None:
        self.kernels = 0
        for counts in (self.copies, self.copied_bytes, self.waits):
            counts.clear()
