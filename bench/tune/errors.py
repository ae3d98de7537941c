"""What a user of the tuning can do something about."""

from __future__ import annotations

from bench.errors import BenchError


class TuneError(BenchError):
    """Tuning cannot start, or cannot continue; one sentence that says what to do."""
