"""What a side makes of a case: its pictures and its work, or why there are none."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from bench.calls.work import Work
from bench.suite.optimizations import compiles
from bench.upgrade.lockstep import DUET, PairedCall, Places, Segments, images_of
from bench.upgrade.workers import SIDES, WorkerBroken, WorkerProcess, fresh


@dataclass(frozen=True)
class SideResult:
    """What one side made of the case in its first process.

    Attributes:
        warnings: what the libraries warned of, in order.
        error: why there are no images.
        checksum: of the output as the pipeline gave it.
        segments, shapes: parts of the call as ``PairedCall`` has them; counting slows them down.
        work: what that call did; ``None`` where it raised, or for ``work_reason``.
    """

    images: tuple[Image.Image, ...] = ()
    unet_calls: int | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    checksum: str = ""
    segments: Segments = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    work: Work | None = None
    work_reason: str | None = None


class PictureProcesses:
    """Processes of both sides in which cases are called for their pictures and their work.

    A sentinel comes from a process that lasts as long as sentinels follow each other, so that hundreds of small cases
    do not load their pipeline each for itself; any other case has a fresh one. They end with the block.

    Args:
        process: gives the first process of a side, started again where it is gone.
    """

    def __init__(self, process: Callable[[str], WorkerProcess]) -> None:
        self._process = process
        self._lasting: dict[str, tuple[contextlib.ExitStack, WorkerProcess]] = {}

    def __enter__(self) -> PictureProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for name, lasting in list(self._lasting.items()):
            lasting[1].kill()  # it may be in the middle of a call that was interrupted
            self._end_lasting(name)

    def result(self, side: str, request: dict[str, Any]) -> SideResult:
        """What a side makes of a case; what goes wrong is in ``error``.

        Args:
            request: see ``load_request``.
        """
        try:
            if request["settings"]["sentinel"]:
                return picture_in(self._lasting_process(side), request)
            self._end_lasting(side)
            return picture_of(self._process(side), request)
        except WorkerBroken as error:
            self._end_lasting(side)
            return SideResult(error=str(error))

    def both(self, requests: Sequence[dict[str, Any]], places: Places) -> tuple[SideResult, SideResult]:
        """What both sides make of a case: at the same moment where each has cores of its own.

        Args:
            requests: of each side.
        """
        if places.mode != DUET:
            before, after = map(self.result, SIDES, requests)
            return before, after
        pinned = [one | {"cores": list(half)} for one, half in zip(requests, places.halves, strict=True)]
        with ThreadPoolExecutor() as pool:
            before, after = pool.map(self.result, SIDES, pinned)
        return before, after

    @contextlib.contextmanager
    def fresh_process(self, side: str) -> Iterator[WorkerProcess]:
        """A fresh process of a side; that of its sentinels ends before it starts.

        Raises:
            WorkerBroken: it did not start, or did not end as asked.
        """
        self._end_lasting(side)
        with fresh(self._process(side)) as process:
            yield process

    def _lasting_process(self, side: str) -> WorkerProcess:
        if side not in self._lasting:
            stack = contextlib.ExitStack()
            self._lasting[side] = stack, stack.enter_context(fresh(self._process(side)))
        return self._lasting[side][1]

    def _end_lasting(self, side: str) -> None:
        if side in self._lasting:
            stack, _ = self._lasting.pop(side)
            with contextlib.suppress(WorkerBroken):
                stack.close()


def paired(baseline: SideResult, candidate: SideResult) -> PairedCall | None:
    """The calls that drew the pictures, part by part; ``None`` where a side drew none."""
    if not (baseline.images and candidate.images):
        return None
    return PairedCall(baseline=baseline.segments, candidate=candidate.segments, shapes=baseline.shapes)


def picture_of(worker: WorkerProcess, request: dict[str, Any]) -> SideResult:
    """Pictures and work of a case from a fresh process of a side; what goes wrong is in ``error``."""
    result = None
    try:
        with fresh(worker) as process:
            result = picture_in(process, request)
    except WorkerBroken as error:
        return result or SideResult(error=str(error))
    return result


def picture_in(process: WorkerProcess, request: dict[str, Any]) -> SideResult:
    """Pictures and work of a case in a process that may have made other calls before.

    Both come from the same call, but for a case that is compiled: counting makes torch run eagerly, so its pictures
    come from a call that is not counted.

    Raises:
        WorkerBroken: the process is gone.
    """
    compiled = compiles(tuple(request["settings"]["optimizations"]))
    try:
        with tempfile.TemporaryDirectory(prefix="compiled-") if compiled else contextlib.nullcontext() as folder:
            process.ask("load", **request, compile_cache=folder)
            return _compiled(process) if compiled else _counted(process)
    except WorkerBroken as error:
        if not error.alive:
            raise
        return SideResult(error=str(error))


def _counted(process: WorkerProcess) -> SideResult:
    try:
        reply = process.ask("counted_picture")
    except WorkerBroken as error:
        if not error.alive:
            raise
        reply = process.ask("picture")  # what it raises without being counted is what counts
        return replace(_side_result(reply), work_reason=f"it could not be counted: {error}")
    return replace(_side_result(reply), work=Work.from_json(reply[0]["work"]))


def _compiled(process: WorkerProcess) -> SideResult:
    result, counted = _side_result(process.ask("picture")), _counted(process)
    return replace(result, unet_calls=counted.unet_calls, work=counted.work, work_reason=counted.work_reason)


def _side_result(reply: tuple[dict[str, Any], tuple[bytes, ...]]) -> SideResult:
    header, blobs = reply
    return SideResult(
        images=images_of(header, blobs),
        unet_calls=header["unet_calls"],
        warnings=tuple(header["warnings"]),
        checksum=header["checksum"],
        segments=tuple((part, seconds) for part, seconds in header["segments"]),
        shapes={part: tuple(shape) for part, shape in header["shapes"].items()},
    )
