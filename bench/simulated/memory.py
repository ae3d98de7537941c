"""How much memory of a device is in use, counted as CUDA's caching allocator does."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch

BLOCK_BYTES = 512
SEGMENT_BYTES = 2 << 20


def _rounded(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit


@dataclass
class _Amount:
    """One statistic under torch's names: now, at most, and the sums of both ways."""

    current: int = 0
    peak: int = 0
    allocated: int = 0
    freed: int = 0

    def add(self, amount: int) -> None:
        self.current += amount
        self.peak = max(self.peak, self.current)
        self.allocated += amount

    def remove(self, amount: int) -> None:
        self.current -= amount
        self.freed += amount


@dataclass
class Memory:
    """Blocks are rounded up to 512 bytes; what is reserved grows in steps of 2 MiB and shrinks in ``empty_cache``.

    There is no fragmentation: a request fails only where the bytes in use would exceed the total.
    """

    name: str
    total: int
    requests: _Amount = field(default_factory=_Amount)
    requested: _Amount = field(default_factory=_Amount)
    allocated: _Amount = field(default_factory=_Amount)
    reserved: _Amount = field(default_factory=_Amount)
    failures: int = 0
    # Python may collect garbage, which frees memory, during a request.
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def allocate(self, nbytes: int) -> None:
        """Raises:
        torch.OutOfMemoryError: the device does not have that many bytes left.
        """
        with self._lock:
            size = _rounded(nbytes, BLOCK_BYTES)
            used = self.allocated.current + size
            if used > self.total:
                self.failures += 1
                raise torch.OutOfMemoryError(
                    f"{self.name} out of memory: tried to allocate {nbytes:,} bytes, of {self.total:,} "
                    f"{self.total - self.allocated.current:,} are free."
                )
            self.requests.add(1)
            self.requested.add(nbytes)
            self.allocated.add(size)
            if used > self.reserved.current:
                self.reserved.add(min(_rounded(used, SEGMENT_BYTES), self.total) - self.reserved.current)

    def free(self, nbytes: int) -> None:
        with self._lock:
            self.requests.remove(1)
            self.requested.remove(nbytes)
            self.allocated.remove(_rounded(nbytes, BLOCK_BYTES))

    def empty_cache(self) -> None:
        """Gives back what is reserved and not in use."""
        with self._lock:
            kept = min(_rounded(self.allocated.current, SEGMENT_BYTES), self.total)
            self.reserved.remove(self.reserved.current - kept)

    def reset_peaks(self) -> None:
        with self._lock:
            for amount in self._amounts:
                amount.peak = amount.current

    def reset_sums(self) -> None:
        with self._lock:
            self.failures = 0
            for amount in self._amounts:
                amount.allocated = amount.freed = 0

    def free_and_total(self) -> tuple[int, int]:
        """Bytes that the device could still give to others, and all of its bytes."""
        return self.total - self.reserved.current, self.total

    def statistics(self) -> dict[str, Any]:
        """As ``torch.cuda.memory_stats``, nested, with the pool ``all`` alone."""
        named = {
            "allocation": self.requests,
            "requested_bytes": self.requested,
            "allocated_bytes": self.allocated,
            "active_bytes": self.allocated,
            "reserved_bytes": self.reserved,
        }
        return {name: {"all": dict(vars(amount))} for name, amount in named.items()} | {"num_ooms": self.failures}

    @property
    def _amounts(self) -> tuple[_Amount, ...]:
        return self.requests, self.requested, self.allocated, self.reserved
