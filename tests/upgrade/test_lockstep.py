"""Calls in lockstep of two workers: their parts, their outputs, and what a side does alone."""

from __future__ import annotations

import random

import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER, REST
from bench.suite.schedulers import DDPM
from bench.upgrade.lockstep import ALTERNATE, DUET, paired_call, places_for
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
        calls = [paired_call((one, other), places, random.Random(0), swapped=swapped)[0] for swapped in (False, True)]
    steps = [DENOISER, BETWEEN] * UNET_CALLS[kind]
    parts = [REST, *steps] if kind == DDPM else [REST, ENCODER, REST, ENCODER, REST, *steps, DECODER, REST]
    for call in calls:
        assert [part for part, _ in call.baseline] == [part for part, _ in call.candidate] == parts
        assert min(seconds for side in (call.baseline, call.candidate) for _, seconds in side) > 0
        assert set(call.shapes) == set(parts) - {BETWEEN, REST}
    assert len({checksum for call in calls for checksum in call.checksums}) == 1


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
