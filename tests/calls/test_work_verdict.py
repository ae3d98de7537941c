"""Work against earlier work: margins, and sentences that name what changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.calls.device_work import DeviceWork
from bench.calls.work import Work
from bench.calls.work_verdict import compare_work
from bench.simulated.counters import ON_DEVICE as WITHIN_DEVICE
from bench.simulated.counters import TO_DEVICE, TO_HOST
from bench.verdicts import Verdict

WORK = Work(
    operators={"aten::addmm": 100, "aten::clone": 20, "aten::silu": 800, "aten::view": 80},
    host_syncs={"aten::_local_scalar_dense": 21},
    copies=20,
    copied_bytes=10_000,
    peak_bytes=50_000,
    unet_calls=20,
    flops=2_000_000,
    tokens=96,
    graphs=1,
    graph_breaks=0,
)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"host_syncs": {"aten::_local_scalar_dense": 22}}, Verdict.MORE_WORK),
        ({"unet_calls": 19}, Verdict.LESS_WORK),
        ({"tokens": 97}, Verdict.MORE_WORK),
        ({"flops": 2_002_000}, Verdict.SAME_WORK),
        ({"flops": 2_002_001}, Verdict.MORE_WORK),
        ({"copied_bytes": 10_010}, Verdict.SAME_WORK),
        ({"copied_bytes": 9_989}, Verdict.LESS_WORK),
        ({"peak_bytes": 50_500}, Verdict.SAME_WORK),
        ({"peak_bytes": 50_501}, Verdict.MORE_WORK),
        ({"operators": {"aten::addmm": 100, "aten::silu": 910}}, Verdict.SAME_WORK),
        ({"operators": {"aten::addmm": 100, "aten::silu": 911}}, Verdict.MORE_WORK),
        ({"copies": 30}, Verdict.SAME_WORK),
        ({"graph_breaks": 1}, Verdict.MORE_WORK),
        ({"graphs": None, "graph_breaks": None}, Verdict.SAME_WORK),
    ],
    ids=str,
)
def test_margins(change, verdict):
    assert compare_work(replace(WORK, **change), WORK).verdict == verdict


def test_more_of_one_thing_and_less_of_another_is_more_work():
    found = compare_work(replace(WORK, host_syncs={"aten::nonzero": 41}, peak_bytes=25_000), WORK)
    assert found.message == (
        "more work: value reads 21 → 41 (+95.2 %, +1 per step): aten::nonzero +41; peak bytes 50,000 → 25,000 (-50.0 %)"
    )


def test_a_quantity_that_was_zero_has_no_percentage():
    found = compare_work(replace(WORK, host_syncs={"Tensor.tolist": 1}), replace(WORK, host_syncs={}))
    assert found.more == ("value reads 0 → 1: Tensor.tolist +1",)


ON_DEVICE = DeviceWork(
    kernels=1_000,
    waits={"item": 20, "copy to host": 1},
    copies={TO_DEVICE: 8, TO_HOST: 21, WITHIN_DEVICE: 50},
    copied_bytes={TO_DEVICE: 10_000, TO_HOST: 500, WITHIN_DEVICE: 70_000},
)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"waits": {"item": 21, "copy to host": 1}}, Verdict.MORE_WORK),
        ({"waits": {"item": 1, "nonzero": 20}}, Verdict.SAME_WORK),
        ({"copies": {TO_DEVICE: 8, TO_HOST: 22}}, Verdict.MORE_WORK),
        ({"copies": {TO_DEVICE: 7, TO_HOST: 21}}, Verdict.LESS_WORK),
        ({"copies": {TO_DEVICE: 8, TO_HOST: 21, WITHIN_DEVICE: 99}}, Verdict.SAME_WORK),
        ({"copied_bytes": {TO_DEVICE: 10_010, TO_HOST: 500}}, Verdict.SAME_WORK),
        ({"copied_bytes": {TO_DEVICE: 10_011, TO_HOST: 500}}, Verdict.MORE_WORK),
        ({"kernels": 1_010}, Verdict.SAME_WORK),
        ({"kernels": 1_011}, Verdict.MORE_WORK),
    ],
    ids=str,
)
def test_margins_of_what_a_device_counts(change, verdict):
    before = replace(WORK, on_device=ON_DEVICE)
    after = replace(WORK, on_device=replace(ON_DEVICE, **change))
    assert compare_work(after, before).verdict == verdict


def test_more_waits_say_how_many_per_step_and_why():
    more = replace(ON_DEVICE, waits={"item": 40, "copy to host": 1})
    found = compare_work(replace(WORK, on_device=more), replace(WORK, on_device=ON_DEVICE))
    assert found.message == "more work: waits for the device 21 → 41 (+95.2 %, +1 per step): item +20"


def test_a_device_that_does_not_count_is_not_compared():
    assert compare_work(WORK, replace(WORK, on_device=ON_DEVICE)).verdict == Verdict.SAME_WORK
