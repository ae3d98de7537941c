"""One side of a comparison, inside its own environment: loads pipelines and calls them on request.

The first process imports the libraries, then forks a child for each pair of processes that is measured: a fresh heap,
fresh threads, without the seconds that importing takes. It does no work of its own and starts no threads, so that
forking is safe. On accelerators, whose drivers do not survive a fork, the first process does the work itself.

It runs under old and new libraries, from Python 3.10 on, so it imports little: of this suite only what loads and
samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.upgrade.protocol import Channel, Closed

Reply = tuple[dict[str, Any], tuple[bytes, ...]]
# Modules whose ``__version__`` is the version of their release.
VERSIONED = (
    "diffusers",
    "transformers",
    "torch",
    "accelerate",
    "numpy",
    "PIL",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
)


class LibraryWarnings(logging.Handler):
    """Keeps what the libraries warn of, once each: deprecations above all."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}
        warnings.simplefilter("always")
        warnings.showwarning = self._warning

    def watch(self, *names: str) -> None:
        for name in names:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.setdefault(f"{record.name}: {record.getMessage()}")

    def _warning(self, message: Any, category: Any, *_where: Any, **_more: Any) -> None:
        self.texts.setdefault(f"{category.__name__}: {message}")


def peak_resident_bytes() -> int | None:
    """Highest resident size of this process so far, in bytes; ``None`` where the system does not say.

    Read from the kernel's page for this address space: ``getrusage`` would go on with the peak of the process that
    started this one.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def imported_modules() -> dict[str, dict[str, str]]:
    """File of each imported top-level module outside the standard library, and the version of those in ``VERSIONED``.

    No other module is asked for its version, since some warn when they are.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if "." in name or name in sys.stdlib_module_names or not isinstance(file, str):
            continue
        found[name] = {"file": file}
        version = getattr(module, "__version__", None) if name in VERSIONED else None
        if isinstance(version, str):
            found[name]["version"] = version
    return found


def pin(cores: list[int]) -> None:
    """Keeps all threads of this process on these cores."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may have ended meanwhile
            os.sched_setaffinity(int(task.name), cores)


def modules_of(pipeline: Any) -> list[Any]:
    """The networks of a pipeline."""
    import torch

    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def move_weights(modules: list[Any]) -> None:
    """Gives every weight another place in memory, in random order.

    Where memory lies makes a process faster or slower for as long as it lives, by some percent on a processor
    (Curtsinger and Berger 2013, "Stabilizer"): calls with other places average that out.
    """
    weights = [weight for module in modules for weight in module.parameters()]
    random.shuffle(weights)
    for weight in weights:
        weight.data = weight.data.clone()


class Worker:
    """Does what the suite asks, a request at a time; each method that begins with ``do_`` is one request.

    Attributes:
        loaded: the pipeline and how it was loaded; ``None`` before the first ``load``.
        case: what it is called for.
    """

    def __init__(self, channel: Channel, library_warnings: LibraryWarnings) -> None:
        self._channel = channel
        self._warnings = library_warnings
        self._device: Any = None
        self.loaded: Any = None
        self._loaded_for: Any = None
        self._blocks: dict[str, Any] = {}
        self.case: Any = None

    def do_import(self, _request: dict[str, Any]) -> Reply:
        began = time.perf_counter()
        import diffusers
        import torch
        import transformers

        for name in ("StableDiffusionPipeline", "DDPMPipeline"):
            getattr(diffusers, name)
        import_s = time.perf_counter() - began
        self._warnings.watch("diffusers", "transformers", "accelerate")
        for name, library in (("diffusers", diffusers), ("transformers", transformers)):
            logging.getLogger(name).propagate = False
            library.utils.logging.disable_progress_bar()
        versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
        return {"import_s": import_s, "imported": imported_modules(), **versions}, ()

    def do_load(self, request: dict[str, Any]) -> Reply:
        import torch

        from bench.calls.device import choose_device
        from bench.calls.pipelines import Checkpoint, load_checkpoint
        from bench.upgrade.blocks import blocks_of

        if self.case:
            self._warnings.texts.clear()  # what an earlier case warned of is not of this one
        if request.get("cores"):
            pin(request["cores"])
        if request["threads"]:
            torch.set_num_threads(request["threads"])
        if request.get("compile_cache"):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = request["compile_cache"]
        self._device = choose_device(request["device"])
        settings = SimpleNamespace(**request["settings"])
        self.case = SimpleNamespace(model=SimpleNamespace(**request["model"]), settings=settings)
        pipeline = (request["folder"], settings.dtype, tuple(settings.optimizations))
        if pipeline == self._loaded_for:
            return self._as_loaded()
        self.forget()
        checkpoint = Checkpoint(Path(request["folder"]), None, request["pickled"], request.get("variant"))
        self.loaded = load_checkpoint(
            self.case.model, checkpoint, settings.dtype, tuple(settings.optimizations), self._device
        )
        self._loaded_for = pipeline
        self._blocks = blocks_of(self.loaded.pipeline)
        return self._as_loaded()

    def _as_loaded(self) -> Reply:
        return {"load_s": self.loaded.load_s, "blocks": sorted(self._blocks)}, ()

    def forget(self) -> None:
        """The next ``load`` loads, whatever was loaded before."""
        self.loaded = self._loaded_for = None

    def do_picture(self, request: dict[str, Any]) -> Reply:
        """One call, with its images as raw RGB, its parts, its UNet calls and the warnings since the start."""
        from bench.calls.observe import DENOISER
        from bench.calls.optimizations import check_applied_in_call
        from bench.calls.sampling import prepared, to_images

        if request.get("cores"):
            pin(request["cores"])
        call = prepared(self.loaded, self.case)
        with self._timed_parts(call.pipeline) as timed:
            output = call()
        optimizations = self.case.settings.optimizations
        check_applied_in_call(self.loaded.pipeline, optimizations)
        sizes, blobs = _raw(to_images(call.pipeline, output))
        unet_calls = sum(part == DENOISER for part, _ in timed["segments"])
        header = {"unet_calls": unet_calls, "sizes": sizes, "warnings": list(self._warnings.texts)}
        call_s = sum(seconds for _, seconds in timed["segments"])
        return header | timed | {"call_s": call_s, "checksum": _checksum(output)}, blobs

    def do_counted_picture(self, _request: dict[str, Any]) -> Reply:
        """As ``picture``, and the work of that same call, which takes longer because it is counted."""
        from bench.calls.sampling import to_images
        from bench.calls.work import counted_call

        with self._timed_parts(self.loaded.pipeline) as timed:
            output, work = counted_call(self.loaded, self.case)
        sizes, blobs = _raw(to_images(self.loaded.pipeline, output))
        header = {"unet_calls": work.unet_calls, "sizes": sizes, "warnings": list(self._warnings.texts)}
        return header | timed | {"work": work.to_json(), "checksum": _checksum(output)}, blobs

    @contextlib.contextmanager
    def _timed_parts(
        self,
        pipeline: Any,
        halt: Callable[[], None] = lambda: None,
        blocks: Mapping[str, Any] | None = None,
        halt_within: Callable[[], None] = lambda: None,
    ) -> Iterator[dict[str, Any]]:
        """Yields ``segments`` and ``shapes`` of the call in the block, which are complete when it has ended.

        Args:
            halt: called before each UNet call, and once before all; its time is not counted.
            halt_within: called before each call of these blocks; its time is not counted either.
        """
        from bench.calls.observe import DENOISER, REST, watched_parts
        from bench.upgrade.blocks import before_each

        segments: list[tuple[str, float]] = []
        shapes: dict[str, tuple[int, ...]] = {}
        part, began, spent = REST, 0.0, 0.0

        def pause() -> None:
            nonlocal began, spent
            spent += self._clock() - began
            halt_within()
            began = self._clock()

        def end_segment() -> None:
            nonlocal spent
            segments.append((part, spent + self._clock() - began))
            spent = 0.0

        def enter(following: str, shape: tuple[int, ...]) -> None:
            nonlocal part, began
            end_segment()
            if shape:
                shapes.setdefault(following, shape)
            if following == DENOISER:
                halt()
            part, began = following, self._clock()

        with watched_parts(pipeline, enter), before_each(blocks or {}, pause):
            halt()
            began = self._clock()
            yield {"segments": segments, "shapes": shapes}
            end_segment()

    def do_latents(self, _request: dict[str, Any]) -> Reply:
        """One call; the latents before its first step, then each step's prediction and latents, as float32."""
        from bench.calls.latents import kept_latents
        from bench.calls.sampling import prepared

        call = prepared(self.loaded, self.case)
        with kept_latents(call.pipeline.scheduler) as kept:
            call()
        blobs = tuple(tensor.numpy().tobytes() for tensor in kept)
        return {"shapes": [list(tensor.shape) for tensor in kept], "has_decoder": hasattr(call.pipeline, "vae")}, blobs

    def do_memory(self, _request: dict[str, Any]) -> Reply:
        """Peak of this process so far."""
        return {"peak_bytes": peak_resident_bytes()}, ()

    def do_call(self, request: dict[str, Any]) -> Reply:
        """One call, halted before each UNet call until it may go on; waiting is not counted.

        With ``by_block`` it also halts before each block of a network.

        The reply holds ``segments``, each a part of the pipeline with the seconds until another one had its turn;
        ``shapes``, those of what each part was called with; a checksum of the output; and ``peak_bytes``, ``None`` on
        a processor.
        Images are sent only if the checksum is not the one that was asked for as ``known``. On an accelerator, each
        look at the clock waits for the device.
        """
        from bench.calls.sampling import prepare_call, to_images

        pipeline = self.loaded.pipeline
        if request["move_weights"]:
            move_weights(modules_of(pipeline))

        def halt() -> None:
            self._halt()
            if request["move_weights"]:
                move_weights([pipeline.unet])

        arguments = prepare_call(self.loaded, self.case)
        blocks = self._blocks if request["by_block"] else {}
        self._device.reset_peak_memory()
        with self._timed_parts(pipeline, halt, blocks, lambda: self._halt(within=True)) as timed:
            output = pipeline(**arguments).images
        reply = timed | {"checksum": _checksum(output)}
        reply["peak_bytes"] = self._device.peak_memory().allocated
        if reply["checksum"] == request["known"]:
            return reply, ()
        sizes, blobs = _raw(to_images(pipeline, output))
        return reply | {"sizes": sizes}, blobs

    def _halt(self, *, within: bool = False) -> None:
        """Waits until it may continue, on the cores that it is given.

        Args:
            within: a call of a network, before one of its blocks.
        """
        self._channel.send({"halted": True, "within": within})
        go, _ = self._channel.receive()
        if go.get("cores"):
            pin(go["cores"])

    def _clock(self) -> float:
        from bench.calls.device import clock

        return clock(self._device)


def _raw(images: list[Any]) -> tuple[list[tuple[int, int]], tuple[bytes, ...]]:
    """Sizes of pictures, and their values."""
    return [image.size for image in images], tuple(image.convert("RGB").tobytes() for image in images)


def _checksum(output: Any) -> str:
    array = output if not hasattr(output, "detach") else output.detach().float().cpu().numpy()
    return hashlib.sha256(array.tobytes()).hexdigest()


def _first_line(error: BaseException) -> str:
    """The first line of an error, and the second where the first only announces it."""
    lines = (str(error).strip() or "no reason given").splitlines()
    return " ".join(lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]


def answer(channel: Channel, worker: Worker, request: dict[str, Any]) -> None:
    """Sends the reply to a request, or what it raised."""
    try:
        header, blobs = getattr(worker, f"do_{request['do']}")(request)
    except Closed:
        raise
    except Exception as error:
        traceback.print_exc()
        channel.send({"error": type(error).__name__, "message": _first_line(error)})
    else:
        channel.send(header, blobs)


def work_in_child(channel: Channel, worker: Worker) -> int:
    """Answers requests in a forked child until ``end``; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            channel.send({})
            for request in requests(channel):
                if request["do"] == "end":
                    code = 0
                    break
                answer(channel, worker, request)
        except Closed:
            pass
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def requests(channel: Channel) -> Iterator[dict[str, Any]]:
    while True:
        header, _ = channel.receive()
        yield header


def main(make_worker: Callable[[Channel, LibraryWarnings], Worker] = Worker) -> None:
    """Serves requests from standard input until it is closed; what libraries print goes to standard error."""
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = make_worker(channel, LibraryWarnings())
    with contextlib.suppress(Closed):
        for request in requests(channel):
            if request["do"] == "fork":
                status = work_in_child(channel, worker)
                channel.send({"ended": status})
            else:
                answer(channel, worker, request)


if __name__ == "__main__":
    main()
