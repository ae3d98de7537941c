"""Known differences: what a case shows with other releases of its libraries instead of its golden."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from bench.calls.device import instruction_set
from bench.calls.raised import RaisedError
from bench.calls.work import Work
from bench.pictures.accept import accept_difference
from bench.pictures.check import check_golden
from bench.pictures.limits import STRICT, CalibratedLimits, VariationMeasured
from bench.pictures.outcomes import Difference, Outcome, read_requirement
from bench.pictures.similarity import Limits
from bench.pictures.store import (
    GoldenError,
    accept_limits,
    golden_place,
    known_difference,
    read_golden,
    unused_goldens,
)
from bench.pictures.store import describe_origin as origin_of
from bench.suite.case import Case, Model, Settings
from bench.verdicts import Verdict

PROCESSOR: Any = SimpleNamespace(type="cpu", name="Some Processor")
OTHER_PROCESSOR: Any = SimpleNamespace(type="cpu", name="Another Processor")
GPU: Any = SimpleNamespace(type="cuda", name="NVIDIA H100")
OTHER_GPU: Any = SimpleNamespace(type="cuda", name="NVIDIA A10")
MODEL = Model(name="tiny-sd", kind="stable-diffusion", source="embedded")
NEW = {"diffusers": "0.42.1", "transformers": "5.24.0", "torch": None}
OLD = NEW | {"diffusers": "0.30.3"}
BEFORE_31 = Difference(when=("diffusers<0.31",), reason="noise drawn at other steps")
ERROR = RaisedError(type="IndexError", message="index 5 is out of bounds")
OTHER_ERROR = RaisedError(type="KeyError", message="'sigma'")


def case_with(**settings: Any) -> Case:
    usual = {"scheduler": "pndm", "steps": 5, "guidance": 7.5, "images": 2, "prompts": ("a fox", "a cat")}
    usual["issue"] = "https://example.org/issues/2"
    return Case(model=MODEL, settings=Settings(**(usual | settings)))


TIMED, SENTINEL, TWICE = case_with(), case_with(sentinel="ways"), case_with(sentinel="ways", scenario="called-twice")


def pictures(number: int = 0, lift: int = 0) -> list[Image.Image]:
    levels = np.random.default_rng(number).integers(40, 200, (2, 32, 32, 3), dtype=np.uint8)
    return [Image.fromarray(one + np.uint8(lift)) for one in levels]


def work(syncs: int) -> Work:
    return Work(
        {"aten::mm": 9}, {"item": syncs}, copies=0, copied_bytes=0, peak_bytes=9, unet_calls=5, flops=9, tokens=9
    )


def calibrated(max_diff: int) -> CalibratedLimits:
    limits = Limits(ssim=0.5, max_diff=max_diff, changed_share=1.0, mean_diff=9.0, reason="measured")
    return CalibratedLimits(
        strict=limits,
        portable=limits,
        evidence=(VariationMeasured(name="1 thread", tier=STRICT, ssim=1, max_diff=0, changed_share=0, mean_diff=0),),
        margin="made up",
        processor=PROCESSOR.name,
        instruction_set=instruction_set(PROCESSOR),
        libraries={},
        date="2026-11-22",
    )


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Store:
    """A golden store in which ``shown`` is a list of pictures, or the error that a case raises."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.announced: list[str] = []

    def check(self, case, shown, libraries=NEW, *, update=None, syncs=None, device=PROCESSOR):
        made = self._made(case, shown, libraries, syncs, device)
        return check_golden(*made, update=update, announce=self.announced.append)

    def accept(self, case, shown, libraries=OLD, *, difference=BEFORE_31, device=PROCESSOR):
        made = self._made(case, shown, libraries, None, device)
        return accept_difference(*made, difference=difference, announce=self.announced.append)

    def _made(self, case, shown, libraries, syncs, device):
        error = shown if isinstance(shown, RaisedError) else None
        counted = None if syncs is None else work(syncs)
        origin = origin_of(case, "w" * 64, None, device, libraries, error=error, work=counted)
        return case, [] if error else shown, origin, self.root, device

    def others(self, case) -> tuple[Outcome, ...]:
        return read_golden(golden_place(self.root, case, PROCESSOR, "reference")).origin.others


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "golden")


@pytest.fixture(params=[TIMED, SENTINEL], ids=["timed", "sentinel"])
def case(request):
    return request.param


@pytest.fixture
def known(store, case):
    """A golden that differs with old releases."""
    store.check(case, pictures(), update="auto")
    store.accept(case, pictures(1))
    return store


@pytest.mark.parametrize(
    ("when", "libraries", "expected"),
    [
        (["diffusers<0.31"], OLD, True),
        (["diffusers<0.31"], NEW, False),
        (["diffusers>=0.28,<0.31"], OLD, True),
        (["diffusers<0.31", "transformers<5"], OLD, False),
        (["diffusers<0.31", "transformers>=5"], OLD, True),
        (["diffusers>=0.43.0.dev0"], {"diffusers": "0.43.0.dev0"}, True),
        (["torch==2.9.*"], {"torch": "2.9.0+cpu"}, True),
        (["Scikit_Image>0.2"], {"scikit-image": "0.26"}, True),
        (["torch<3"], NEW, False),
        (["unheard-of>0"], NEW, False),
    ],
)
def test_a_difference_applies_if_all_its_requirements_are_met(when, libraries, expected):
    assert Difference(when=tuple(when), reason="why").holds_with(libraries) is expected


@pytest.mark.parametrize("text", ["diffusers", "0.31", "diffusers<", "diffusers[x]<1", "a<1; python_version>'3'", ""])
def test_something_else_than_a_range_of_a_library_is_refused(text):
    with pytest.raises(ValueError, match="is no"):
        read_requirement(text)
    with pytest.raises(ValidationError):
        Difference(when=(text,), reason="why")


def test_a_difference_needs_a_range_and_a_reason():
    for when, reason in (((), "why"), (("diffusers<1",), "")):
        with pytest.raises(ValidationError):
            Difference(when=when, reason=reason)


def test_one_range_written_in_two_ways_is_one():
    one = Difference(when=("torch<2", "Diffusers <0.31, >=0.28"), reason="why")
    other = Difference(when=("diffusers>=0.28,<0.31", "torch <2"), reason="why")
    assert (one.when, one.slug) == (other.when, other.slug)
    assert one.slug == "diffusers-from-0.28-below-0.31-torch-below-2"


@pytest.mark.parametrize("text", ["a<1", "a<=1", "a>1", "a>=1", "a==1", "a==1.*", "a!=1", "a~=1.0", "a==1+cpu"])
def test_every_range_has_its_own_name_that_is_safe_in_a_path(text):
    slugs = {Difference(when=(one,), reason="why").slug for one in ("a<1", "a<=1", "a>1", "a>=1", "a==1", "a!=1")}
    assert len(slugs) == 6
    assert set(Difference(when=(text,), reason="why").slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def test_old_releases_are_compared_with_their_known_difference(known, case):
    found = known.check(case, pictures(1), OLD)
    assert found.verdict == Verdict.IDENTICAL
    assert "known difference with diffusers<0.31: noise drawn at other steps" in found.pictures.message
    assert known.check(case, pictures()).verdict == Verdict.IDENTICAL
    assert "known difference" not in known.check(case, pictures()).pictures.message
    assert known.check(case, pictures(1)).verdict == Verdict.CHANGED
    assert known.check(case, pictures(2), OLD).verdict == Verdict.CHANGED


def test_the_same_limits_decide(known, case):
    accept_limits(known.root, case, PROCESSOR, calibrated(9))
    assert [known.check(case, pictures(1, lift), OLD).verdict for lift in (9, 10)] == [
        Verdict.WITHIN_LIMITS,
        Verdict.CHANGED,
    ]


def test_the_tier_is_that_of_the_device_that_drew_the_difference(store):
    store.check(TIMED, pictures(), update="auto")
    store.accept(TIMED, pictures(1), device=OTHER_PROCESSOR)
    tiers = [store.check(TIMED, pictures(1), OLD, device=one).pictures.tier for one in (PROCESSOR, OTHER_PROCESSOR)]
    assert tiers == ["this type of device", "this machine"]


def test_accepting_fails_keeps_the_golden_and_the_next_run_passes(store, case):
    store.check(case, pictures(), update="auto")
    place = golden_place(store.root, case, PROCESSOR, "reference")
    before = place.picture.read_bytes()
    accepting = store.accept(case, pictures(1))
    assert accepting.verdict == Verdict.CHANGED
    assert "accepted as known difference with diffusers<0.31" in accepting.pictures.message
    assert "with diffusers<0.31 (changed, SSIM was " in store.announced[-1]
    assert place.picture.read_bytes() == before
    assert Verdict(store.check(case, pictures(1), OLD).verdict).passes
    (other,) = store.others(case)
    assert (other.when, other.reason, other.error) == (BEFORE_31.when, BEFORE_31.reason, None)
    assert (other.libraries, other.device) == ({"diffusers": "0.30.3"}, {"type": "cpu", "name": PROCESSOR.name})
    assert place.pictures_of_others() == [place.picture_of(other)]
    assert read_golden(place).tiles[0].tobytes() == pictures()[0].tobytes()


def test_files_without_known_differences_do_not_mention_them(store, case):
    store.check(case, pictures(), update="auto")
    assert "others" not in golden_place(store.root, case, PROCESSOR, "reference").origin.read_text()


def test_what_matches_the_golden_is_not_a_difference(store, case):
    store.check(case, pictures(), update="auto")
    before = contents(store.root)
    assert store.accept(case, pictures()).verdict == Verdict.IDENTICAL
    assert contents(store.root) == before


def test_a_difference_is_written_again_only_with_another_reason(known, case):
    before = contents(known.root)
    assert known.accept(case, pictures(1)).verdict == Verdict.IDENTICAL
    assert contents(known.root) == before
    anew = Difference(when=("diffusers<0.32",), reason="the noise of the last step is drawn too")
    assert known.accept(case, pictures(1), difference=anew).verdict == Verdict.CHANGED
    (other,) = known.others(case)
    assert (other.when, other.reason) == (anew.when, anew.reason)
    assert len(list(known.root.rglob("*+*"))) == 1


def test_a_case_may_differ_with_several_releases(known, case):
    middle = OLD | {"diffusers": "0.35.0"}
    until_36 = Difference(when=("diffusers>=0.31,<0.36",), reason="sigmas were rounded")
    assert known.accept(case, pictures(2), middle, difference=until_36).verdict == Verdict.CHANGED
    shown = [known.check(case, pictures(number), with_) for number, with_ in enumerate((NEW, OLD, middle))]
    assert [found.verdict for found in shown] == [Verdict.IDENTICAL] * 3


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((pictures(), ERROR, ERROR), Verdict.RAISES_AS_BEFORE),
        ((pictures(), ERROR, OTHER_ERROR), Verdict.RAISES_ELSE),
        ((pictures(), ERROR, pictures(1)), Verdict.WORKS_NOW),
        ((ERROR, pictures(), pictures()), Verdict.IDENTICAL),
        ((ERROR, pictures(), OTHER_ERROR), Verdict.RAISES_NOW),
        ((ERROR, OTHER_ERROR, OTHER_ERROR), Verdict.RAISES_AS_BEFORE),
    ],
)
def test_a_difference_may_be_that_a_case_raises_or_works(store, case, shown, expected):
    usual, then, now = shown
    store.check(case, usual, update="auto")
    accepting = store.accept(case, then)
    assert not Verdict(accepting.verdict).passes
    found = store.check(case, now, OLD)
    assert (found.verdict, Verdict(found.verdict).passes) == (
        expected,
        expected in (Verdict.IDENTICAL, Verdict.RAISES_AS_BEFORE),
    )
    assert Verdict(store.check(case, usual).verdict).passes


def test_a_failure_of_memory_is_no_known_difference(store, case):
    store.check(case, pictures(), update="auto")
    before = contents(store.root)
    found = store.accept(case, RaisedError(type="OutOfMemoryError", message="CUDA out of memory."))
    assert "not accepted: memory or the device failed" in found.pictures.message
    assert not found.verdict.passes
    assert contents(store.root) == before


@pytest.mark.parametrize(
    ("usual", "then", "expected"),
    [
        (pictures(), pictures(1), Verdict.CHANGED),
        (pictures(), ERROR, Verdict.WORKS_NOW),
        (ERROR, pictures(1), Verdict.RAISES_NOW),
    ],
)
def test_a_difference_that_is_gone_fails_until_it_is_removed(store, case, usual, then, expected):
    store.check(case, usual, update="auto")
    before = contents(store.root)
    store.accept(case, then)
    found = store.check(case, usual, OLD)
    assert found.verdict == expected
    assert not Verdict(found.verdict).passes
    gone = "known difference with diffusers<0.31: noise drawn at other steps no longer appears"
    assert gone in found.pictures.message
    assert store.check(case, usual, OLD, update="auto").verdict == expected
    assert "removed from" in store.announced[-1]
    assert contents(store.root) == before
    assert Verdict(store.check(case, usual, OLD).verdict).passes


def test_a_difference_of_another_size_that_is_gone_is_not_broken(known, case):
    path = golden_place(known.root, case, PROCESSOR, "reference").picture_of(known.others(case)[0])
    assert path.is_file()
    larger = [image.resize((40, 40)) for image in pictures(1)]
    known.accept(case, larger)
    assert known.check(case, larger, OLD).verdict == Verdict.IDENTICAL
    assert known.check(case, pictures(2), OLD).verdict == Verdict.BROKEN
    assert known.check(case, pictures(), OLD).verdict == Verdict.CHANGED


def test_pictures_of_other_releases_never_become_the_golden(known, case):
    before = contents(known.root)
    for shown, expected in (
        (pictures(2), Verdict.CHANGED),
        (ERROR, Verdict.RAISES_NOW),
        (pictures(1), Verdict.IDENTICAL),
    ):
        assert known.check(case, shown, OLD, update="auto").verdict == expected
    assert "--golden-for" in known.check(case, pictures(2), OLD, update="auto").pictures.message
    assert contents(known.root) == before


def test_an_update_of_the_golden_keeps_its_known_differences(known, case):
    assert known.check(case, pictures(3), update="auto").verdict == Verdict.CHANGED
    assert known.check(case, pictures(3)).verdict == Verdict.IDENTICAL
    assert known.check(case, pictures(1), OLD).verdict == Verdict.IDENTICAL


def test_a_new_recipe_removes_them_and_their_pictures(known, case):
    prompts = case.settings.model_copy(update={"prompts": ("a fox", "an owl")})
    altered = case.model_copy(update={"settings": prompts})
    assert known.check(altered, pictures(1), OLD).verdict == Verdict.STALE
    assert known.accept(altered, pictures(1)).verdict == Verdict.STALE
    assert known.check(altered, pictures(3), update="auto").verdict == Verdict.STALE
    assert known.others(case) == ()
    assert not list(known.root.rglob("*+*"))


def test_work_is_not_compared_with_a_known_difference(store, case):
    store.check(case, pictures(), update="auto", syncs=5)
    store.accept(case, pictures(1))
    found = store.check(case, pictures(1), OLD, syncs=50)
    assert (found.verdict, found.work.verdict) == (Verdict.IDENTICAL, Verdict.NOT_COMPARED)
    assert store.check(case, pictures(), syncs=5).work.verdict == Verdict.SAME_WORK


def test_a_range_that_includes_the_golden_is_refused(store, case):
    store.check(case, pictures(), update="auto")
    before = contents(store.root)
    too_wide = Difference(when=("diffusers<0.50", "transformers>=5"), reason="why")
    with pytest.raises(GoldenError, match=r"also applies to the golden \(diffusers 0\.42\.1, transformers 5\.24\.0\)"):
        store.accept(case, pictures(1), difference=too_wide)
    assert contents(store.root) == before


def test_a_difference_needs_a_golden_of_its_type_of_device(store, case):
    assert store.accept(case, pictures(1)).verdict == Verdict.MISSING
    assert not list(store.root.rglob("*.*"))
    store.check(case, pictures(), update="auto", device=GPU)
    with pytest.raises(GoldenError, match="was made on cuda"):
        store.accept(case, pictures(1))


def test_no_accelerator_changes_the_known_differences_of_another_model(store, case):
    store.check(case, pictures(), update="auto", device=GPU)
    store.accept(case, pictures(1), device=GPU)
    before = contents(store.root)
    with pytest.raises(GoldenError, match="made on NVIDIA H100 and this is NVIDIA A10"):
        store.accept(case, pictures(2), device=OTHER_GPU)
    assert store.check(case, pictures(), OLD, device=OTHER_GPU).verdict == Verdict.CHANGED
    with pytest.raises(GoldenError, match="made on NVIDIA H100 and this is NVIDIA A10"):
        store.check(case, pictures(), OLD, update="auto", device=OTHER_GPU)
    assert contents(store.root) == before


def test_a_scenario_follows_the_known_difference_of_the_plain_case(store):
    for one in (SENTINEL, TWICE):
        store.check(one, pictures(), update="auto")
    store.accept(SENTINEL, pictures(1))
    assert store.check(TWICE, pictures(1), OLD).verdict == Verdict.IDENTICAL
    found = store.check(TWICE, pictures(), OLD)
    assert found.verdict == Verdict.CHANGED
    assert f"differs from {SENTINEL.id}, which it must match" in found.pictures.message
    assert "no longer appears" not in found.pictures.message
    store.accept(SENTINEL, ERROR)
    assert store.check(TWICE, ERROR, OLD).verdict == Verdict.RAISES_AS_BEFORE


def test_a_scenario_may_differ_with_old_releases(store):
    for one in (SENTINEL, TWICE):
        store.check(one, pictures(), update="auto")
    store.accept(TWICE, pictures(1))
    assert store.check(TWICE, pictures(1), OLD).verdict == Verdict.IDENTICAL
    assert store.check(SENTINEL, pictures(), OLD).verdict == Verdict.IDENTICAL
    assert "no longer appears" in store.check(TWICE, pictures(), OLD).pictures.message


def test_limits_are_accepted_with_known_differences(known, case):
    before = contents(known.root)
    place = golden_place(known.root, case, PROCESSOR, "reference")
    origin = read_golden(place).origin
    accept_limits(known.root, case, PROCESSOR, calibrated(9))
    assert read_golden(place).origin == origin.model_copy(update={"limits": calibrated(9)})
    after = contents(known.root)
    assert {name for name in before if before[name] != after[name]} == {str(place.origin.relative_to(known.root))}


def test_pictures_of_known_differences_are_used_while_named(known, case):
    assert unused_goldens(known.root, [case]) == []
    (path,) = known.root.rglob("*+*.png")
    lost = path.with_name(path.name.replace("0.31", "0.29"))
    stray = path.with_name(path.name.replace("pndm", "unipc"))
    for copy in (lost, stray):
        shutil.copy(path, copy)
    assert sorted(unused_goldens(known.root, [case])) == sorted(map(str, (lost, stray)))


def test_pictures_of_a_damaged_golden_are_not_unused(known, case):
    golden_place(known.root, case, PROCESSOR, "reference").origin.write_text("{")
    assert unused_goldens(known.root, [case]) == []


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no picture")])
def test_an_unreadable_picture_breaks_only_its_difference(known, case, damage):
    (path,) = known.root.rglob("*+*.png")
    damage(path)
    found = known.check(case, pictures(1), OLD)
    assert found.verdict == Verdict.BROKEN
    assert path.name in found.pictures.message
    assert "--golden-for diffusers<0.31" in found.pictures.message
    assert known.check(case, pictures()).verdict == Verdict.IDENTICAL


def test_another_picture_in_its_place_is_noticed(known, case):
    (path,) = known.root.rglob("*+*.png")
    Image.new("RGB", (64, 32)).save(path)
    assert known.check(case, pictures(1), OLD).verdict == Verdict.BROKEN


def test_a_full_disk_changes_neither_golden_nor_difference(known, case, monkeypatch):
    before = contents(known.root)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GoldenError, match="No space left"):
        known.accept(case, pictures(2))
    assert contents(known.root) == before


@pytest.mark.parametrize("change", [{"when": ["diffusers"]}, {"reason": ""}, {"device": {}}, {"because": "typo"}])
def test_a_damaged_difference_is_a_damaged_golden(known, case, change):
    path = golden_place(known.root, case, PROCESSOR, "reference").origin
    document = json.loads(path.read_text())
    entry = document["cases"][case.id] if case == SENTINEL else document
    entry["others"][0] |= change
    path.write_text(json.dumps(document))
    assert known.check(case, pictures()).verdict == Verdict.BROKEN


def test_the_known_difference_of_a_case_can_be_asked_for(known, case):
    assert known_difference(known.root, case, PROCESSOR, OLD) == known.others(case)[0]
    assert known_difference(known.root, case, PROCESSOR, NEW) is None
    assert known_difference(known.root, case_with(steps=9), PROCESSOR, OLD) is None
