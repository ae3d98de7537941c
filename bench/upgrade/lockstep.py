"""Two workers' calls side by side, step by step, so that whatever the machine does meanwhile does it to both.

*Duet* (Bulej et al. 2020, "Duet benchmarking", arXiv 2001.05811): both sides compute at the same moment, each on its
own half of the cores, and change places at every UNet call and at every block within it, so that a core that is slower
for a while slows both.
*Alternate*: a UNet call of the one, then of the other, in random order, while the other waits without spinning; for
accelerators, which two sides cannot share at once, and for machines with one core.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import Field

from bench.frozen import Frozen
from bench.upgrade.cores import usable_cores
from bench.upgrade.workers import WorkerProcess

DUET, ALTERNATE = "duet", "alternate"
Segments = tuple[tuple[str, float], ...]
Images = tuple[Image.Image, ...]


class PairedCall(Frozen):
    """One call of a case on both sides, seconds by segment; see ``Worker.do_call``."""

    baseline: Segments = Field(description="parts of the pipeline in their order, each with its seconds")
    candidate: Segments
    checksums: tuple[str, str] = Field(default=("", ""), description="of the output of each side")
    shapes: dict[str, tuple[int, ...]] = Field(default={}, description="what the baseline's parts were called with")
    peak_bytes: tuple[int | None, int | None] = Field(default=(None, None), description="null on a processor")

    @property
    def seconds(self) -> tuple[float, float]:
        """Of each side."""
        before, after = (sum(seconds for _, seconds in side) for side in (self.baseline, self.candidate))
        return before, after


@dataclass(frozen=True)
class Places:
    """Where the two sides compute.

    Attributes:
        halves: the cores of each side in a duet.
        threads: of each side; 0 leaves torch's default.
        move_weights: whether each UNet call is to have its weights elsewhere in memory; see ``worker.move_weights``.
    """

    mode: str
    halves: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    threads: int = 0
    move_weights: bool = False


def places_for(device_type: str) -> Places:
    """A duet on a processor with two cores or more, else alternating."""
    if device_type != "cpu":
        return Places(ALTERNATE)
    cores = usable_cores()
    half = len(cores) // 2
    if not half:
        return Places(ALTERNATE, threads=len(cores), move_weights=True)
    return Places(DUET, (tuple(cores[:half]), tuple(cores[half : 2 * half])), half, move_weights=True)


def _go(worker: WorkerProcess, cores: tuple[int, ...]) -> None:
    worker.send(cores=list(cores))


def paired_call(
    sides: Sequence[WorkerProcess],
    places: Places,
    rng: random.Random,
    *,
    swapped: bool = False,
    by_block: bool = False,
    known: tuple[str, str] = ("", ""),
) -> tuple[PairedCall, tuple[Images, Images]]:
    """One call of each side in lockstep; a side with more UNet calls than the other does the rest alone.

    Args:
        swapped: whether the baseline starts on the second half of the cores; calls that start in turns let each
            segment be measured on both.
        by_block: whether both have the same blocks, and are to halt at each of them too.
        known: checksums that outputs should have; only the images of a side with another one are returned.

    Raises:
        WorkerBroken: a side raised or died.
    """
    for side, checksum in zip(sides, known, strict=True):
        side.send(do="call", move_weights=places.move_weights, by_block=by_block, known=checksum)
    for side in sides:
        side.reply()
    ended: dict[int, tuple[dict[str, Any], Images]] = {}
    began_swapped = swapped
    while len(ended) < len(sides):
        running = [number for number in range(len(sides)) if number not in ended]
        rng.shuffle(running)
        if places.mode == DUET:
            for number in running:
                _go(sides[number], places.halves[number ^ swapped])
            replies = [(number, sides[number].reply()) for number in running]
            # Every call of a network begins on other cores than the one before, whatever its number of blocks.
            if not any(head.get("within") for _, (head, _) in replies):
                began_swapped = swapped = not began_swapped
            else:
                swapped = not swapped
        else:
            replies = []
            for number in running:
                _go(sides[number], ())
                replies.append((number, sides[number].reply()))
        ended |= {number: (head, images_of(head, blobs)) for number, (head, blobs) in replies if "segments" in head}
    (before, odd_before), (after, odd_after) = ended[0], ended[1]
    call = PairedCall(
        baseline=before["segments"],
        candidate=after["segments"],
        checksums=(before["checksum"], after["checksum"]),
        shapes=before["shapes"],
        peak_bytes=(before["peak_bytes"], after["peak_bytes"]),
    )
    return call, (odd_before, odd_after)


def images_of(header: dict[str, Any], blobs: Sequence[bytes]) -> Images:
    """The images of a reply; none where it has none."""
    sizes = header.get("sizes", ())
    return tuple(Image.frombytes("RGB", tuple(size), blob) for size, blob in zip(sizes, blobs, strict=True))
