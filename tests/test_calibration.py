"""Limits that are measured: from spreads to limits, which variation is evidence, and the command from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.calibration import processes, run, variations
from bench.calibration.messages import Answer, Died, Made, NotHeld, Raised, Task
from bench.calibration.processes import NoEffectHere, VariationFailed, run_variation
from bench.calibration.run import Calibrated, Calibration
from bench.calibration.spread import (
    BLIND_BELOW,
    MAX_DIFF_FLOOR,
    MEAN_DIFF_FLOOR,
    SHARE_FLOOR,
    SSIM_FLOOR,
    is_blind,
    limits_from,
    measured,
    spread_of,
)
from bench.calibration.table import render_calibration
from bench.calibration.variations import PLAIN, VARIATIONS, NoEffect, Variation, calls_of, variations_here
from bench.device import Cpu
from bench.golden_store import Place, describe_origin, golden_place, read_golden, write_golden
from bench.goldens import judge
from bench.limits import PORTABLE, STRICT, VariationMeasured
from bench.pipelines import weights_hash
from bench.sampling import generate
from bench.similarity import compare
from bench.suite import DDPM, STABLE_DIFFUSION, Case
from tests.conftest import Load, MakeCase

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = "a" * 64


def moved(name: str = "1 thread", tier: Any = STRICT, **figures: Any) -> VariationMeasured:
    usual = {"ssim": 1.0, "max_diff": 0, "changed_share": 0.0, "mean_diff": 0.0}
    return VariationMeasured(name=name, tier=tier, **(usual | figures))


# From spreads to limits


def test_limits_have_twice_the_room_of_the_worst_of_each_figure():
    evidence = [
        moved(ssim=0.98, max_diff=5, changed_share=0.01, mean_diff=0.5),
        moved("2 threads", ssim=0.99, max_diff=8, changed_share=0.2, mean_diff=0.02),
    ]
    limits = limits_from(spread_of(evidence, STRICT))
    assert (limits.ssim, limits.max_diff, limits.changed_share, limits.mean_diff) == (0.96, 16, 0.4, 1.0)
    assert "2 of 2 harmless variations moved it" in limits.reason
    assert "worst: 1 thread" in limits.reason


def test_a_case_that_nothing_moved_has_the_floors():
    limits = limits_from(spread_of([moved()], STRICT))
    floors = (1 - SSIM_FLOOR, MAX_DIFF_FLOOR, SHARE_FLOOR, MEAN_DIFF_FLOOR)
    assert (limits.ssim, limits.max_diff, limits.changed_share, limits.mean_diff) == pytest.approx(floors)


def test_the_floors_bear_the_hardest_harmless_upgrade_and_not_the_smallest_real_change():
    """In float32: SSIM 0.99999, one level on 0.08 % of the values; and 0.9998, two levels."""
    limits = limits_from(spread_of([moved()], STRICT))
    assert limits.ssim < 0.99999
    assert limits.changed_share > 0.0008
    assert limits.ssim > 0.9998
    assert limits.max_diff < 2


def test_variations_of_other_machines_count_for_the_portable_limits_alone():
    evidence = [moved(ssim=0.999), moved("oneDNN off", PORTABLE, ssim=0.95, max_diff=1)]
    assert spread_of(evidence, STRICT).ssim == 0.999
    assert spread_of(evidence, PORTABLE).ssim == 0.95
    assert spread_of(evidence, PORTABLE).name == "oneDNN off"


def test_limits_stay_within_what_figures_can_be():
    limits = limits_from(spread_of([moved(ssim=-0.9, max_diff=200, changed_share=0.9, mean_diff=90)], STRICT))
    assert (limits.ssim, limits.max_diff, limits.changed_share) == (-1.0, 255, 1.0)


def test_without_evidence_there_are_no_limits():
    with pytest.raises(ValueError, match="no variation for 'this machine' was measured"):
        spread_of([moved(tier=PORTABLE)], STRICT)


@pytest.mark.parametrize(("ssim", "blind"), [(0.96, False), (0.94, True)])
def test_a_case_is_blind_if_its_limits_let_a_wrong_noise_schedule_pass(ssim, blind):
    limits = limits_from(spread_of([moved(ssim=ssim)], PORTABLE))
    assert is_blind(limits) is blind
    assert (limits.ssim < BLIND_BELOW) is blind


def test_a_shift_counts_without_its_sign():
    dark, light = Image.new("RGB", (16, 16), (90, 90, 90)), Image.new("RGB", (16, 16), (97, 90, 90))
    assert measured("x", STRICT, compare([dark], [light])).mean_diff == 7


# Variations


def test_every_variation_has_a_name_of_its_own_and_a_reason():
    assert len({one.name for one in VARIATIONS}) == len(VARIATIONS)
    assert all(one.reason for one in VARIATIONS)
    assert PLAIN is VARIATIONS[0]


def test_what_changes_the_instructions_is_no_evidence_for_this_machine():
    assert {one.tier for one in VARIATIONS if one.environment or not one.onednn} == {PORTABLE}


def test_the_threads_that_other_processes_have_anyway_are_not_run_again():
    run_here, left_out = variations_here("cpu", threads=2)
    names = [one.name for one in run_here]
    assert "1 thread" in names
    assert "2 threads" not in names
    assert "2 threads: what other processes have here" in left_out


def test_variations_of_the_processor_are_not_run_on_accelerators():
    run_here, left_out = variations_here("cuda", threads=2)
    assert [one.name for one in run_here] == ["another process", "images apart", "eager attention", "channels last"]
    assert len(left_out) == len(VARIATIONS) - 4


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


def task_for(*cases: Case) -> Task:
    return Task("another process", cases, threads=1, device="cpu", suite_folder=Path.cwd())


def test_a_process_makes_the_pictures_of_its_cases(tiny_case: MakeCase, load_tiny: Load):
    cases = (tiny_case(DDPM), tiny_case(STABLE_DIFFUSION))
    for case, answer in run_variation(PLAIN, task_for(*cases)):
        assert isinstance(answer, Made)
        assert compare(answer.images, generate(load_tiny(case), case)).max_diff <= 1
        assert case.model.path
        assert answer.weights == weights_hash(case.model.path)


def test_a_variation_that_does_not_take_hold_says_so(tiny_case: MakeCase):
    without = next(one for one in VARIATIONS if one.name == "torch with AVX2")
    task = replace(task_for(tiny_case(DDPM)), variation=without.name)
    with pytest.raises(NoEffectHere, match="torch's own kernels are those for DEFAULT"):
        list(run_variation(replace(without, environment={"ATEN_CPU_CAPABILITY": "default"}), task))


DYING = """
import pickle, sys, os
task = pickle.load(sys.stdin.buffer)
out = os.fdopen(os.dup(1), "wb")
from bench.calibration.messages import Ready, Raised
if task.cases[0].settings.steps == 9:
    sys.exit("no such library")
pickle.dump(Ready(), out); out.flush()
for case in task.cases:
    if case.settings.steps == 7:
        print("out of luck", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    pickle.dump(Raised(str(case.settings.steps)), out); out.flush()
"""


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it makes a case of 7 steps, and never comes up for one of 9."""
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    start = processes.subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", lambda command, **rest: start([command[0], str(script)], **rest))


@pytest.mark.usefixtures("dying")
def test_a_process_that_dies_is_a_sentence_and_the_other_cases_get_a_new_one(tiny_case: MakeCase):
    cases = [tiny_case(DDPM, steps=steps) for steps in (3, 7, 4)]
    before, died, after = (answer for _, answer in run_variation(PLAIN, task_for(*cases)))
    assert (before, after) == (Raised("3"), Raised("4"))
    assert isinstance(died, Died)
    assert died.reason == "its process was killed by SIGKILL (out of memory?); its last words: out of luck"


@pytest.mark.usefixtures("dying")
def test_a_process_that_does_not_come_up_is_a_sentence(tiny_case: MakeCase):
    with pytest.raises(VariationFailed, match="its process ended with exit code 1; its last words: no such library"):
        list(run_variation(PLAIN, task_for(tiny_case(DDPM, steps=9))))


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
    return Made(images, WEIGHTS, None)


Calibrate = Callable[..., dict[str, Calibrated]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "golden"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def calibrate(root: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Calibrate:
    """``calibrate(cases, {variation: answer})`` with what each variation makes of all cases; else the golden."""

    def calibrate(cases: Sequence[Case], answers: dict[str, Any]) -> dict[str, Calibrated]:
        def made_up(variation: Variation, task: Task) -> Iterator[tuple[Case, Answer]]:
            for case in task.cases:
                answer = answers.get(variation.name, made(tiles()))
                if isinstance(answer, Exception):
                    raise answer
                yield case, answer

        monkeypatch.setattr(run, "run_variation", made_up)
        return Calibration(Cpu(), Path.cwd(), root, {"torch": "2.15.0"}, told.append).run(cases)

    return calibrate


@pytest.fixture
def case(tiny_case: MakeCase, root: Path) -> Case:
    """A case with a golden of this machine."""
    case = tiny_case(DDPM)
    origin = describe_origin(case, WEIGHTS, None, Cpu(), {"torch": "2.15.0"})
    write_golden(golden_place(root, case, Cpu(), "reference"), tiles(), origin)
    return case


def golden_of(root: Path, case: Case) -> Place:
    return golden_place(root, case, Cpu(), "reference")


def test_a_calibration_writes_limits_with_their_evidence_and_the_next_run_uses_them(calibrate, case, root):
    picture = golden_of(root, case).picture.read_bytes()
    found = calibrate([case], {"channels last": made(altered(3)), "oneDNN off": made(altered(9))})[case.id]
    assert not found.problem
    assert golden_of(root, case).picture.read_bytes() == picture
    limits = read_golden(golden_of(root, case)).origin.limits
    assert limits
    assert limits == found.limits
    assert (limits.strict.max_diff, limits.portable.max_diff) == (6, 18)
    assert [one.name for one in limits.evidence] == ["another process", "channels last", "oneDNN off"]
    assert "1 thread: what other processes have here" in limits.left_out
    assert limits.processor == Cpu().name

    origin = describe_origin(case, WEIGHTS, None, Cpu(), {})
    verdicts = [judge(case, altered(levels), origin, root, Cpu())[0] for levels in (4, 7)]
    assert [one.verdict for one in verdicts] == ["within limits", "changed"]
    assert verdicts[1].limits == limits.strict


def test_a_variation_without_effect_on_any_case_is_no_evidence(calibrate, case, told):
    limits = calibrate([case], {})[case.id].limits
    assert [one.name for one in limits.evidence] == ["another process"]
    assert "channels last: no effect on any case, so it is no evidence" in limits.left_out
    assert "  no effect on any case, so it is no evidence" in told


def test_a_variation_that_does_not_take_hold_is_left_out_with_its_reason(calibrate, case):
    answers = {"torch with AVX2": NoEffectHere("still AVX512."), "channels last": NotHeld("on nowhere.")}
    limits = calibrate([case], answers)[case.id].limits
    assert {"torch with AVX2: no effect here: still AVX512.", "channels last: on nowhere."} <= set(limits.left_out)


def test_a_blind_case_gets_its_limits_and_a_problem_that_names_the_variation(calibrate, case, root):
    found = calibrate([case], {"oneDNN off": made(tiles(9))})[case.id]
    assert found.problem.startswith("blind: 'oneDNN off' alone moves it to SSIM ")
    assert read_golden(golden_of(root, case)).origin.limits == found.limits


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"another process": made(altered(1))}, "its golden is not what this machine makes: "),
        ({"another process": Raised("ValueError: no")}, "not calibrated under 'another process': ValueError: no"),
        ({"channels last": Died("its process ended")}, "not calibrated under 'channels last': its process ended"),
        ({"channels last": made(tiles(count=1))}, "its pictures are others: images: 1 instead of 2"),
        ({"channels last": VariationFailed("its process ended")}, "'channels last' cannot be run: its process ended"),
        ({"another process": Made(tiles(), "b" * 64, None)}, "its golden is stale: "),
    ],
    ids=["golden differs", "raises", "dies", "other pictures", "does not come up", "stale"],
)
def test_a_case_that_cannot_be_calibrated_says_why_and_keeps_its_origin(calibrate, case, root, answers, words):
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


def test_a_case_that_raises_and_has_no_golden_is_left_out_in_silence(calibrate, tiny_case):
    case = tiny_case(STABLE_DIFFUSION)
    found = calibrate([case], {"another process": Raised("IndexError: known")})[case.id]
    assert found == Calibrated(case, raises=True)


def test_the_table_shows_what_was_measured_and_what_follows(calibrate, case):
    found = calibrate([case], {"oneDNN off": made(altered(9))})
    lines = render_calibration(found.values(), colour=False).splitlines()
    strict, portable = (next(line for line in lines if tier in line) for tier in (STRICT, PORTABLE))
    assert case.id in strict
    assert "0 → 1" in strict
    assert "oneDNN off" in portable
    assert "9 → 18" in portable


# The command


@pytest.fixture
def suite_of(tiny_ddpm_folder: Path) -> str:
    return (
        f"[models.tiny]\nkind = 'ddpm'\nsource = 'local'\npath = '{tiny_ddpm_folder}'\n"
        "[[cases]]\nmodel = 'tiny'\nscheduler = 'ddpm'\nsteps = 2\nimages = 2\n"
    )


PROJECT = Path(__file__).parents[1]


@pytest.fixture
def start(pytester: pytest.Pytester, suite_of: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``start(…)`` runs the golden tests of a suite of one tiny case, in a process of its own."""
    pytester.makeconftest((PROJECT / "conftest.py").read_text())
    settings = (PROJECT / "tox.ini").read_text()
    pytester.makefile(".ini", tox=settings.replace("\npythonpath = .\n", f"\npythonpath = {PROJECT}\n"))
    (pytester.path / "tests").mkdir()
    tests = (PROJECT / "tests" / "test_goldens_of_the_suite.py").read_text()
    (pytester.path / "tests" / "test_goldens_of_the_suite.py").write_text(tests)
    (pytester.path / "suite.toml").write_text(suite_of)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Few variations, so that it takes seconds; what the others do is tested above.
    monkeypatch.setattr(variations, "VARIATIONS", VARIATIONS[:4])
    return lambda *arguments: pytester.runpytest_inprocess("--suite=suite.toml", "--device=cpu", *arguments)


def test_the_command_calibrates_and_the_next_run_judges_by_what_it_wrote(start, pytester):
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
    result.stderr.fnmatch_lines(["*--golden-calibrate: leave out *"])
