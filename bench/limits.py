"""The default limits of a golden, until they are measured case by case."""

from __future__ import annotations

from bench.similarity import Limits

SAME, OTHER = "same", "other"

# (dtype, device type of the golden compared with the run's): how far a grid may be from its golden.
DEFAULT_LIMITS: dict[tuple[str, str], Limits] = {
    ("float32", SAME): Limits(0.9999, 4, 0.25, "TO BE MEASURED"),
    ("bfloat16", SAME): Limits(0.97, 64, 2.0, "TO BE MEASURED"),
    ("float16", SAME): Limits(0.999, 16, 0.5, "TO BE MEASURED"),
    ("float32", OTHER): Limits(0.99, 64, 1.0, "TO BE MEASURED"),
    ("bfloat16", OTHER): Limits(0.9, 128, 4.0, "TO BE MEASURED"),
    ("float16", OTHER): Limits(0.97, 64, 2.0, "TO BE MEASURED"),
}


def default_limits(dtype: str, golden_device_type: str, device_type: str) -> Limits:
    return DEFAULT_LIMITS[dtype, SAME if golden_device_type == device_type else OTHER]
