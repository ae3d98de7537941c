"""The worker of the power proof: that of the upgrade check, whose UNet can be made slower by a known share."""

from __future__ import annotations

from typing import Any

from bench.proofs.slow_down import layer_seconds, repeat_layers
from bench.upgrade.worker import Reply, Worker, main


class SlowWorker(Worker):
    def do_load(self, request: dict[str, Any]) -> Reply:
        """As ever, but the layers in ``repeated_layers`` do their work twice from now on."""
        self.forget()  # layers that were made to repeat their work cannot be undone
        reply = super().do_load(request)
        repeat_layers(self.loaded.pipeline.unet, request.get("repeated_layers", []))
        return reply

    def do_layers(self, _request: dict[str, Any]) -> Reply:
        """Seconds of the UNet's layers and of its whole forward."""
        from bench.calls.sampling import prepare_call

        pipeline = self.loaded.pipeline
        layers, whole = layer_seconds(pipeline.unet, lambda: pipeline(**prepare_call(self.loaded, self.case)))
        return {"layers": layers, "whole": whole}, ()


if __name__ == "__main__":
    main(SlowWorker)
