"""What measuring adds to a call: measured and plain calls, in turn."""

import statistics

import pytest

from bench.calls.device import clock
from bench.calls.sampling import prepare_call

PAIRS = 40


@pytest.mark.bench
@pytest.mark.harness
def test_overhead_of_a_measured_call(bench_session, benchmark):
    """Compares fresh generators, a fresh scheduler, two clock readings and the call with the bare call.

    The ratio is in ``extra_info`` of ``benchmark.json`` and on the terminal (``-rP``); it is reported, not judged.
    """
    case = next(case for case in bench_session.suite.cases if case.id == "emoji-ddpm/ddim-s20-fp32")
    loaded, device = bench_session.run.pipeline(case), bench_session.device

    def plain() -> float:
        arguments = prepare_call(loaded, case)
        began = clock(device)
        loaded.pipeline(**arguments)
        device.synchronize()
        return clock(device) - began

    def measured() -> float:
        began = clock(device)
        arguments = prepare_call(loaded, case)
        clock(device)
        loaded.pipeline(**arguments)
        clock(device)
        return clock(device) - began

    plain()
    ratios = [measured() / plain() if turn % 2 else 1 / (plain() / measured()) for turn in range(PAIRS)]
    ratio = statistics.median(ratios)
    benchmark.extra_info["overhead"] = ratio - 1
    benchmark.pedantic(loaded.pipeline, setup=lambda: ((), prepare_call(loaded, case)), rounds=2)
    print(f"measuring adds {ratio - 1:+.2%} to a plain call (median of {PAIRS} pairs)")
