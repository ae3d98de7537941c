"""The default limits of a golden, until they are measured case by case."""

from __future__ import annotations

from bench.similarity import Limits

SAME, OTHER = "same", "other"

# (dtype, device type of the golden compared with the run's): how far a grid may be from its golden.
# "Harmless" below: the default cases against goldens made on a processor with AMX, run there with 1 and 2 threads, with
# oneDNN and ATen held to AVX2 and to AVX-512 without bfloat16 (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY), and for
# float32 with the oldest supported libraries too. With AVX2 three of the DDPM's bfloat16 cases were not run.
DEFAULT_LIMITS: dict[tuple[str, str], Limits] = {
    ("float32", SAME): Limits(
        ssim=0.9999,
        max_diff=3,
        mean_diff=0.05,
        reason="harmless: SSIM >= 0.99999, difference <= 1, shift <= 0.002; a repeated last sigma 0.9988",
    ),
    ("bfloat16", SAME): Limits(
        ssim=0.96,
        max_diff=96,
        mean_diff=4.0,
        reason="harmless: SSIM >= 0.984, difference <= 47, shift <= 2.2, about doubled; identical on one processor",
    ),
    ("float16", SAME): Limits(
        ssim=0.99,
        max_diff=24,
        mean_diff=1.0,
        reason="not measured across processors; 8 times finer than bfloat16, so a quarter of its room",
    ),
    ("float32", OTHER): Limits(
        ssim=0.99,
        max_diff=32,
        mean_diff=0.5,
        reason="not measured, no accelerator was at hand; TF32 convolutions round as coarsely as float16",
    ),
    ("bfloat16", OTHER): Limits(
        ssim=0.93, max_diff=128, mean_diff=6.0, reason="not measured; wider than on the same type of device"
    ),
    ("float16", OTHER): Limits(
        ssim=0.97, max_diff=64, mean_diff=2.0, reason="not measured; wider than on the same type of device"
    ),
}


def default_limits(dtype: str, golden_device_type: str, device_type: str) -> Limits:
    return DEFAULT_LIMITS[dtype, SAME if golden_device_type == device_type else OTHER]
