"""Goldens of sentinels: groups in two files, cases that must match another, and cases that raise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.calls.device import instruction_set
from bench.calls.raised import RaisedError
from bench.calls.work import Work
from bench.pictures.check import check_golden, limits_side_by_side
from bench.pictures.limits import STRICT, CalibratedLimits, VariationMeasured, default_limits
from bench.pictures.similarity import Limits
from bench.pictures.store import accept_limits, describe_origin, find_golden, golden_place, read_golden, unused_goldens
from bench.suite.case import Case, Model, Settings
from bench.verdicts import Verdict

PROCESSOR: Any = SimpleNamespace(type="cpu", name="Some Processor")
GPU: Any = SimpleNamespace(type="cuda", name="NVIDIA H100")
MODEL = Model(name="tiny-sd", kind="stable-diffusion", source="embedded")
ERROR = RaisedError(type="IndexError", message="index 5 is out of bounds")
OTHER_ERROR = RaisedError(type="IndexError", message="index 6 is out of bounds")


def sentinel(**settings: Any) -> Case:
    usual = {
        "scheduler": "pndm",
        "steps": 5,
        "guidance": 7.5,
        "images": 1,
        "prompts": ("a fox",),
        "sentinel": "ways",
        "issue": "https://example.org/issues/2",
    }
    return Case(model=MODEL, settings=Settings(**(usual | settings)))


PLAIN, TWICE, OTHER = sentinel(), sentinel(scenario="called-twice"), sentinel(steps=7)


def pictures(number: int = 0, lift: int = 0) -> list[Image.Image]:
    levels = np.random.default_rng(number).integers(40, 200, (32, 32, 3), dtype=np.uint8)
    return [Image.fromarray(levels + np.uint8(lift))]


def work(syncs: int) -> Work:
    return Work(
        {"aten::mm": 9}, {"item": syncs}, copies=0, copied_bytes=0, peak_bytes=9, unet_calls=5, flops=9, tokens=9
    )


@pytest.fixture
def check(tmp_path):
    """Checks what a case made against the store, as a run does."""

    def check_case(case, images=(), error=None, *, update=None, syncs=None, device=PROCESSOR, errors=False):
        counted = None if syncs is None else work(syncs)
        origin = describe_origin(case, "w" * 64, None, device, {"torch": "2.9.0"}, error=error, work=counted)
        return check_golden(
            case, list(images), origin, tmp_path, device, update=update, errors=errors, announce=lambda _line: None
        )

    return check_case


def verdict(found) -> str:
    assert found.verdict.passes or found.verdict == found.pictures.verdict
    return found.pictures.verdict


def test_a_sentinel_is_missing_until_a_run_after_it_was_accepted(check):
    assert verdict(check(PLAIN, pictures())) == Verdict.MISSING
    assert verdict(check(PLAIN, pictures(), update="auto")) == Verdict.MISSING
    assert verdict(check(PLAIN, pictures())) == Verdict.IDENTICAL
    assert verdict(check(OTHER, pictures())) == Verdict.MISSING


def test_all_sentinels_of_a_group_share_two_files(check, tmp_path):
    for case in (PLAIN, OTHER):
        check(case, pictures(case.settings.steps), update="auto")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["ways.json", "ways.png"]
    assert verdict(check(PLAIN, pictures(5))) == Verdict.IDENTICAL
    assert verdict(check(OTHER, pictures(7))) == Verdict.IDENTICAL
    assert verdict(check(OTHER, pictures(5))) == Verdict.CHANGED


def test_the_message_names_the_file_and_the_case(check):
    check(PLAIN, pictures(), update="auto")
    assert "tiny-sd/ways.png (pndm-s5-g7.5-fp32)" in check(PLAIN, pictures(1)).pictures.message


def test_a_group_may_have_goldens_of_a_device_type_too(check, tmp_path):
    check(PLAIN, pictures(), update="auto")
    check(PLAIN, pictures(1), update="type", device=GPU)
    check(OTHER, pictures(7), update="reference")
    assert golden_place(tmp_path, PLAIN, GPU, "type").picture.name == "ways@cuda.png"
    assert verdict(check(PLAIN, pictures(1), device=GPU)) == Verdict.IDENTICAL
    assert verdict(check(PLAIN, pictures())) == Verdict.IDENTICAL
    assert find_golden(tmp_path, OTHER, GPU) == golden_place(tmp_path, OTHER, GPU, "reference")


def test_a_case_that_must_match_another_stores_no_pictures(check, tmp_path):
    check(PLAIN, pictures(), update="auto")
    check(TWICE, pictures(), update="auto")
    golden = read_golden(golden_place(tmp_path, TWICE, PROCESSOR, "reference"))
    assert (golden.origin.like, golden.origin.pixels) == (PLAIN.id, "")
    assert verdict(check(TWICE, pictures())) == Verdict.IDENTICAL
    assert verdict(check(TWICE, pictures(1))) == Verdict.CHANGED


def test_it_follows_the_other_case_when_that_is_accepted_again(check):
    for case in (PLAIN, TWICE):
        check(case, pictures(), update="auto")
    check(PLAIN, pictures(1), update="auto")
    assert verdict(check(TWICE, pictures())) == Verdict.CHANGED
    assert verdict(check(TWICE, pictures(1))) == Verdict.IDENTICAL


def test_no_update_makes_it_pass_with_other_pictures(check):
    for case in (PLAIN, TWICE):
        check(case, pictures(), update="auto")
    found = check(TWICE, pictures(1), update="auto")
    assert verdict(found) == Verdict.CHANGED
    assert f"differs from {PLAIN.id}, which it must match" in found.pictures.message
    assert verdict(check(TWICE, pictures(1))) == Verdict.CHANGED


@pytest.fixture
def elsewhere(check):
    """Both cases have goldens from the processor, and a GPU draws other pictures."""
    for case in (PLAIN, TWICE):
        check(case, pictures(), update="auto", syncs=5)


def test_a_case_that_must_match_another_follows_it_to_another_device(elsewhere, check):
    assert verdict(check(TWICE, pictures(1), device=GPU)) == Verdict.CHANGED
    check(PLAIN, pictures(1), update="auto", device=GPU)
    assert verdict(check(TWICE, pictures(1), device=GPU)) == Verdict.IDENTICAL
    found = check(TWICE, pictures(), device=GPU)
    assert verdict(found) == Verdict.CHANGED
    assert PLAIN.id in found.pictures.message
    assert verdict(check(TWICE, pictures())) == Verdict.IDENTICAL
    assert verdict(check(TWICE, pictures(1))) == Verdict.CHANGED


def test_on_another_device_it_is_judged_by_the_limits_there(elsewhere, check):
    assert check(TWICE, pictures(lift=3), device=GPU).pictures.verdict == Verdict.WITHIN_LIMITS
    check(PLAIN, pictures(), update="auto", device=GPU)
    found = check(TWICE, pictures(lift=3), device=GPU).pictures
    assert (found.tier, found.verdict) == (STRICT, Verdict.CHANGED)


def test_limits_from_another_type_of_device_do_not_follow_it(elsewhere, check, tmp_path):
    accept_limits(tmp_path, TWICE, PROCESSOR, calibrated(99, 0.1))
    check(PLAIN, pictures(1), update="auto", device=GPU)
    assert verdict(check(TWICE, pictures(1, lift=3), device=GPU)) == Verdict.CHANGED
    assert limits_side_by_side(tmp_path, TWICE, GPU).reason == default_limits("float32", STRICT).reason


def test_an_update_says_which_case_to_accept_first(elsewhere, check):
    found = check(TWICE, pictures(1), update="auto", device=GPU)
    assert verdict(found) == Verdict.CHANGED
    assert found.pictures.message.endswith(f"accept {PLAIN.id} on this device with --golden-update first")


@pytest.mark.parametrize("case", [PLAIN, TWICE], ids=["plain", "like plain"])
def test_its_work_is_checked_on_another_device_after_an_update(elsewhere, check, case):
    assert check(case, pictures(), device=GPU, syncs=99).work.verdict == Verdict.NOT_COMPARED
    found = check(case, pictures(), update="auto", device=GPU, syncs=7)
    assert not found.verdict.passes
    assert check(case, pictures(), device=GPU, syncs=7).verdict == Verdict.IDENTICAL
    assert check(case, pictures(), device=GPU, syncs=9).verdict == Verdict.MORE_WORK
    assert check(case, pictures(), syncs=5).verdict == Verdict.IDENTICAL


def test_a_golden_of_another_device_does_not_get_its_limits(elsewhere, check, tmp_path):
    accept_limits(tmp_path, PLAIN, PROCESSOR, calibrated(99, 0.1))
    check(PLAIN, pictures(), update="auto", device=GPU, syncs=7)
    place = find_golden(tmp_path, PLAIN, GPU)
    assert place is not None
    assert read_golden(place).origin.limits is None


def test_small_differences_from_the_other_case_are_within_limits(check, tmp_path):
    for case in (PLAIN, TWICE):
        check(case, pictures(), update="auto")
    nearly = pictures()
    nearly[0].putpixel((3, 3), tuple(level + 1 for level in nearly[0].getpixel((3, 3))))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert verdict(check(TWICE, nearly, update="auto")) == Verdict.WITHIN_LIMITS
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_it_is_broken_without_the_golden_of_the_other_case(check):
    check(TWICE, pictures(), update="auto")
    found = check(TWICE, pictures())
    assert verdict(found) == Verdict.BROKEN
    assert PLAIN.id in found.pictures.message


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (None, ERROR, Verdict.RAISES_NOW),
        (ERROR, None, Verdict.WORKS_NOW),
        (ERROR, OTHER_ERROR, Verdict.RAISES_ELSE),
        (ERROR, ERROR, Verdict.RAISES_AS_BEFORE),
    ],
)
def test_what_a_case_raises_is_a_golden_too(check, then, now, expected):
    check(PLAIN, [] if then else pictures(), then, update="auto")
    found = check(PLAIN, [] if now else pictures(), now)
    assert verdict(found) == expected
    assert found.verdict.passes == (expected == Verdict.RAISES_AS_BEFORE)
    for error in (now, then):
        assert error is None or error.sentence in found.pictures.message


def test_an_update_accepts_that_a_case_raises_or_works_again(check):
    for images, error in (([], ERROR), (pictures(), None), ([], OTHER_ERROR)):
        assert not check(PLAIN, images, error, update="auto").verdict.passes
        assert check(PLAIN, images, error).verdict.passes


def test_the_known_issue_is_reported(check):
    case = sentinel(issue="https://example.org/issues/1")
    check(case, [], ERROR, update="auto")
    assert "https://example.org/issues/1" in check(case, [], ERROR).pictures.message


def test_a_case_that_must_be_like_another_may_raise_as_well(check):
    check(PLAIN, pictures(), update="auto")
    check(TWICE, [], ERROR, update="auto")
    assert verdict(check(TWICE, [], ERROR)) == Verdict.RAISES_AS_BEFORE
    assert verdict(check(TWICE, pictures())) == Verdict.WORKS_NOW


OF_THE_MACHINE = [
    RaisedError.of(error)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("device-side assert triggered"),
        MemoryError(),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GiB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    )
]


@pytest.mark.parametrize("error", OF_THE_MACHINE, ids=lambda error: error.sentence[:50])
@pytest.mark.parametrize("accepted", [False, True], ids=["no golden", "a golden"])
def test_a_failure_of_memory_or_device_never_becomes_a_golden(check, tmp_path, error, accepted):
    if accepted:
        check(PLAIN, pictures(), update="auto")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    found = check(PLAIN, [], error, update="auto", errors=True)
    assert not found.verdict.passes
    assert "not accepted: memory or the device failed" in found.pictures.message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_an_error_without_a_reported_issue_is_accepted_on_request_only(check, tmp_path):
    case = sentinel(issue=None)
    found = check(case, [], ERROR, update="auto")
    assert verdict(found) == Verdict.MISSING
    assert "name the report of this error as 'issue' in the suite file" in found.pictures.message
    assert not list(tmp_path.rglob("*.*"))
    check(case, [], ERROR, update="auto", errors=True)
    assert verdict(check(case, [], ERROR)) == Verdict.RAISES_AS_BEFORE


@pytest.mark.parametrize("error", [ERROR, RaisedError(type="RuntimeError", message="shapes cannot be multiplied")])
def test_what_the_libraries_raise_is_no_failure_of_the_machine(error):
    assert not error.is_of_the_machine


def test_a_timed_case_may_raise_too(check, tmp_path):
    timed = sentinel(sentinel="")
    check(timed, pictures(), update="auto")
    assert verdict(check(timed, [], ERROR)) == Verdict.RAISES_NOW
    check(timed, [], ERROR, update="auto")
    assert verdict(check(timed, [], ERROR)) == Verdict.RAISES_AS_BEFORE
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".json"]


def test_other_settings_make_a_sentinel_that_raises_stale(check):
    check(PLAIN, [], ERROR, update="auto")
    other = PLAIN.model_copy(update={"settings": PLAIN.settings.model_copy(update={"prompts": ("a cat",)})})
    assert verdict(check(other, [], ERROR)) == Verdict.STALE


def test_work_of_a_sentinel_is_compared_and_accepted(check):
    check(PLAIN, pictures(), update="auto", syncs=5)
    assert check(PLAIN, pictures(), syncs=5).verdict == Verdict.IDENTICAL
    assert check(PLAIN, pictures(), syncs=10).verdict == "more work"
    check(PLAIN, pictures(), update="auto", syncs=10)
    assert check(PLAIN, pictures(), syncs=10).verdict == Verdict.IDENTICAL


def test_a_damaged_group_breaks_all_its_cases(check, tmp_path):
    check(PLAIN, pictures(), update="auto")
    (tmp_path / "tiny-sd" / "ways.json").write_text("{")
    for case in (PLAIN, OTHER):
        found = check(case, pictures())
        assert verdict(found) == Verdict.BROKEN
        assert "ways.json" in found.pictures.message


def test_entries_and_groups_that_no_case_uses_are_named(check, tmp_path):
    for case in (PLAIN, TWICE, OTHER, sentinel(sentinel="lost")):
        check(case, pictures(), update="auto")
    assert unused_goldens(tmp_path, [PLAIN, TWICE, OTHER]) == [
        str(tmp_path / "tiny-sd" / name) for name in ("lost.json", "lost.png")
    ]
    unused = unused_goldens(tmp_path, [PLAIN, TWICE, sentinel(sentinel="lost")])
    assert unused == [f"{tmp_path / 'tiny-sd' / 'ways.png'} (pndm-s7-g7.5-fp32)"]


def calibrated(max_diff: int, ssim: float) -> CalibratedLimits:
    strict = Limits(ssim=ssim, max_diff=max_diff, changed_share=1.0, mean_diff=9.0, reason=f"{max_diff} levels")
    return CalibratedLimits(
        strict=strict,
        portable=strict,
        evidence=(VariationMeasured(name="1 thread", tier=STRICT, ssim=1, max_diff=0, changed_share=0, mean_diff=0),),
        margin="made up",
        processor=PROCESSOR.name,
        instruction_set=instruction_set(PROCESSOR),
        libraries={},
        date="2026-11-22",
    )


def test_limits_apply_to_cases_that_must_match_too(check, tmp_path):
    for case in (PLAIN, TWICE):
        check(case, pictures(), update="auto")
    accept_limits(tmp_path, PLAIN, PROCESSOR, calibrated(9, 0.9999))
    accept_limits(tmp_path, TWICE, PROCESSOR, calibrated(4, 0.5))
    assert verdict(check(TWICE, pictures(lift=9))) == Verdict.WITHIN_LIMITS
    assert verdict(check(TWICE, pictures(lift=10))) == Verdict.CHANGED
    for case, levels, ssim in ((TWICE, 9, 0.5), (PLAIN, 9, 0.9999)):
        limits = limits_side_by_side(tmp_path, case, PROCESSOR)
        assert (limits.max_diff, limits.ssim) == (levels, ssim)
