"""``python -m bench.proofs.processors``: do pictures and schedulers stay the same with other instructions?

Each setting makes the libraries use the kernels of another processor, as far as one processor can imitate another, and
runs the quick float32 cases and the schedulers in closed form with it. A setting that has no effect here is left out
with its reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.calibration.variations import NoEffect, aten_is, mkl_is_compatible, onednn_is
from bench.command import CommandParser, run_command

ROOT = Path(__file__).parents[2]
CHECKS: Mapping[str, Sequence[str]] = {
    # In the half dtypes oneDNN emulates what the instructions lack, far too slowly.
    "pictures": ("-m", "pytest", "-c", "tox.ini", "-q", "-m", "golden and quick", "-k", "fp32"),
    "schedulers in closed form": ("-m", "bench.proofs.closed_form", "check"),
}


@dataclass(frozen=True)
class Processor:
    """A processor that this one imitates.

    Attributes:
        environment: variables that the libraries read when they are imported.
        took_hold: raise ``NoEffect`` in a process with this environment if it has no effect.
    """

    name: str
    environment: Mapping[str, str]
    took_hold: tuple[Callable[[], None], ...] = ()


PROCESSORS: tuple[Processor, ...] = (
    Processor(
        "without AVX, of another maker",
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
        (aten_is("DEFAULT"), onednn_is("Intel SSE4.1"), mkl_is_compatible),
    ),
    Processor(
        "with AVX2",
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
        (aten_is("AVX2"), onednn_is("Intel AVX2")),
    ),
    Processor(
        "with AVX-512 and neither bfloat16 nor AMX, 1 thread",
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OMP_NUM_THREADS": "1"},
        (onednn_is("Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions"),),
    ),
)


def why_without_effect(processor: Processor) -> str:
    """Why the setting has no effect, checked in a separate process; empty if it has one."""
    place = PROCESSORS.index(processor)
    code = f"from bench.proofs.processors import look; look({place})"
    found = _python(("-c", code), processor.environment, capture=True)
    return found.stdout.strip().splitlines()[-1] if found.returncode else ""


def look(place: int) -> None:
    """Runs in a process with the environment of a processor: exits with 1 and a sentence if it has no effect."""
    try:
        for check in PROCESSORS[place].took_hold:
            check()
    except NoEffect as error:
        print(error)
        raise SystemExit(1) from None


def _python(
    arguments: Sequence[str], environment: Mapping[str, str], *, capture: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE if capture else None,
        check=False,
    )


def run_all(processors: Sequence[Processor], announce: Callable[[str], None] = print) -> int:
    """Runs all checks on all processors; 1 if one failed or nothing could be run."""
    failed, left_out = [], []
    for number, processor in enumerate(processors, start=1):
        variables = " ".join(f"{key}={value}" for key, value in processor.environment.items())
        announce(f"[{number}/{len(processors)}] a processor {processor.name} ({variables})")
        why = why_without_effect(processor)
        if why:
            left_out.append(processor.name)
            announce(f"  left out: {why}")
            continue
        for check, arguments in CHECKS.items():
            began = time.monotonic()
            code = _python(arguments, processor.environment).returncode
            announce(f"  {check}: {'failed' if code else 'as accepted'}, {time.monotonic() - began:.0f} s")
            if code:
                failed.append(
                    f"{check} on a processor {processor.name}: run again with {variables} {' '.join(arguments)}"
                )
    for line in failed:
        announce(f"failed: {line}")
    ran = len(processors) - len(left_out)
    announce(f"{ran} of {len(processors)} processors imitated, {len(failed)} checks failed")
    return int(bool(failed) or not ran)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m bench.proofs.processors", description=__doc__)
    parser.parse_args(arguments)
    return run_command(parser.prog, run_all, PROCESSORS)


if __name__ == "__main__":
    sys.exit(main())
