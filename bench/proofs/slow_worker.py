"""The worker of the power proof: that of the upgrade check, with a part that can be made slower.

It imports libraries no earlier than the worker of the check does, which times that.
"""

from __future__ import annotations

import contextlib
from typing import Any

from bench.proofs.slow_down import after_calls, calls_of_parts, multiplications_as_long_as, multiplier
from bench.upgrade.protocol import Channel
from bench.upgrade.worker import LibraryWarnings, Reply, Worker, main


class SlowWorker(Worker):
    def __init__(self, channel: Channel, library_warnings: LibraryWarnings) -> None:
        super().__init__(channel, library_warnings)
        self._slowed = contextlib.ExitStack()

    def do_load(self, request: dict[str, Any]) -> Reply:
        """As ever, but until the next ``load`` each call of ``slow_part`` multiplies two matrices as many times as
        ``multiplications`` says."""
        from bench.calls.sampling import new_scheduler

        self._slowed.close()
        reply = super().do_load(request)
        if request.get("slow_part"):
            multiply, count = multiplier(), request["multiplications"]
            scheduler = new_scheduler(self.loaded, self.case)
            slowed = after_calls(self.loaded.pipeline, scheduler, request["slow_part"], lambda: multiply(count))
            self._slowed.enter_context(slowed)
        return reply

    def do_calibrate(self, _request: dict[str, Any]) -> Reply:
        """How many ``multiplications`` take as long as a call, and its ``calls`` of each part."""
        from bench.calls.sampling import new_scheduler, prepare_call

        pipeline = self.loaded.pipeline

        def call() -> None:
            pipeline(**prepare_call(self.loaded, self.case))

        calls = calls_of_parts(pipeline, new_scheduler(self.loaded, self.case), call)
        return {"calls": calls, "multiplications": multiplications_as_long_as(call)}, ()


if __name__ == "__main__":
    main(SlowWorker)
