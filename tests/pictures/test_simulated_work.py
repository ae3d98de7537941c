"""The accepted work of cases on the simulated accelerator: missing, accepted, more, damaged, unused."""

from __future__ import annotations

import errno
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.calls.device_work import DeviceWork
from bench.calls.work import Work
from bench.pictures import simulated_work
from bench.pictures.check import Check
from bench.pictures.simulated_work import accept_simulated, check_simulated, read_simulated, unused_simulated
from bench.pictures.store import SIMULATED, GoldenError, describe_origin, golden_place, unused_goldens, write_golden
from bench.suite.case import Case, Model, Settings
from bench.verdicts import Verdict

PROCESSOR: Any = SimpleNamespace(type="cpu", name="Some Processor")
DEVICE: Any = SimpleNamespace(type="sim", name="simulated accelerator")
MODEL = Model(name="tiny-ddpm", kind="ddpm", source="embedded")
CASE, OTHER_CASE = (Case(model=MODEL, settings=Settings(scheduler="ddpm", steps=steps, images=1)) for steps in (4, 9))
ON_DEVICE = DeviceWork(kernels=500, waits={"item": 4}, copies={"host to device": 1}, copied_bytes={"host to device": 9})
WORK = Work(
    operators={"aten::mm": 100},
    host_syncs={},
    copies=3,
    copied_bytes=9000,
    peak_bytes=50_000,
    unet_calls=4,
    flops=2_000_000,
    tokens=0,
    on_device=ON_DEVICE,
)
MORE = replace(WORK, on_device=replace(ON_DEVICE, waits={"item": 8}))
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path):
    """A store with the picture of the case, drawn on a processor."""
    write_golden(golden_place(tmp_path, CASE, PROCESSOR, "reference"), [PICTURE], _origin(PROCESSOR))
    return tmp_path


def _origin(device, work: Work | None = None):
    return describe_origin(CASE, "a" * 64, None, device, {"torch": "2.15.0"}, work=work)


def _check(root, work: Work | None, *, update=False, announce=print) -> Check:
    return check_simulated(CASE, [PICTURE], _origin(DEVICE, work), root, DEVICE, update=update, announce=announce)


def _message(check: Check) -> str:
    assert check.work
    return check.work.message


def test_work_that_was_never_accepted_is_missing(root):
    found = _check(root, WORK)
    assert found.verdict == Verdict.WORK_MISSING
    assert "simulated.json has no such case; add it with --golden-update" in _message(found)


def test_accepting_writes_no_picture_and_is_not_a_pass(root):
    before = {path for path in root.rglob("*") if path.is_file()}
    lines: list[str] = []
    assert not _check(root, WORK, update=True, announce=lines.append).verdict.passes
    assert {path for path in root.rglob("*") if path.is_file()} - before == {root / SIMULATED}
    assert "simulated.json (tiny-ddpm/ddpm-s4-fp32:" in lines[0]
    found = _check(root, WORK)
    assert (found.verdict, found.pictures.verdict) == (Verdict.IDENTICAL, Verdict.IDENTICAL)
    assert _message(found) == "same work"


def test_more_waits_than_accepted_fail(root):
    accept_simulated(root, CASE, ON_DEVICE)
    found = _check(root, MORE)
    assert found.verdict == Verdict.MORE_WORK
    assert _message(found) == "more work: waits for the device 4 → 8 (+100.0 %, +1 per step): item +4"


def test_what_is_the_same_is_not_written_again(root):
    accept_simulated(root, CASE, ON_DEVICE)
    before = (root / SIMULATED).stat().st_mtime_ns
    assert _check(root, WORK, update=True).verdict == Verdict.IDENTICAL
    assert (root / SIMULATED).stat().st_mtime_ns == before


def test_without_counting_only_pictures_are_compared(root):
    found = _check(root, None)
    assert (found.verdict, found.work) == (Verdict.IDENTICAL, None)


def test_each_case_keeps_its_work(root):
    other = replace(ON_DEVICE, kernels=900)
    accept_simulated(root, OTHER_CASE, other)
    accept_simulated(root, CASE, ON_DEVICE)
    assert read_simulated(root) == {CASE.id: ON_DEVICE, OTHER_CASE.id: other}


@pytest.mark.parametrize("text", ["", "[]", '{"a": {"kernels": "3"}}', '{"a": {"kernels": 3}}'])
def test_a_damaged_file_is_named(root, text):
    (root / SIMULATED).write_text(text)
    with pytest.raises(GoldenError, match=r"simulated\.json: not the work of cases \(.*\); restore the file\.$"):
        _check(root, WORK)
    assert unused_simulated(root, []) == []


def test_a_full_disk_keeps_the_old_file(root, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    accept_simulated(root, CASE, ON_DEVICE)
    monkeypatch.setattr(simulated_work, "write_atomically", fail)
    with pytest.raises(GoldenError, match="not written"):
        accept_simulated(root, OTHER_CASE, ON_DEVICE)
    assert list(read_simulated(root)) == [CASE.id]


def test_an_entry_without_its_case_is_unused_and_the_file_is_no_stray(root):
    accept_simulated(root, CASE, ON_DEVICE)
    accept_simulated(root, OTHER_CASE, ON_DEVICE)
    (unused,) = unused_simulated(root, [CASE])
    assert unused.endswith("simulated.json (tiny-ddpm/ddpm-s9-fp32)")
    assert unused_goldens(root, [CASE]) == []
