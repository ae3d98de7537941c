"""What a side makes of a case: its pictures and its work, or why there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from bench.calls.work import Work
from bench.upgrade.workers import WorkerBroken, WorkerProcess, fresh


@dataclass(frozen=True)
class SideResult:
    """What one side made of the case in its first process.

    Attributes:
        notices: what the libraries warned of, in order.
        error: why there are no images.
        work: what that call did; ``None`` where it raised, or for ``work_reason``.
    """

    images: tuple[Image.Image, ...] = ()
    unet_calls: int | None = None
    notices: tuple[str, ...] = ()
    error: str | None = None
    work: Work | None = None
    work_reason: str | None = None


class PictureProcesses:
    """Processes of one side or several in which cases are called for their pictures and their work.

    A sentinel comes from a process that lasts as long as sentinels follow each other, so that hundreds of small cases
    do not load their pipeline each for itself; any other case has a fresh one. They end with the block.

    Args:
        take: gives the first process of each side, started anew where one is gone.
    """

    def __init__(self, take: Callable[[], Sequence[WorkerProcess]]) -> None:
        self._take = take
        self._stack = contextlib.ExitStack()
        self._lasting: list[WorkerProcess] = []

    def __enter__(self) -> PictureProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._lasting:
            process.kill()  # it may be in the middle of a call that was interrupted
        self._end_lasting()

    def result(self, number: int, request: dict[str, Any]) -> SideResult:
        """What the side with this number makes of a case; what goes wrong is in ``error``.

        Args:
            request: see ``load_request``.
        """
        try:
            if request["settings"]["sentinel"]:
                return picture_in(self._lasting_process(number), request)
            self._end_lasting()
            return picture_of(self._take()[number], request)
        except WorkerBroken as error:
            self._end_lasting()
            return SideResult(error=str(error))

    @contextlib.contextmanager
    def fresh_process(self, number: int) -> Iterator[WorkerProcess]:
        """A fresh process of the side with this number; those of sentinels end before it starts.

        Raises:
            WorkerBroken: it did not start, or did not end as asked.
        """
        self._end_lasting()
        with fresh(self._take()[number]) as process:
            yield process

    def _lasting_process(self, number: int) -> WorkerProcess:
        if not self._lasting:
            self._lasting = [self._stack.enter_context(fresh(worker)) for worker in self._take()]
        return self._lasting[number]

    def _end_lasting(self) -> None:
        self._lasting = []
        with contextlib.suppress(WorkerBroken):
            self._stack.close()


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
    """Pictures and work of a case from one call in a process that may have made others before.

    Raises:
        WorkerBroken: the process is gone.
    """
    try:
        process.ask("load", **request)
        try:
            reply = process.ask("counted_picture")
        except WorkerBroken as error:
            if not error.alive:
                raise
            reply = process.ask("picture")  # what it raises without being counted is what counts
            return replace(_side_result(reply), work_reason=f"it could not be counted: {error}")
        return replace(_side_result(reply), work=Work.from_json(reply[0]["work"]))
    except WorkerBroken as error:
        if not error.alive:
            raise
        return SideResult(error=str(error))


def _side_result(reply: tuple[dict[str, Any], tuple[bytes, ...]]) -> SideResult:
    header, blobs = reply
    images = tuple(Image.frombytes("RGB", tuple(size), blob) for size, blob in zip(header["sizes"], blobs, strict=True))
    return SideResult(images, header["unet_calls"], tuple(header["notices"]))
