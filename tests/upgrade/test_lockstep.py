"""Calls in lockstep of two workers: their parts, their outputs, and what a side does alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER, REST
from bench.suite.schedulers import DDPM
from bench.upgrade.lockstep import ALTERNATE, DUET, Places, paired_call, places_for
from bench.upgrade.workers import fresh
from tests.upgrade.helpers import KINDS, TAKING_TURNS, UNET_CALLS


@KINDS
@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
def test_a_call_in_lockstep_is_timed_part_by_part(kind, mode, sides, request_of):
    places = TAKING_TURNS
    if mode == DUET:
        places = places_for("cpu")
        if places.mode != DUET:
            pytest.skip("a duet needs Linux and two cores")
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        for side in (one, other):
            side.ask("load", **request_of(kind))
        ways = ({"swapped": False, "by_block": False}, {"swapped": True, "by_block": mode == DUET})
        calls = [paired_call((one, other), places, random.Random(0), **way)[0] for way in ways]
    steps = [DENOISER, BETWEEN] * UNET_CALLS[kind]
    parts = [REST, *steps] if kind == DDPM else [REST, ENCODER, REST, ENCODER, REST, *steps, DECODER, REST]
    for call in calls:
        assert [part for part, _ in call.baseline] == [part for part, _ in call.candidate] == parts
        assert min(seconds for side in (call.baseline, call.candidate) for _, seconds in side) > 0
        assert set(call.shapes) == set(parts) - {BETWEEN, REST}
    assert len({checksum for call in calls for checksum in call.checksums}) == 1


class Scripted:
    """A side that halts by a script, and notes the cores that it gets."""

    def __init__(self, halts: str) -> None:
        self.cores: list[int] = []
        end: dict[str, Any] = {"segments": [], "shapes": {}, "checksum": "", "peak_bytes": None}
        replies: list[dict[str, Any]] = [{"halted": True, "within": halt == "."} for halt in halts]
        self._replies = iter([*replies, end])

    def send(self, *, cores: Sequence[int] = (), **_: Any) -> None:
        self.cores += cores

    def reply(self) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        return next(self._replies), ()


@pytest.mark.parametrize(
    ("halts", "cores"),
    [
        ("CUUU", [0, 1, 0, 1]),  # without blocks, places change at each call
        ("CU..U..", [0, 1, 0, 1, 0, 1, 0]),
        ("CU.U.U.", [0, 1, 0, 0, 1, 1, 0]),  # an even number of places in a call: the next one begins the other way
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_sides_change_places_at_every_halt_and_begin_each_call_on_other_cores(halts, cores, swapped):
    sides: Any = (Scripted(halts), Scripted(halts))
    paired_call(sides, Places(DUET, ((0,), (1,)), 1), random.Random(0), swapped=swapped, by_block=True)
    mirrored = [1 - core for core in cores]
    assert sides[0].cores == (mirrored if swapped else cores)
    assert sides[1].cores == (cores if swapped else mirrored)


def test_a_side_with_more_unet_calls_does_the_rest_alone(sides, request_of):
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        one.ask("load", **request_of(DDPM))
        other.ask("load", **request_of(DDPM, steps=6))
        call, _ = paired_call((one, other), TAKING_TURNS, random.Random(0))
    assert (len(call.baseline), len(call.candidate)) == (9, 13)
    assert call.checksums[0] != call.checksums[1]


def test_only_a_side_with_another_output_than_known_sends_its_images(sides, request_of):
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        first = [(side.ask("load", **request_of(DDPM)), side.ask("picture"))[1] for side in (one, other)]
        checksum = first[0][0]["checksum"]
        assert checksum == first[1][0]["checksum"]
        call, images = paired_call((one, other), TAKING_TURNS, random.Random(0), known=(checksum, "another"))
    assert call.checksums == (checksum, checksum)
    assert images[0] == ()
    assert [image.tobytes() for image in images[1]] == list(first[1][1])
