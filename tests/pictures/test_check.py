"""The life cycle of a golden, without a pipeline: missing, accepted, within limits, changed, stale, damaged, unused."""

import errno
import itertools
import json
import os
import shutil
import tempfile
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.calls.device import instruction_set
from bench.calls.work import Work
from bench.pictures.check import Check, check_golden, limits_side_by_side, same_pixels
from bench.pictures.limits import OTHER, PORTABLE, STRICT, CalibratedLimits, VariationMeasured, default_limits
from bench.pictures.similarity import Limits
from bench.pictures.store import (
    GoldenError,
    GoldenPlace,
    accept_limits,
    describe_origin,
    find_golden,
    golden_place,
    read_golden,
    unused_goldens,
    write_golden,
)
from bench.record.record import Record
from bench.report.reasons import across_devices
from bench.suite.case import Case, Model, Settings
from bench.verdicts import Verdict

PROCESSOR: Any = SimpleNamespace(type="cpu", name="Some Processor (R) 9000")
OTHER_PROCESSOR: Any = SimpleNamespace(type="cpu", name="Another Processor")
GPU: Any = SimpleNamespace(type="cuda", name="NVIDIA H100 80GB HBM3")
OTHER_GPU: Any = SimpleNamespace(type="cuda", name="NVIDIA A10")
WEIGHTS, OTHER_WEIGHTS = "a" * 64, "b" * 64
TOLERANT = Limits(ssim=0.9, max_diff=20, changed_share=1.0, mean_diff=2.0, reason="measured for this test")
GENEROUS = Limits(ssim=0.5, max_diff=99, changed_share=1.0, mean_diff=9.0, reason="measured elsewhere")
CALIBRATED = CalibratedLimits(
    strict=TOLERANT,
    portable=GENEROUS,
    evidence=(
        VariationMeasured(name="1 thread", tier=STRICT, ssim=0.95, max_diff=9, changed_share=0.5, mean_diff=0.9),
    ),
    margin="twice the worst",
    processor=PROCESSOR.name,
    instruction_set=instruction_set(PROCESSOR),
    libraries={"torch": "2.9.0"},
    date="2026-11-22",
)
MODEL = Model(name="tiny-sd", kind="stable-diffusion", source="embedded")
LEVELS = {"device": "@cuda-nvidia-h100-80gb-hbm3", "type": "@cuda", "reference": ""}


WORK = Work(
    operators={"aten::mm": 100, "aten::silu": 1000},
    host_syncs={"aten::_local_scalar_dense": 22},
    copies=3,
    copied_bytes=9000,
    peak_bytes=50_000,
    unet_calls=4,
    flops=2_000_000,
    tokens=96,
)
MORE = replace(WORK, host_syncs={"aten::_local_scalar_dense": 26})
LESS = replace(WORK, host_syncs={"aten::_local_scalar_dense": 18})
WITHIN_MARGINS = replace(WORK, operators={"aten::mm": 100, "aten::silu": 1005})


def case_with(**settings: Any) -> Case:
    usual = {"scheduler": "pndm", "steps": 20, "guidance": 7.5, "images": 3, "prompts": ("a fox", "a cat", "an owl")}
    return Case(model=MODEL, settings=Settings(**(usual | settings)))


CASE = case_with()


def pictures(number: int = 0, count: int = 3, width: int = 24, height: int = 16) -> list[Image.Image]:
    levels = np.random.default_rng(number).integers(40, 216, (count, height, width, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in levels]


def brighter(images: list[Image.Image], levels: int) -> list[Image.Image]:
    return [image.point(lambda level: level + levels) for image in images]


def origin_of(case=CASE, *, weights=WEIGHTS, device=PROCESSOR, limits=None):
    origin = describe_origin(case, weights, None, device, {"torch": "2.9.0", "diffusers": None})
    return origin.model_copy(update={"limits": limits})


def accept(root, images, case=CASE, *, device=PROCESSOR, level="reference", weights=WEIGHTS, limits=None):
    place = golden_place(root, case, device, level)
    write_golden(place, images, origin_of(case, weights=weights, device=device, limits=limits))
    return place.picture


def check(root, images, case=CASE, *, device=PROCESSOR, weights=WEIGHTS, update=None, announced=None):
    lines: list[str] = [] if announced is None else announced
    origin = origin_of(case, weights=weights, device=device)
    return check_golden(case, images, origin, root, device, update=update, announce=lines.append).pictures


def check_work(root, work, images=None, case=CASE, *, device=PROCESSOR, update=None, announced=None) -> Check:
    """As ``check``, with counted work; the pictures are the accepted ones by default."""
    lines: list[str] = [] if announced is None else announced
    origin = origin_of(case, device=device).model_copy(update={"work": work.to_json() if work else None})
    return check_golden(case, images or pictures(), origin, root, device, update=update, announce=lines.append)


def contents(root) -> dict[str, bytes]:
    """Every file in the store, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "golden"


@pytest.fixture
def golden(root):
    """The accepted picture of the case, from the processor."""
    return accept(root, pictures(), limits=CALIBRATED)


def test_a_case_without_golden_is_missing_and_nothing_is_written(root):
    found = check(root, pictures())
    assert found.verdict == Verdict.MISSING
    assert str(root / "tiny-sd" / "pndm-s20-g7.5-fp32.png") in found.message
    assert "--golden-update" in found.message
    assert found.golden is None
    assert not root.exists()


def test_the_accepted_pictures_are_identical_to_their_golden(root, golden):
    found = check(root, pictures())
    assert found.verdict == Verdict.IDENTICAL
    assert (found.ssim_worst_tile, found.max_diff, found.changed_share) == (1.0, 0, 0.0)
    assert found.golden == str(golden)


def test_a_golden_returns_the_pictures_and_origin_that_were_written(golden):
    kept = read_golden(GoldenPlace(golden))
    assert same_pixels(kept.tiles, pictures())
    assert kept.origin.case == CASE.id
    assert kept.origin.settings["prompts"] == ["a fox", "a cat", "an owl"]
    assert kept.origin.seeds == (0, 1, 2)
    assert kept.origin.weights == WEIGHTS
    assert kept.origin.device == {"type": PROCESSOR.type, "name": PROCESSOR.name}
    assert kept.origin.libraries == {"torch": "2.9.0", "diffusers": None}
    assert kept.origin.limits == CALIBRATED


@pytest.mark.parametrize(
    ("levels", "verdict"), [(0, Verdict.IDENTICAL), (2, Verdict.WITHIN_LIMITS), (3, Verdict.CHANGED)]
)
def test_the_limits_of_the_golden_decide(root, golden, levels, verdict):
    found = check(root, brighter(pictures(), levels))
    assert found.verdict == verdict
    assert found.limits == TOLERANT
    assert found.max_diff == levels
    assert found.mean_diff == (levels, levels, levels)
    assert len(found.ssim_tiles or ()) == 3


def test_a_changed_picture_is_reported_with_score_and_limit(root, golden):
    found = check(root, [*pictures()[:2], pictures(9)[2]])
    assert found.verdict == Verdict.CHANGED
    assert str(golden) in found.message
    assert f"SSIM {found.ssim_worst_tile:.5f} in tile 3 of 3 (limit 0.9)" in found.message
    assert "\n" not in found.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("device", "tier"), [(PROCESSOR, STRICT), (OTHER_PROCESSOR, PORTABLE), (GPU, OTHER)])
def test_a_golden_without_limits_has_those_of_dtype_and_tier(root, dtype, device, tier):
    case = case_with(dtype=dtype)
    accept(root, pictures(), case)
    found = check(root, brighter(pictures(), 1), case, device=device)
    assert found.limits == default_limits(dtype, tier)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_defaults_are_looser_for_machines_unlike_the_golden_s(dtype):
    tiers = [default_limits(dtype, tier) for tier in (STRICT, PORTABLE, OTHER)]
    for nearer, farther in itertools.pairwise(tiers):
        assert nearer.ssim >= farther.ssim
        assert nearer.max_diff <= farther.max_diff
        assert nearer.changed_share <= farther.changed_share
        assert nearer.mean_diff <= farther.mean_diff


@pytest.mark.parametrize("device", [PROCESSOR, OTHER_PROCESSOR, GPU])
def test_measured_limits_are_wider_on_other_machines(root, golden, device):
    expected = {
        PROCESSOR.name: TOLERANT,
        OTHER_PROCESSOR.name: GENEROUS,
        GPU.name: default_limits("float32", OTHER),
    }
    assert check(root, brighter(pictures(), 1), device=device).limits == expected[device.name]


ACROSS = Limits(ssim=0.98, max_diff=12, changed_share=1.0, mean_diff=1.5, reason="measured at TF32 rounding")


@pytest.fixture
def calibrated_golden(root):
    """``calibrated_golden(other=…)`` is a golden of this processor whose limits were measured."""
    return lambda **limits: accept(root, pictures(), limits=CALIBRATED.model_copy(update=limits))


def test_measured_limits_for_another_type_of_device_are_used(root, calibrated_golden):
    calibrated_golden(other=ACROSS)
    found = check(root, brighter(pictures(), 1), device=GPU)
    assert (found.limits, found.tier) == (ACROSS, OTHER)
    assert check(root, brighter(pictures(), 13), device=GPU).verdict == Verdict.CHANGED


def test_an_unstable_case_is_not_compared_across_types_of_device(root, calibrated_golden):
    calibrated_golden(unstable="'TF32 twins' turns a tile into another picture (SSIM 0.7870)")
    found = check(root, pictures(9), device=GPU)
    assert found.verdict == Verdict.NOT_COMPARED
    assert found.message == (
        "not compared: its golden was made on cpu, and at the rounding of another type of device 'TF32 twins' turns a "
        "tile into another picture (SSIM 0.7870); accept a golden of this device with --golden-update"
    )
    assert check(root, pictures(9), device=OTHER_PROCESSOR).verdict == Verdict.CHANGED


def test_a_case_that_is_not_compared_gets_a_golden_on_request(root, calibrated_golden):
    calibrated_golden(unstable="'TF32 twins' turns a tile into another picture (SSIM 0.7870)")
    assert check(root, pictures(9), device=GPU, update="auto").verdict == Verdict.NOT_COMPARED
    assert check(root, pictures(9), device=GPU).verdict == Verdict.IDENTICAL
    assert check(root, pictures(), device=PROCESSOR).verdict == Verdict.IDENTICAL


def test_a_run_counts_cases_with_limits_of_another_type_of_device(root, calibrated_golden):
    calibrated_golden(other=ACROSS)
    near, far = (check(root, pictures(), device=device) for device in (PROCESSOR, GPU))
    unstable = far.model_copy(update={"verdict": Verdict.NOT_COMPARED})
    records = [
        Record(
            case="tiny", model="tiny", settings={}, device="cuda", environment="e", verdict=one.verdict, pictures=one
        )
        for one in (near, far, unstable)
    ]
    assert across_devices(records[:1]) == ""
    assert "2 cases have wider limits, 1 of them not compared because they are unstable there" in across_devices(
        records
    )
    assert "pytest -m golden --golden-update" in across_devices(records)
    simulated = [record.model_copy(update={"device": "sim"}) for record in records]
    assert across_devices(simulated).endswith("because they are unstable there")


def test_other_instructions_are_another_machine_of_the_same_name(root, golden, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert check(root, brighter(pictures(), 1)).limits == GENEROUS


@pytest.mark.parametrize("device", [PROCESSOR, OTHER_PROCESSOR])
def test_runs_on_one_machine_are_judged_by_the_strict_limits(root, golden, device):
    assert limits_side_by_side(root, CASE, device) == TOLERANT


@pytest.mark.parametrize(
    ("asked", "device", "damage"),
    [
        pytest.param(CASE, GPU, None, id="another type of device"),
        pytest.param(case_with(prompts=("a fox", "a dog", "an owl")), PROCESSOR, None, id="another recipe"),
        pytest.param(case_with(steps=4), PROCESSOR, None, id="no golden"),
        pytest.param(CASE, PROCESSOR, lambda path: path.write_text("{"), id="damaged"),
        pytest.param(CASE, PROCESSOR, lambda path: edit(path, limits=None), id="not measured"),
    ],
)
def test_runs_without_measured_limits_have_the_strict_default(root, golden, asked, device, damage):
    if damage:
        damage(golden.with_suffix(".json"))
    assert limits_side_by_side(root, asked, device) == default_limits("float32", STRICT)


def test_accepting_limits_changes_nothing_else_of_a_golden(root):
    path = accept(root, pictures())
    before = read_golden(GoldenPlace(path))
    picture = path.read_bytes()
    assert accept_limits(root, CASE, PROCESSOR, CALIBRATED) == path.with_suffix(".json")
    assert path.read_bytes() == picture
    assert read_golden(GoldenPlace(path)).origin == before.origin.model_copy(update={"limits": CALIBRATED})
    assert set(contents(root)) == {f"{CASE.id}.png", f"{CASE.id}.json"}


def test_limits_that_cannot_be_written_leave_the_old_origin(root, golden, monkeypatch):
    before = contents(root)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(GoldenError, match=r"No space left on device\); free disk space"):
        accept_limits(root, CASE, PROCESSOR, CALIBRATED.model_copy(update={"margin": "other"}))
    monkeypatch.undo()
    assert contents(root) == before


def test_limits_need_a_golden(root):
    with pytest.raises(GoldenError, match=r"no golden of tiny-sd/pndm-s20-g7.5-fp32 in .*; accept its picture"):
        accept_limits(root, CASE, PROCESSOR, CALIBRATED)


@pytest.mark.parametrize(
    ("asked", "weights", "words"),
    [
        (CASE, OTHER_WEIGHTS, "weights were aaaaaaaaaaaa and are bbbbbbbbbbbb"),
        (case_with(prompts=("a fox", "a dog", "an owl")), WEIGHTS, "prompts was ['a fox', 'a cat', 'an owl'] and is"),
        (case_with(images=2, prompts=("a fox", "a cat")), WEIGHTS, "images was 3 and is 2"),
    ],
    ids=["weights", "prompts", "number of images"],
)
def test_a_golden_of_another_recipe_is_stale_and_says_why(root, golden, asked, weights, words):
    found = check(root, pictures()[: asked.settings.images], asked, weights=weights)
    assert found.verdict == Verdict.STALE
    assert words in found.message
    assert str(golden) in found.message
    assert "\n" not in found.message


def test_a_golden_of_another_seed_is_stale_and_says_both_seeds(root, golden):
    edit(golden.with_suffix(".json"), settings=origin_of(case_with(seed=41)).settings, seeds=[41, 42, 43])
    found = check(root, pictures())
    assert found.verdict == Verdict.STALE
    assert "seed was 41 and is 0" in found.message


def test_a_stale_golden_has_a_score_too(root, golden):
    found = check(root, pictures(5), weights=OTHER_WEIGHTS)
    assert found.verdict == Verdict.STALE
    assert found.ssim_worst_tile is not None
    assert found.ssim_worst_tile < 0.5


def test_making_a_case_slow_does_not_make_its_golden_stale(root, golden):
    assert check(root, pictures(), case_with(slow=True)).verdict == Verdict.IDENTICAL


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (pictures(count=2), "images: 2 instead of 3"),
        (pictures(width=16), "size: 16x16 instead of 24x16"),
        ([image.convert("L") for image in pictures()], "mode: L instead of RGB"),
    ],
)
def test_pictures_of_another_number_size_or_mode_are_broken(root, golden, images, words):
    found = check(root, images)
    assert found.verdict == Verdict.BROKEN
    assert words in found.message
    assert str(golden) in found.message


def full_disk(*_paths):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def turn_into_folder(path):
    path.unlink()
    path.mkdir()


def reshape(path):
    picture = Image.open(path)
    Image.frombytes("RGB", (picture.width // 2, picture.height * 2), picture.tobytes()).save(path)


DAMAGES = {
    "no picture": (".png", lambda path: path.unlink()),
    "empty picture": (".png", lambda path: path.write_bytes(b"")),
    "text as picture": (".png", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1")),
    "truncated header": (".png", lambda path: path.write_bytes(path.read_bytes()[:20])),
    "truncated picture": (".png", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "one byte flipped": (".png", lambda path: path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAU", 1))),
    "folder as picture": (".png", turn_into_folder),
    "swapped picture": (".png", lambda path: shutil.copy(accept(path.parent, pictures(8), case_with(seed=8)), path)),
    "edited picture": (".png", lambda path: brighter([Image.open(path)], 1)[0].save(path)),
    "grey picture": (".png", lambda path: Image.open(path).convert("L").save(path)),
    "reshaped picture": (".png", reshape),
    "no origin": (".json", lambda path: path.unlink()),
    "empty origin": (".json", lambda path: path.write_text("")),
    "garbage origin": (".json", lambda path: path.write_text("<<<<<<< HEAD\n{}\n=======")),
    "truncated origin": (".json", lambda path: path.write_bytes(path.read_bytes()[:200])),
    "binary origin": (".json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "list as origin": (".json", lambda path: path.write_text("[]")),
    "unknown key in origin": (".json", lambda path: edit(path, colour="red")),
    "origin without seeds": (".json", lambda path: edit(path, seeds=[])),
    "origin without device": (".json", lambda path: edit(path, device={}, limits=None)),
    "limits without tiers": (".json", lambda path: edit(path, limits=TOLERANT.model_dump())),
    "limits without evidence": (".json", lambda path: edit(path, limits=CALIBRATED.model_dump() | {"evidence": []})),
    "unknown key in limits": (".json", lambda path: edit(path, limits=CALIBRATED.model_dump() | {"colour": "red"})),
    "origin with half of the work": (".json", lambda path: edit(path, work={"flops": 12})),
    "origin with counts that are none": (".json", lambda path: edit(path, work=WORK.to_json() | {"flops": "many"})),
    "folder as origin": (".json", turn_into_folder),
}


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_golden_is_one_sentence_that_names_the_file(root, golden, suffix, damage):
    damage(golden.with_suffix(suffix))
    found = check(root, pictures())
    assert found.verdict == Verdict.BROKEN
    assert str(golden.with_suffix(suffix)) in found.message
    assert "--golden-update" in found.message
    assert "\n" not in found.message


def test_every_truncation_of_a_picture_is_noticed(root, golden):
    whole = golden.read_bytes()
    for length in range(0, len(whole) - 64, 41):
        golden.write_bytes(whole[:length])
        assert check(root, pictures()).verdict == Verdict.BROKEN, f"{length} of {len(whole)} bytes"


def test_a_damaged_golden_is_not_skipped_for_an_intact_one(root, golden):
    nearer = accept(root, pictures(), device=GPU, level="type")
    nearer.unlink()
    assert check(root, pictures(), device=GPU).verdict == Verdict.BROKEN


@pytest.mark.parametrize("images", [pictures(), brighter(pictures(), 1), pictures(9), pictures(count=1)])
def test_a_run_that_did_not_ask_for_it_writes_nothing(root, golden, images):
    before = contents(root)
    announced: list[str] = []
    check(root, images, announced=announced)
    check(root, images, device=GPU, weights=OTHER_WEIGHTS, announced=announced)
    assert contents(root) == before
    assert announced == []


def test_an_update_leaves_an_identical_golden_as_it_is(root, golden):
    before = contents(root)
    announced: list[str] = []
    assert check(root, pictures(), update="auto", announced=announced).verdict == Verdict.IDENTICAL
    assert check(root, pictures(), update="device", announced=announced).verdict == Verdict.IDENTICAL
    assert contents(root) == before
    assert announced == []


def test_an_update_accepts_a_missing_golden_but_does_not_pass(root):
    announced: list[str] = []
    found = check(root, pictures(), update="auto", announced=announced)
    path = root / f"{CASE.id}.png"
    assert found.verdict == Verdict.MISSING
    assert "run again without --golden-update" in found.message
    assert announced == [f"wrote {path} (missing, new)"]
    assert set(contents(root)) == {f"{CASE.id}.png", f"{CASE.id}.json"}
    assert check(root, pictures()).verdict == Verdict.IDENTICAL


@pytest.mark.parametrize("images", [brighter(pictures(), 1), brighter(pictures(), 9), pictures(9)])
def test_an_update_announces_file_old_verdict_and_score(root, golden, images):
    before = check(root, images)
    announced: list[str] = []
    after = check(root, images, update="auto", announced=announced)
    again = "measure its limits again with --golden-calibrate"
    assert announced == [f"wrote {golden} ({before.verdict}, SSIM was {before.ssim_worst_tile:.5f}); {again}"]
    assert f"{before.ssim_worst_tile:.5f}" in after.message
    assert (after.ssim_worst_tile, after.max_diff) == (before.ssim_worst_tile, before.max_diff)


@pytest.mark.parametrize(
    ("images", "weights", "damage"),
    [
        pytest.param(pictures(9), WEIGHTS, None, id="changed"),
        pytest.param(pictures(), OTHER_WEIGHTS, None, id="stale"),
        pytest.param(pictures(count=2), WEIGHTS, None, id="other number of pictures"),
        *(pytest.param(pictures(), WEIGHTS, DAMAGES[name][1], id=name) for name in ("no picture", "truncated picture")),
    ],
)
def test_an_update_keeps_the_verdict_that_the_pictures_had(root, golden, images, weights, damage):
    if damage:
        damage(golden)
    before = check(root, images, weights=weights)
    assert check(root, images, weights=weights, update="auto").verdict == before.verdict
    assert not Verdict(before.verdict).passes


def test_an_update_of_pictures_within_limits_is_no_pass_either(root, golden):
    assert not Verdict(check(root, brighter(pictures(), 1), update="auto").verdict).passes


@pytest.mark.parametrize("name", [name for name in DAMAGES if not name.startswith("folder")])
def test_an_update_heals_a_damaged_golden(root, golden, name):
    suffix, damage = DAMAGES[name]
    damage(golden.with_suffix(suffix))
    assert not Verdict(check(root, pictures(), update="auto").verdict).passes
    assert check(root, pictures()).verdict == Verdict.IDENTICAL


STORES: dict[str, list[tuple[str, Any]]] = {
    "nothing": [],
    "the reference of another type": [("reference", PROCESSOR)],
    "the reference of this type": [("reference", OTHER_GPU)],
    "this type's": [("type", OTHER_GPU)],
    "this device's": [("device", GPU)],
    "the reference of another type, this type's": [("reference", PROCESSOR), ("type", OTHER_GPU)],
    "the reference of this type, this type's": [("reference", OTHER_GPU), ("type", OTHER_GPU)],
    "all three": [("reference", PROCESSOR), ("type", OTHER_GPU), ("device", GPU)],
}


@pytest.mark.parametrize("accepted", STORES.values(), ids=STORES)
def test_after_an_update_the_next_run_passes(root, accepted):
    for number, (level, made_on) in enumerate(accepted):
        write_golden(golden_place(root, CASE, GPU, level), pictures(50 + number), origin_of(device=made_on))
    assert not Verdict(check(root, pictures(), device=GPU, update="auto").verdict).passes
    assert check(root, pictures(), device=GPU).verdict == Verdict.IDENTICAL


@pytest.mark.parametrize(
    ("level", "reference_of", "suffix"),
    [
        ("auto", None, ""),
        ("auto", GPU, ""),
        ("auto", OTHER_GPU, "@cuda-nvidia-h100-80gb-hbm3"),
        ("auto", PROCESSOR, "@cuda-nvidia-h100-80gb-hbm3"),
        ("reference", PROCESSOR, ""),
        ("type", None, "@cuda"),
        ("type", OTHER_GPU, "@cuda"),
        ("device", None, "@cuda-nvidia-h100-80gb-hbm3"),
        ("device", PROCESSOR, "@cuda-nvidia-h100-80gb-hbm3"),
    ],
)
def test_an_update_writes_at_the_level_that_was_asked_for(root, level, reference_of, suffix):
    if reference_of:
        accept(root, pictures(1), device=reference_of)
    before = contents(root)
    check(root, pictures(), device=GPU, update=level)
    written = {name for name, content in contents(root).items() if before.get(name) != content}
    assert written == {f"{CASE.id}{suffix}.png", f"{CASE.id}{suffix}.json"}
    assert read_golden(GoldenPlace(root / f"{CASE.id}{suffix}.png")).origin.device == {"type": "cuda", "name": GPU.name}


@pytest.mark.parametrize("level", ["reference", "type"])
@pytest.mark.parametrize("update", ["auto", "type", "reference"])
def test_no_accelerator_replaces_the_golden_of_another_model(root, level, update):
    accept(root, pictures(1), device=OTHER_GPU, level=level)
    before = contents(root)
    if update == level:
        words = "it was made on NVIDIA A10 and this is NVIDIA H100 80GB HBM3; .* --golden-level device"
        with pytest.raises(GoldenError, match=words):
            check(root, pictures(), device=GPU, update=update)
    else:
        check(root, pictures(), device=GPU, update=update)
    assert before.items() <= contents(root).items()


def test_an_accelerator_does_not_replace_a_golden_that_it_cannot_read(root, golden):
    golden.with_suffix(".json").write_text("{")
    before = contents(root)
    check(root, pictures(), device=GPU, update="auto")
    assert before.items() <= contents(root).items()
    assert check(root, pictures(), device=GPU).verdict == Verdict.IDENTICAL


def test_processors_share_the_reference(root, golden):
    check(root, pictures(9), device=OTHER_PROCESSOR, update="auto")
    assert set(contents(root)) == {f"{CASE.id}.png", f"{CASE.id}.json"}


def test_an_origin_says_how_its_process_rounded(root, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    check(root, pictures(), device=GPU, update="auto")
    check(root, pictures(), device=PROCESSOR, update="type")
    origin = read_golden(golden_place(root, CASE, GPU, "reference")).origin
    assert origin.device == {"type": "cuda", "name": GPU.name}
    modes = {"deterministic": True, "float32_matmul_precision": "high"}
    assert origin.numerics == modes | {"cudnn_tf32": False, "cudnn": 91002}
    assert read_golden(golden_place(root, CASE, PROCESSOR, "type")).origin.numerics == modes


def test_an_origin_without_numerics_is_read_and_stays_as_it_is(root, golden):
    path = golden.with_suffix(".json")
    document = json.loads(path.read_text())
    del document["numerics"]
    path.write_text(json.dumps(document))
    assert read_golden(GoldenPlace(golden)).origin.numerics is None
    accept_limits(root, CASE, PROCESSOR, CALIBRATED)
    assert "numerics" not in json.loads(path.read_text())


def test_the_golden_of_the_exact_device_comes_first(root):
    written = {level: accept(root, pictures(), device=GPU, level=level) for level in LEVELS}
    assert [path.name for path in written.values()] == [f"pndm-s20-g7.5-fp32{suffix}.png" for suffix in LEVELS.values()]
    for path in written.values():
        assert find_golden(root, CASE, GPU) == GoldenPlace(path)
        path.unlink()
        path.with_suffix(".json").unlink()
    assert find_golden(root, CASE, GPU) is None


@pytest.mark.parametrize(
    ("device", "level"),
    [(GPU, "device"), (OTHER_GPU, "type"), (PROCESSOR, "reference")],
    ids=["exact", "type", "other type"],
)
def test_a_device_never_sees_the_golden_of_another(root, device, level):
    written = {level: accept(root, pictures(), device=GPU, level=level) for level in LEVELS}
    assert find_golden(root, CASE, device) == GoldenPlace(written[level])


def test_golden_files_have_safe_names(root):
    path = golden_place(root, CASE, PROCESSOR, "device").picture
    assert path.name == "pndm-s20-g7.5-fp32@cpu-some-processor-r-9000.png"


def test_an_update_replaces_files_and_never_writes_into_them(root, golden, tmp_path):
    before = contents(root)
    for suffix in (".png", ".json"):
        os.link(golden.with_suffix(suffix), tmp_path / f"old{suffix}")
    check(root, pictures(9), update="auto")
    for suffix in (".png", ".json"):
        assert (tmp_path / f"old{suffix}").read_bytes() == before[f"{CASE.id}{suffix}"]
        assert golden.with_suffix(suffix).read_bytes() != before[f"{CASE.id}{suffix}"]


def test_a_golden_is_replaced_only_by_one_that_is_on_disk(root, golden, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        events.append(f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def noted_replace(source, target):
        assert os.path.dirname(source) == str(target.parent)
        events.append(target.suffix)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    check(root, pictures(9), update="auto")
    for suffix in (".png", ".json"):
        size = f"{golden.with_suffix(suffix).stat().st_size} bytes"
        assert events.index(size) < events.index(suffix)
    assert len(events) == 4


def test_goldens_can_be_read_by_everyone(golden):
    assert [golden.with_suffix(suffix).stat().st_mode & 0o777 for suffix in (".png", ".json")] == [0o644, 0o644]


def fill_the_disk(monkeypatch, step, number):
    """Makes call ``number`` of this function and all later ones raise as on a full disk."""
    module, name = step
    really, calls = getattr(module, name), []

    def perhaps(*args, **kwargs):
        calls.append(name)
        if len(calls) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(*args, **kwargs)

    monkeypatch.setattr(module, name, perhaps)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ((tempfile, "mkstemp"), 1),
        ((tempfile, "mkstemp"), 2),
        ((os, "fsync"), 1),
        ((os, "fsync"), 2),
        ((os, "replace"), 1),
    ],
    ids=["making the picture's file", "making the origin's file", "the picture", "the origin", "replacing"],
)
def test_a_full_disk_leaves_the_old_golden_and_no_stray_file(root, golden, monkeypatch, step, number):
    before = contents(root)
    with monkeypatch.context() as patched:
        fill_the_disk(patched, step, number)
        with pytest.raises(GoldenError) as caught:
            check(root, pictures(9), update="auto")
    assert str(golden.with_suffix("")) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(root) == before
    assert check(root, pictures()).verdict == Verdict.IDENTICAL


def test_a_crash_between_the_files_is_noticed_and_an_update_fixes_it(root, golden, monkeypatch):
    with monkeypatch.context() as patched:
        fill_the_disk(patched, (os, "replace"), 2)
        with pytest.raises(GoldenError):
            check(root, pictures(9), update="auto")
    assert set(contents(root)) == {f"{CASE.id}.png", f"{CASE.id}.json"}
    assert check(root, pictures(9)).verdict == Verdict.BROKEN
    assert check(root, pictures()).verdict == Verdict.BROKEN
    check(root, pictures(9), update="auto")
    assert check(root, pictures(9)).verdict == Verdict.IDENTICAL


def test_an_interrupted_update_leaves_no_stray_file(root, golden, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = contents(root)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check(root, pictures(9), update="auto")
    assert contents(root) == before


def test_a_store_that_cannot_be_created_is_one_sentence(tmp_path):
    root = tmp_path / "golden"
    root.write_text("a file")
    with pytest.raises(GoldenError) as caught:
        check(root, pictures(), update="auto")
    assert str(root / f"{CASE.id}.png") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_belong_to_no_case_are_unused(root):
    used = ["tiny-sd/a-s5", "tiny-sd/a-s5@cuda", "tiny-sd/a-s5@cuda-nvidia-h100", "tiny-sd/b-s20-g7.5"]
    unused = ["tiny-sd/a-s50", "tiny-sd/b-s20-g7", "tiny-sd/gone@cuda", "tiny-sd/gone@cpu-x", "other/a-s5", "a-s5"]
    stray = ["notes.txt", "tiny-sd/a-s5.jpg", "tiny-sd/a-s5.png.orig", "tiny-sd/a-s5 (copy).png", "tiny-sd/notes"]
    pairs = [f"{stem}{suffix}" for stem in unused for suffix in (".png", ".json")]
    for name in [*(f"{stem}{suffix}" for stem in used for suffix in (".png", ".json")), *pairs, *stray]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    ids = ["tiny-sd/a-s5", "tiny-sd/b-s20-g7.5", "tiny-sd/not-accepted-yet"]
    cases: Any = [SimpleNamespace(id=name, settings=SimpleNamespace(sentinel="")) for name in ids]
    found = unused_goldens(root, cases)
    assert sorted(found) == sorted(str(root / name) for name in pairs + stray)


def test_half_a_golden_still_belongs_to_its_case(root, golden):
    golden.unlink()
    assert unused_goldens(root, [CASE]) == []
    assert unused_goldens(root, []) == [str(golden.with_suffix(".json"))]


def test_the_page_and_the_tests_of_the_store_are_no_goldens(root):
    root.mkdir(parents=True, exist_ok=True)
    for name in ("README.md", "test_goldens.py", "notes.txt"):
        (root / name).write_text("")
    assert unused_goldens(root, []) == [str(root / "notes.txt")]


def test_a_store_that_does_not_exist_has_no_unused_goldens(root):
    assert unused_goldens(root, [CASE]) == []


def test_pictures_are_the_same_only_pixel_for_pixel():
    images = pictures()
    assert same_pixels(images, pictures())
    assert not same_pixels(images, images[:2])
    assert not same_pixels(images, images[::-1])
    assert not same_pixels(images, [*images[:2], brighter(images, 1)[2]])


# Counted work


@pytest.fixture
def counted_golden(root, golden):
    """The accepted picture of the case, with the work that it took."""
    edit(golden.with_suffix(".json"), work=WORK.to_json())
    return golden


def test_a_golden_gives_back_the_work_that_was_written(root):
    check_work(root, WORK, update="auto")
    kept = read_golden(golden_place(root, CASE, PROCESSOR, "reference")).origin.work
    assert kept == WORK.to_json()


@pytest.mark.parametrize(
    ("work", "verdict", "of_the_case"),
    [
        (WORK, Verdict.SAME_WORK, Verdict.IDENTICAL),
        (WITHIN_MARGINS, Verdict.SAME_WORK, Verdict.IDENTICAL),
        (LESS, Verdict.LESS_WORK, Verdict.IDENTICAL),
        (MORE, Verdict.MORE_WORK, Verdict.MORE_WORK),
    ],
    ids=["same", "within margins", "less", "more"],
)
def test_more_work_than_the_golden_s_fails_and_less_passes(root, counted_golden, work, verdict, of_the_case):
    found = check_work(root, work)
    assert found.work is not None
    assert (found.work.verdict, found.verdict) == (verdict, of_the_case)
    assert found.verdict.passes == (verdict != Verdict.MORE_WORK)
    assert found.work.counts == work.to_json()
    assert found.pictures.verdict == Verdict.IDENTICAL


def test_more_work_says_how_much_more(root, counted_golden):
    found = check_work(root, MORE).work
    assert found is not None
    assert found.message == ("more work: value reads 22 → 26 (+18.2 %, +1 per step): aten::_local_scalar_dense +4")


def test_a_golden_without_counts_fails_and_says_what_to_do(root, golden):
    found = check_work(root, WORK)
    assert found.work is not None
    assert (found.verdict, found.work.verdict, found.pictures.verdict) == (
        Verdict.WORK_MISSING,
        Verdict.MISSING,
        Verdict.IDENTICAL,
    )
    assert str(golden.with_suffix(".json")) in found.work.message
    assert "--golden-update" in found.work.message


def test_work_is_not_compared_across_types_of_device(root, counted_golden):
    found = check_work(root, MORE, device=GPU)
    assert found.work is not None
    assert (found.verdict, found.work.verdict) == (Verdict.IDENTICAL, Verdict.NOT_COMPARED)
    assert "cpu" in found.work.message
    assert "cuda" in found.work.message
    edit(counted_golden.with_suffix(".json"), work=None)
    assert check_work(root, MORE, device=GPU).verdict == Verdict.IDENTICAL


def test_work_is_compared_within_a_type_of_device(root, counted_golden):
    other: Any = SimpleNamespace(type="cpu", name="Another Processor")
    assert check_work(root, MORE, device=other).verdict == Verdict.MORE_WORK


def test_work_is_not_compared_with_that_of_another_recipe(root, counted_golden):
    asked = case_with(prompts=("a fox", "a dog", "an owl"))
    found = check_work(root, MORE, case=asked)
    assert found.work is not None
    assert (found.verdict, found.work.verdict) == (Verdict.STALE, Verdict.NOT_COMPARED)


def test_without_a_golden_there_is_no_work_to_compare_with(root):
    found = check_work(root, WORK)
    assert found.work is not None
    assert (found.verdict, found.work.verdict) == (Verdict.MISSING, Verdict.NOT_COMPARED)


def test_where_nothing_was_counted_the_pictures_decide_alone(root, counted_golden):
    assert check_work(root, None) == replace(check_work(root, WORK), work=None)


def test_pictures_come_before_work(root, counted_golden):
    found = check_work(root, MORE, pictures(9))
    assert found.work is not None
    assert (found.verdict, found.work.verdict) == (Verdict.CHANGED, Verdict.MORE_WORK)


@pytest.mark.parametrize(
    ("work", "verdict", "reported"),
    [
        (MORE, Verdict.MORE_WORK, "value reads 22 → 26 (+18.2 %, +1 per step): aten::_local_scalar_dense +4"),
        (LESS, Verdict.LESS_WORK, "value reads 22 → 18 (-18.2 %, -1 per step): aten::_local_scalar_dense -4"),
    ],
)
def test_an_update_accepts_other_work_alone_but_does_not_pass(root, counted_golden, work, verdict, reported):
    announced: list[str] = []
    found = check_work(root, work, update="auto", announced=announced)
    assert announced == [f"wrote {counted_golden} (same pictures, work: {reported})"]
    assert found.verdict == verdict
    assert not found.verdict.passes
    assert found.work is not None
    assert "run again without --golden-update" in found.work.message
    again = check_work(root, work)
    assert again.work is not None
    assert (again.verdict, again.work.verdict) == (Verdict.IDENTICAL, Verdict.SAME_WORK)


def test_adding_work_to_a_golden_does_not_pass(root, golden):
    announced: list[str] = []
    assert check_work(root, WORK, update="auto", announced=announced).verdict == Verdict.WORK_MISSING
    assert announced == [f"wrote {golden} (same pictures, work: none until now)"]
    assert check_work(root, WORK).verdict == Verdict.IDENTICAL


def test_an_update_of_pictures_and_work_reports_both(root, counted_golden):
    announced: list[str] = []
    assert (
        check_work(root, MORE, brighter(pictures(), 9), update="auto", announced=announced).verdict == Verdict.CHANGED
    )
    assert announced[0].startswith(f"wrote {counted_golden} (changed, SSIM was 0.")
    assert ", work: value reads 22 → 26 (" in announced[0]


@pytest.mark.parametrize("work", [WORK, WITHIN_MARGINS, None], ids=["same", "within margins", "not counted"])
def test_an_update_leaves_a_golden_with_the_same_work_as_it_is(root, counted_golden, work):
    before = contents(root)
    assert check_work(root, work, update="auto").verdict == Verdict.IDENTICAL
    assert contents(root) == before


def test_an_update_of_the_work_keeps_measured_limits(root):
    accept(root, pictures(), limits=CALIBRATED)
    lines: list[str] = []
    check_work(root, WORK, update="auto", announced=lines)
    place = golden_place(root, CASE, PROCESSOR, "reference")
    assert read_golden(place).origin.limits == CALIBRATED
    assert "--golden-calibrate" not in lines[-1]
    check_work(root, WORK, pictures(9), update="auto", announced=lines)
    assert read_golden(place).origin.limits is None
    assert "--golden-calibrate" in lines[-1]
