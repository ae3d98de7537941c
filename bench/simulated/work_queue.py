"""Work done in order on a separate thread, while the host runs ahead."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

import torch

from .settings import SimulationError

# As many launches as a CUDA stream holds before the next one blocks.
DEPTH = 1024

Action = Callable[[], object]


class WorkQueue:
    """The queue of one device.

    A kernel that fails stops the device: the error is raised by the next ``wait``, later kernels are skipped, and once
    the error was raised everything else raises it again.
    """

    def __init__(self, name: str, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self._name = name
        self._jobs: queue.Queue[Action | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._raised = self._stopping = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    def check(self) -> None:
        """Raises:
        torch.AcceleratorError: a kernel failed, and its error was raised before.
        SimulationError: this process is a fork of the one in which the thread runs.
        """
        if self._raised:
            self._raise()
        if os.getpid() != self._process:
            raise SimulationError(f"{self._name} cannot be used in a forked process; start processes with spawn.")

    def launch(self, kernel: Action) -> None:
        """Appends a kernel; blocks only while the queue is full."""
        self.check()
        threads = torch.get_num_threads()
        self._jobs.put(lambda: self._run(kernel, threads))

    def mark(self, action: Action) -> None:
        """Appends an action that is done even after a kernel has failed, and takes no time."""
        self._jobs.put(action)

    @property
    def idle(self) -> bool:
        """Whether all work so far is done."""
        return not self._jobs.unfinished_tasks

    def drain(self) -> None:
        """Returns when all work so far is done; raises no kernel's error that was not raised yet."""
        self.check()
        done = threading.Event()
        self.mark(done.set)
        done.wait()

    def wait(self) -> None:
        """Returns when all work so far is done.

        Raises:
            torch.AcceleratorError: a kernel failed.
        """
        self.drain()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raises:
        torch.AcceleratorError: a kernel has failed by now.
        """
        if self._error is not None:
            self._raised = True
            self._raise()

    def stop(self) -> None:
        """Ends the thread; what is still queued is not computed."""
        if os.getpid() != self._process:
            return
        self._stopping = True
        self._jobs.put(None)
        self._thread.join()

    def _raise(self) -> None:
        raise torch.AcceleratorError(
            f"{self._name}: a kernel failed: {self._error}\n"
            "The call that launched it may be an earlier one. The device cannot be used again in this process."
        ) from self._error

    def _work(self) -> None:
        with torch.inference_mode():
            while (job := self._jobs.get()) is not None:
                job()
                self._jobs.task_done()
                # Else the tensors of the last job would live until the next one.
                del job

    def _run(self, kernel: Action, threads: int) -> None:
        if self._error is not None or self._stopping:
            return
        # The number of threads belongs to a thread, and the host may have changed its own.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        try:
            kernel()
        except BaseException as error:
            self._error = error
        if self.latency_s:
            time.sleep(self.latency_s)
