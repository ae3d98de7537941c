"""Limits that are measured: from spreads to limits, which variation is evidence, and the command from end to end."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.calibration import processes, run, variations, worker
from bench.calibration.derivation import derive_limits
from bench.calibration.messages import Answer, Assignment, Died, Made, NotHeld, Raised, Ready
from bench.calibration.prediction import prediction_bound
from bench.calibration.processes import NoEffectHere, VariationFailed, run_variation
from bench.calibration.run import Calibrated, Calibration
from bench.calibration.spread import (
    BLIND_BELOW,
    FALSE_ALARM,
    FEWEST,
    OTHER_TYPE,
    SAME_TYPE,
    UNSTABLE_BELOW,
    evidence_for_limits,
    is_blind,
    is_unstable,
    limits_from,
    measured,
    spread_of,
)
from bench.calibration.table import render_calibration
from bench.calibration.variations import (
    ANOTHER_PROCESS,
    TF32_TWINS,
    TWINS,
    TWINS_OF_FLOAT32,
    VARIATIONS,
    NoEffect,
    Variation,
    calls_of,
    variations_here,
)
from bench.calls.device import Cpu, instruction_set
from bench.calls.pipelines import weights_hash
from bench.calls.sampling import generate
from bench.pictures.check import judge
from bench.pictures.limits import OTHER, PORTABLE, STRICT, VariationMeasured, choose_limits
from bench.pictures.outcomes import Outcome
from bench.pictures.similarity import compare
from bench.pictures.store import GoldenPlace, describe_origin, golden_place, read_golden, write_golden, write_outcome
from bench.suite.case import Case
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from tests.conftest import Load, MakeCase
from tests.project import make_project

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = "a" * 64


def moved(name: str = "1 thread", tier: Any = STRICT, **figures: Any) -> VariationMeasured:
    usual = {"ssim": 1.0, "max_diff": 0, "changed_share": 0.0, "mean_diff": 0.0}
    return VariationMeasured(name=name, tier=tier, **(usual | figures))


# From spreads to limits


def sample(*gaps: float, name: str = "rounding twins", tier: Any = STRICT) -> list[VariationMeasured]:
    """Observations with these gaps of SSIM, in which nothing else moved."""
    return [moved(name, tier, ssim=1 - gap, max_diff=1) for gap in gaps]


def test_limits_are_wider_than_anything_that_was_seen():
    gaps = [0.01, 0.012, 0.008, 0.02, 0.011, 0.009, 0.013, 0.01]
    limits = limits_from(sample(*gaps), STRICT)
    assert limits.ssim < 1 - max(gaps)
    assert "8 of 8 harmless differences moved it, to SSIM >= 0.980000" in limits.reason
    assert "worst: rounding twins" in limits.reason


def test_a_case_that_spreads_more_has_wider_limits():
    narrow = limits_from(sample(*[0.010, 0.011] * 8), STRICT)
    wide = limits_from(sample(*[0.010, 0.030] * 8), STRICT)
    assert wide.ssim < narrow.ssim < 0.989


def test_more_observations_make_limits_tighter():
    few, many = (limits_from(sample(*[0.01, 0.012, 0.016, 0.02] * count), STRICT) for count in (2, 16))
    assert many.ssim > few.ssim


def test_evidence_below_the_median_does_not_widen_limits():
    gaps = np.geomspace(0.008, 0.02, 65).tolist()
    assert limits_from(sample(*gaps, 1e-5), STRICT).ssim == pytest.approx(
        limits_from(sample(*gaps), STRICT).ssim, abs=2e-3
    )


def test_a_few_levels_are_not_a_wide_spread():
    evidence = [moved(max_diff=levels, ssim=0.9999) for levels in (1, 2, 3, 4) * 4]
    assert 4 < limits_from(evidence, STRICT).max_diff < 64


def test_a_variation_that_moves_nothing_is_no_observation():
    gaps = [0.01, 0.012, 0.016, 0.02] * 4
    still = [moved(f"variation {number}") for number in range(9)]
    assert limits_from([*sample(*gaps), *still], STRICT).ssim == limits_from(sample(*gaps), STRICT).ssim


def test_the_bound_of_equal_values_is_that_value():
    assert prediction_bound([0.5] * 16, 0.01, FALSE_ALARM) == pytest.approx(0.5)


def test_a_case_that_nothing_moved_has_the_floors():
    limits = limits_from([moved()] * FEWEST, STRICT)
    floors = (1 - SAME_TYPE.gap, SAME_TYPE.levels, SAME_TYPE.share, SAME_TYPE.shift)
    assert (limits.ssim, limits.max_diff, limits.changed_share, limits.mean_diff) == pytest.approx(floors)


def test_another_type_of_device_has_floors_of_its_own():
    limits = limits_from([moved(tier=OTHER)] * FEWEST, OTHER)
    floors = (1 - OTHER_TYPE.gap, OTHER_TYPE.levels, OTHER_TYPE.share, OTHER_TYPE.shift)
    assert (limits.ssim, limits.max_diff, limits.changed_share, limits.mean_diff) == pytest.approx(floors)


def test_the_floors_are_between_harmless_and_real_changes():
    """In float32: SSIM 0.99999, one level on 0.08 % of the values; and 0.9998, two levels."""
    limits = limits_from([moved()] * FEWEST, STRICT)
    assert limits.ssim < 0.99999
    assert limits.changed_share > 0.0008
    assert limits.ssim > 0.9998
    assert limits.max_diff < 2


def test_variations_of_other_machines_count_only_for_portable_limits():
    evidence = [moved(ssim=0.999), moved("oneDNN off", PORTABLE, ssim=0.95, max_diff=1)]
    assert spread_of(evidence, STRICT).ssim == 0.999
    assert spread_of(evidence, PORTABLE).ssim == 0.95
    assert spread_of(evidence, PORTABLE).name == "oneDNN off"


def test_float32_needs_coarser_rounding_for_other_types_of_device():
    fine, coarse = moved(ssim=0.9999, max_diff=1), moved("TF32 twins", OTHER, ssim=0.99, max_diff=4)
    assert evidence_for_limits("float32", [fine, coarse], OTHER) == [coarse]
    assert [one.ssim for one in evidence_for_limits("bfloat16", [fine], OTHER)] == [0.9999]


def test_limits_stay_within_what_figures_can_be():
    far = moved(ssim=-0.9, max_diff=200, changed_share=0.9, mean_diff=90)
    limits = limits_from([moved(ssim=0.9, max_diff=1)] * FEWEST + [far] * FEWEST, STRICT)
    assert (limits.ssim, limits.max_diff, limits.changed_share) == (-1.0, 255, 1.0)


def test_without_evidence_there_are_no_limits():
    with pytest.raises(ValueError, match="no variation for 'this machine' was measured"):
        spread_of([moved(tier=PORTABLE)], STRICT)
    with pytest.raises(ValueError, match="1 observations for 'this machine', at least 8 are needed"):
        limits_from([moved()], STRICT)


def test_a_case_is_blind_if_another_picture_could_pass():
    sharp, blind = (limits_from(sample(*[gap] * FEWEST), PORTABLE) for gap in (0.19, 0.21))
    assert not is_blind(sharp)
    assert is_blind(blind)
    assert sharp.ssim > BLIND_BELOW > blind.ssim


def test_a_case_is_unstable_if_a_twin_is_another_picture():
    assert not is_unstable(spread_of([moved(ssim=UNSTABLE_BELOW)], STRICT))
    assert is_unstable(spread_of([moved(ssim=UNSTABLE_BELOW - 0.01), moved()], STRICT))


def test_a_shift_counts_without_its_sign():
    dark, light = Image.new("RGB", (16, 16), (90, 90, 90)), Image.new("RGB", (16, 16), (97, 90, 90))
    assert measured("x", STRICT, compare([dark], [light])).mean_diff == 7


# Variations


def test_every_variation_has_a_unique_name_per_dtype_and_a_reason():
    names = [(one.name, dtype) for one in VARIATIONS for dtype in one.dtypes]
    assert len(set(names)) == len(names)
    assert all(one.reason for one in VARIATIONS)
    assert ANOTHER_PROCESS is VARIATIONS[0]


def test_other_instructions_are_no_evidence_for_this_machine():
    assert {one.tier for one in VARIATIONS if one.environment or not one.onednn} == {PORTABLE}


def test_the_default_number_of_threads_is_not_a_variation():
    run_here, left_out = variations_here("cpu", threads=2)
    names = [one.name for one in run_here]
    assert "1 thread" in names
    assert "2 threads" not in names
    assert "2 threads: the default here" in left_out


def test_variations_of_processors_are_not_run_on_accelerators():
    run_here, left_out = variations_here("cuda", threads=2)
    assert not any(one.processors for one in run_here)
    assert {"another process", "images apart", "rounding twins", "TF32 twins"} <= {one.name for one in run_here}
    assert len(left_out) == len(VARIATIONS) - len(run_here)


@pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
def test_the_images_of_a_case_made_apart_are_those_of_its_batch(kind, tiny_case: MakeCase, load_tiny: Load):
    case = tiny_case(kind, images=3, seed=5)
    loaded = load_tiny(case)
    apart = [image for call in calls_of(case, "images apart") for image in generate(loaded, call)]
    assert compare(apart, generate(loaded, case)).max_diff <= 1


@pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
def test_eager_attention_reaches_every_attention_of_the_pipeline(kind, tiny_case: MakeCase, load_tiny: Load):
    pipeline = load_tiny(tiny_case(kind)).pipeline
    variations.apply_patch(pipeline, "eager attention")
    from diffusers.models.attention_processor import Attention

    found = [one for one in pipeline.unet.modules() if isinstance(one, Attention)]
    assert found
    assert {type(one.processor).__name__ for one in found} == {"AttnProcessor"}


def test_eager_attention_without_attention_has_no_effect():
    class Part(torch.nn.Module):
        pass

    class Pipeline:
        unet = Part()

    with pytest.raises(NoEffect, match="no attention was found"):
        variations.apply_patch(Pipeline(), "eager attention")


def test_a_patch_is_not_laid_over_a_speed_setting(tiny_case: MakeCase):
    channels_last = next(one for one in VARIATIONS if one.patch == "channels last")
    assert channels_last.applies_to(tiny_case(STABLE_DIFFUSION))
    assert not channels_last.applies_to(tiny_case(STABLE_DIFFUSION, optimizations=("channels-last",)))


def test_one_image_cannot_be_split(tiny_case: MakeCase):
    apart = next(one for one in VARIATIONS if one.patch == "images apart")
    assert not apart.applies_to(tiny_case(STABLE_DIFFUSION, images=1))


# The process of a variation


def assignment_for(*cases: Case) -> Assignment:
    return Assignment("another process", cases, threads=1, device="cpu", suite_folder=Path.cwd())


def test_a_process_makes_the_pictures_of_its_cases(tiny_case: MakeCase, load_tiny: Load):
    cases = (tiny_case(DDPM), tiny_case(STABLE_DIFFUSION))
    for case, answer in run_variation(ANOTHER_PROCESS, assignment_for(*cases)):
        assert isinstance(answer, Made)
        assert compare(answer.grids[0], generate(load_tiny(case), case)).max_diff <= 1
        assert case.model.path
        assert answer.weights == weights_hash(case.model.path, case.model)


def test_a_variation_that_does_not_take_hold_says_so(tiny_case: MakeCase):
    without = next(one for one in VARIATIONS if one.name == "torch with AVX2")
    assignment = replace(assignment_for(tiny_case(DDPM)), variation=without.name)
    with pytest.raises(NoEffectHere, match="torch's own kernels are those for DEFAULT"):
        list(run_variation(replace(without, environment={"ATEN_CPU_CAPABILITY": "default"}), assignment))


@pytest.mark.parametrize(
    ("name", "deterministic", "expected"),
    [
        ("default kernels", False, (Ready, [])),
        ("default kernels", True, (NotHeld, [])),
        ("another process", False, (Ready, ["deterministic"])),
    ],
)
def test_one_variation_leaves_the_kernels_to_torch(name, deterministic, expected, tiny_case: MakeCase, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(worker, "make_deterministic", lambda: asked.append("deterministic"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    assignment = replace(assignment_for(tiny_case(DDPM)), variation=name)
    assert (type(next(worker.answers(assignment))), asked) == expected


def test_default_kernels_are_evidence_for_accelerators_only():
    for device, there in (("cpu", False), ("cuda", True)):
        run, left_out = variations_here(device, 2)
        assert ("default kernels" in {one.name for one in run}) == there
        assert ("default kernels: only for accelerators" in left_out) != there


DYING = """
import os, sys
from bench.calibration.messages import Raised, Ready
def answers(assignment):
    if assignment.cases[0].settings.steps == 9:
        sys.exit("no such library")
    yield Ready()
    for case in assignment.cases:
        if case.settings.steps == 7:
            print("out of luck")
            os.kill(os.getpid(), 9)
        yield Raised(str(case.settings.steps))
"""


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is killed while it makes a case of 7 steps, and never starts for one of 9."""
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "answers", importlib.import_module("dying").answers)
    yield
    del sys.modules["dying"]


@pytest.mark.usefixtures("dying")
def test_after_a_process_dies_the_other_cases_get_a_new_one(tiny_case: MakeCase):
    cases = [tiny_case(DDPM, steps=steps) for steps in (3, 7, 4)]
    before, died, after = (answer for _, answer in run_variation(ANOTHER_PROCESS, assignment_for(*cases)))
    assert (before, after) == (Raised("3"), Raised("4"))
    assert isinstance(died, Died)
    assert died.reason == "its process was killed by SIGKILL (out of memory?); its last words: out of luck"


@pytest.mark.usefixtures("dying")
def test_a_process_that_does_not_start_is_one_sentence(tiny_case: MakeCase):
    with pytest.raises(VariationFailed, match="its process ended with exit code 1; its last words: no such library"):
        list(run_variation(ANOTHER_PROCESS, assignment_for(tiny_case(DDPM, steps=9))))


# A calibration, with made-up processes


def tiles(number: int = 0, count: int = 2) -> list[Image.Image]:
    levels = np.random.default_rng(number).integers(40, 216, (count, 16, 16, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in levels]


def altered(levels: int, values: int = 1) -> list[Image.Image]:
    """The golden tiles with some values of the first one moved."""
    arrays = [np.asarray(tile).copy() for tile in tiles()]
    arrays[0].reshape(-1)[:values] += np.uint8(levels)
    return [Image.fromarray(array) for array in arrays]


def made(images: list[Image.Image]) -> Made:
    return Made((images,), WEIGHTS, None)


Calibrate = Callable[..., dict[str, Calibrated]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "golden"


@pytest.fixture
def printed() -> list[str]:
    return []


@pytest.fixture
def ran() -> list[str]:
    """The variations whose processes were started."""
    return []


@pytest.fixture
def calibrate(root: Path, printed: list[str], ran: list[str], monkeypatch: pytest.MonkeyPatch) -> Calibrate:
    """``calibrate(cases, {variation: answer})`` with what each variation makes of all cases; else the golden."""

    def calibrate(cases: Sequence[Case], answers: dict[str, Any], again: bool = False) -> dict[str, Calibrated]:
        def made_up(variation: Variation, assignment: Assignment) -> Iterator[tuple[Case, Answer]]:
            ran.append(variation.name)
            for case in assignment.cases:
                answer = answers.get(variation.name, Made((tiles(),) * max(1, variation.twins), WEIGHTS, None))
                if isinstance(answer, Exception):
                    raise answer
                yield case, answer

        monkeypatch.setattr(run, "run_variation", made_up)
        return Calibration(Cpu(), Path.cwd(), root, {"torch": "2.15.0"}, printed.append, again).run(cases)

    return calibrate


@pytest.fixture
def case(tiny_case: MakeCase, root: Path) -> Case:
    """A case with a golden of this machine."""
    case = tiny_case(DDPM)
    origin = describe_origin(case, WEIGHTS, None, Cpu(), {"torch": "2.15.0"})
    write_golden(golden_place(root, case, Cpu(), "reference"), tiles(), origin)
    return case


def golden_of(root: Path, case: Case) -> GoldenPlace:
    return golden_place(root, case, Cpu(), "reference")


def twins(*levels: int) -> Made:
    """16 rounding twins that are off by these levels in turn."""
    return Made(tuple(altered(levels[number % len(levels)]) for number in range(TWINS_OF_FLOAT32)), WEIGHTS, None)


def test_a_calibration_writes_limits_that_the_next_run_uses(calibrate, case, root):
    picture = golden_of(root, case).picture.read_bytes()
    answers = {"channels last": made(altered(3)), "oneDNN off": made(altered(9)), TWINS: twins(1, 2)}
    found = calibrate([case], answers)[case.id]
    assert not found.problem
    assert golden_of(root, case).picture.read_bytes() == picture
    limits = read_golden(golden_of(root, case)).origin.limits
    assert limits
    assert limits == found.limits
    assert 3 < limits.strict.max_diff < limits.portable.max_diff
    assert limits.portable.max_diff > 9
    assert [one.name for one in limits.evidence] == ["another process", "channels last", "oneDNN off"]
    found_twins = [(one.name, len(one.ssim), one.roundoff) for one in limits.twins]
    assert found_twins == [(TWINS, 16, 2.0**-21), (TF32_TWINS, 16, 2.0**-11)]
    assert "eager attention: no effect on any case, so it is no evidence" in limits.left_out
    assert limits.processor == Cpu().name

    origin = describe_origin(case, WEIGHTS, None, Cpu(), {})
    beyond = limits.strict.max_diff + 1
    verdicts = [judge(case, altered(levels), origin, root, Cpu())[0] for levels in (3, beyond)]
    assert [one.verdict for one in verdicts] == ["within limits", "changed"]
    assert verdicts[1].limits == limits.strict


def test_limits_across_types_of_device_follow_from_their_twins(calibrate, case):
    limits = calibrate([case], {TWINS: twins(1), TF32_TWINS: twins(6, 8)})[case.id].limits
    assert limits.portable.max_diff < 6
    assert limits.other.max_diff > 8
    assert not limits.unstable


def test_an_unstable_case_is_refused_and_keeps_its_origin(calibrate, case, root):
    before = golden_of(root, case).origin.read_bytes()
    other = Made((*[tiles()] * 15, tiles(9)), WEIGHTS, None)
    found = calibrate([case], {TWINS: other})[case.id]
    assert found.problem.startswith(f"unstable: '{TWINS}' turns a tile into another picture (SSIM ")
    assert found.limits is None
    assert golden_of(root, case).origin.read_bytes() == before


def test_a_case_unstable_at_coarser_rounding_has_no_limits_there(calibrate, case, root):
    other = Made((*[altered(1)] * 15, tiles(9)), WEIGHTS, None)
    found = calibrate([case], {TWINS: twins(1), TF32_TWINS: other})[case.id]
    assert not found.problem
    assert found.limits.other is None
    assert found.limits.unstable.startswith(f"'{TF32_TWINS}' turns a tile into another picture (SSIM ")


def test_without_coarser_rounding_float32_has_no_limits_elsewhere():
    derived = derive_limits("float32", sample(*[0.01, 0.012] * 8), [])
    assert derived.portable.ssim < 0.99
    assert (derived.other, derived.unstable) == (None, "")


def test_existing_evidence_is_measured_again_only_on_request(calibrate, case, ran):
    answers = {"channels last": made(altered(3)), TWINS: twins(1, 2), TF32_TWINS: twins(5)}
    first = calibrate([case], answers)[case.id].limits
    ran.clear()
    second = calibrate([case], {"oneDNN off": made(altered(1))})[case.id].limits
    assert not {"channels last", TWINS, TF32_TWINS} & set(ran)
    assert second.twins == first.twins
    assert {one.name for one in second.evidence} == {"another process", "channels last", "oneDNN off"}
    ran.clear()
    calibrate([case], answers, again=True)
    assert {"channels last", TWINS, TF32_TWINS} <= set(ran)


def test_a_golden_of_another_processor_is_calibrated_here(calibrate, case, root):
    here = altered(2)
    answers = dict.fromkeys([one.name for one in VARIATIONS], made(here))
    answers |= {TWINS: Made((here,) * TWINS_OF_FLOAT32, WEIGHTS, None), "channels last": made(tiles())}
    answers[TF32_TWINS] = Made((here,) * TWINS_OF_FLOAT32, WEIGHTS, None)
    limits = calibrate([case], answers)[case.id].limits
    drawn = {one.name: (one.tier, one.max_diff) for one in limits.evidence}
    assert drawn == {
        f"drawn by {Cpu().name} {instruction_set(Cpu())}": (PORTABLE, 2),
        "another process": (STRICT, 0),
        "channels last": (STRICT, 2),
    }
    assert set(limits.twins[0].max_diff) == {0}
    # The instructions of the golden's processor are unknown, so the narrowest limits apply nowhere.
    assert (limits.processor, limits.instruction_set) == (Cpu().name, "unknown")
    chosen = choose_limits(limits, "float32", STRICT, Cpu())
    assert chosen
    assert chosen.max_diff == limits.portable.max_diff


def test_a_golden_of_another_type_of_device_keeps_its_limits(calibrate, case, root):
    place = golden_of(root, case)
    golden = read_golden(place)
    elsewhere = golden.origin.model_copy(update={"device": {"type": "cuda", "name": "NVIDIA L4"}})
    write_golden(place, golden.tiles, elsewhere)
    before = place.origin.read_bytes()
    found = calibrate([case], {TWINS: twins(1)})[case.id]
    assert "its golden was made on cuda, whose limits another type of device must not replace" in found.problem
    assert place.origin.read_bytes() == before


@pytest.mark.parametrize("elsewhere", ["plain", "alike"])
def test_a_case_like_one_of_another_type_of_device_keeps_its_limits(elsewhere, calibrate, tiny_case, root):
    plain = tiny_case(DDPM, sentinel="ways")
    alike = tiny_case(DDPM, sentinel="ways", scenario="called-twice")
    for name, case in {"plain": plain, "alike": alike}.items():
        origin = describe_origin(case, WEIGHTS, None, Cpu(), {})
        device = {"type": "cuda", "name": "NVIDIA L4"} if name == elsewhere else origin.device
        write_golden(golden_of(root, case), tiles(), origin.model_copy(update={"device": device}))
    before = golden_of(root, alike).origin.read_bytes()
    found = calibrate([alike], {TWINS: twins(1)})[alike.id]
    assert "its golden was made on cuda" in found.problem
    assert golden_of(root, alike).origin.read_bytes() == before


def test_limits_are_not_measured_from_a_known_difference(calibrate, case, root):
    place = golden_of(root, case)
    known = Outcome(
        when=("torch>=2",),
        reason="other kernels",
        device={"type": "cpu", "name": "any"},
        libraries={},
        date="2026-11-22",
    )
    write_outcome(read_golden(place), known, tiles())
    before = place.origin.read_bytes()
    found = calibrate([case], {TWINS: twins(1)})[case.id]
    assert found.problem == "not calibrated, it is known to differ from its golden with torch>=2: other kernels."
    assert place.origin.read_bytes() == before


def test_a_variation_without_effect_on_any_case_is_no_evidence(calibrate, case, printed):
    limits = calibrate([case], {TWINS: twins(1)})[case.id].limits
    assert [one.name for one in limits.evidence] == ["another process"]
    assert "channels last: no effect on any case, so it is no evidence" in limits.left_out
    assert "  no effect on any case, so it is no evidence" in printed


def test_a_variation_without_effect_is_left_out_with_a_reason(calibrate, case):
    answers = {
        "torch with AVX2": NoEffectHere("still AVX512."),
        "channels last": NotHeld("on nowhere."),
        TWINS: twins(1),
    }
    limits = calibrate([case], answers)[case.id].limits
    assert {"torch with AVX2: no effect here: still AVX512.", "channels last: on nowhere."} <= set(limits.left_out)


def test_a_blind_case_gets_limits_and_a_problem(calibrate, case, root):
    spread = Made(tuple(altered(30, values=1 + 20 * number) for number in range(16)), WEIGHTS, None)
    found = calibrate([case], {TWINS: spread})[case.id]
    assert found.problem.startswith(f"blind: '{TWINS}' moves it to SSIM ")
    assert read_golden(golden_of(root, case)).origin.limits == found.limits


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"another process": made(altered(90))}, "its golden is not what this machine makes: "),
        ({"another process": Raised("ValueError: no")}, "not calibrated under 'another process': ValueError: no"),
        ({"channels last": Died("its process ended")}, "not calibrated under 'channels last': its process ended"),
        ({"channels last": made(tiles(count=1))}, "its pictures cannot be compared: images: 1 instead of 2"),
        ({"channels last": VariationFailed("its process ended")}, "'channels last' cannot be run: its process ended"),
        ({"another process": Made((tiles(),), "b" * 64, None)}, "its golden is stale: "),
    ],
    ids=["golden differs", "raises", "dies", "other pictures", "does not come up", "stale"],
)
def test_a_case_that_cannot_be_calibrated_says_why(calibrate, case, root, answers, words):
    before = golden_of(root, case).origin.read_bytes()
    found = calibrate([case], answers)[case.id]
    assert words in found.problem
    assert "\n" not in found.problem
    assert found.limits is None
    assert golden_of(root, case).origin.read_bytes() == before


def test_a_case_without_golden_cannot_be_calibrated(calibrate, tiny_case):
    case = tiny_case(STABLE_DIFFUSION)
    assert "its golden is missing: no golden at" in calibrate([case], {})[case.id].problem


def test_a_damaged_origin_cannot_be_calibrated(calibrate, case, root):
    golden_of(root, case).origin.write_text('{"case": ')
    assert "its golden is broken: " in calibrate([case], {})[case.id].problem


def test_a_case_that_raises_without_golden_is_silently_left_out(calibrate, tiny_case):
    case = tiny_case(STABLE_DIFFUSION)
    found = calibrate([case], {"another process": Raised("IndexError: known")})[case.id]
    assert found == Calibrated(case, raises=True)


def test_the_table_shows_what_was_measured_and_what_follows(calibrate, case):
    found = calibrate([case], {"oneDNN off": made(altered(9)), TWINS: twins(1), TF32_TWINS: twins(4)})
    lines = render_calibration(found.values(), colour=False).splitlines()
    strict, portable, other = (next(line for line in lines if tier in line) for tier in (STRICT, PORTABLE, OTHER))
    assert case.id in strict
    assert "1 → 2" in strict
    assert "oneDNN off" in portable
    assert "9 → " in portable
    assert "TF32 twins" in other
    assert "4 → 6" in other


# The command


@pytest.fixture
def suite_of(tiny_ddpm_folder: Path) -> str:
    return (
        f"[models.tiny]\nkind = 'ddpm'\nsource = 'local'\npath = '{tiny_ddpm_folder}'\n"
        "[[cases]]\nmodel = 'tiny'\nscheduler = 'ddpm'\nsteps = 2\nimages = 2\n"
    )


@pytest.fixture
def start(pytester: pytest.Pytester, suite_of: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``start(…)`` runs the golden tests of a suite of one tiny case, in a separate process."""
    make_project(pytester, suite_of, "golden/test_goldens.py")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Few variations, so that it takes seconds; the others are tested above.
    few = tuple(one for one in VARIATIONS if one is ANOTHER_PROCESS or (one.twins and "float32" in one.dtypes))
    monkeypatch.setattr(variations, "VARIATIONS", few)
    return lambda *arguments: pytester.runpytest_inprocess("--suite=suite.toml", "--device=cpu", *arguments)


def test_the_command_writes_limits_for_the_next_run(start, pytester):
    start("-m", "golden", "--golden-update")
    result = start("-m", "golden", "--golden-calibrate")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*[[]1/3] another process: 1 cases*",
            "*limits*",
            "*tiny/ddpm-s2-fp32*",
            "limits of 1 of 1 cases written into*",
        ]
    )
    beside = pytester.path / "golden" / "tiny" / "ddpm-s2-fp32.json"
    assert json.loads(beside.read_text())["limits"]["processor"] == Cpu().name
    assert start("-m", "golden").ret == pytest.ExitCode.OK


def test_the_command_ends_red_and_names_a_case_without_golden(start):
    result = start("-m", "golden", "--golden-calibrate")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["tiny/ddpm-s2-fp32: not calibrated, its golden is missing: *"])


@pytest.mark.parametrize("others", [["--golden-update"], ["-n", "2"], ["--candidate", "current"]])
def test_options_that_contradict_it_are_refused(start, others):
    result = start("-m", "golden", "--golden-calibrate", *others)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--golden-calibrate only measures limits: leave out *"])
