"""A run: records are written as cases end, a case that raises affects no other, and pipelines are not loaded twice."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import run as runs
from bench.calls import timing
from bench.calls.device import Cpu
from bench.calls.optimizations import KNOBS, Knob
from bench.calls.pipelines import LoadedPipeline, PipelineError
from bench.calls.sampling import BrokenPicture
from bench.calls.schedulers import UnknownSchedulerOption
from bench.calls.timing import Measurement, measure
from bench.calls.work import Work, count_work, counted_call
from bench.pictures.outcomes import Difference
from bench.record.folder import RECORDS, RunFolder
from bench.record.nvml import GpuState
from bench.record.record import Record, read_records
from bench.run import GoldenPolicy, Run
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections")

Start = Callable[..., Run]


SECONDS = (0.5, 0.1, 0.3, 0.2, 0.4)


@pytest.fixture
def known_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds take the seconds of ``SECONDS``, in turn."""
    really = timing.measure_rounds

    def known(*arguments: Any) -> tuple[list[float], Any]:
        samples, output = really(*arguments)
        return list(SECONDS[: len(samples)]), output

    monkeypatch.setattr(timing, "measure_rounds", known)


def written(run: Run) -> list[Record]:
    """The records on disk."""
    return read_records(run.folder.path / RECORDS)


@pytest.fixture
def announced() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, announced: list[str]) -> Start:
    """``start(name, update=..., …)`` is a new run with the store and the results of the test."""

    def make(
        name: str = "run", update: str | None = None, counts_work: bool = True, difference: Difference | None = None
    ) -> Run:
        return Run(
            device=Cpu(),
            folder=RunFolder(tmp_path / "results", name),
            goldens=GoldenPolicy(tmp_path / "golden", update, difference),
            suite_folder=tmp_path,
            environment={"libraries": {"torch": torch.__version__}},
            announce=announced.append,
            counts_work=counts_work,
        )

    return make


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Model and dtype of each pipeline that was loaded."""
    log: list[tuple[Any, ...]] = []
    load = runs.load_pipeline

    def noting(model: Any, dtype: str, *others: Any, **named: Any) -> Any:
        log.append((model.name, dtype))
        return load(model, dtype, *others, **named)

    monkeypatch.setattr(runs, "load_pipeline", noting)
    return log


@pytest.mark.usefixtures("known_seconds")
def test_a_measured_case_leaves_a_record_with_every_figure(start, tiny_case):
    run, case = start(), tiny_case(STABLE_DIFFUSION)
    start("before", update="auto").picture(case)
    record = run.benchmark(case, 5)
    assert written(run) == [record]
    assert (record.case, record.model, record.device) == (case.id, "tiny-sd", "cpu")
    assert (record.verdict, record.error, record.revision) == ("identical", None, None)
    assert (record.samples_s, record.median_s) == ((0.5, 0.1, 0.3, 0.2, 0.4), 0.3)
    assert record.mad_s == pytest.approx(0.1)
    assert record.unet_calls == 5
    assert record.phases_s is not None
    assert record.phases_s.unet_calls == (1, 1, 1, 1, 1)
    assert record.load_s is not None
    assert record.load_s > 0
    assert record.first_call_s is not None
    assert record.first_call_s > 0
    assert (record.peak_memory_bytes, bool(record.peak_memory_reason)) == (None, True)
    assert (record.peak_reserved_bytes, bool(record.peak_reserved_reason)) == (None, True)
    assert (record.first_call_cold, record.gpu) == (True, None)
    assert record.weights is not None
    assert len(record.weights) == 64
    assert record.settings["prompts"] == list(case.settings.prompts)


def test_the_environment_of_a_record_is_listed_once_in_the_run(start, tiny_case):
    run = start()
    keys = {run.picture(tiny_case(DDPM, seed=seed)).environment for seed in range(2)}
    listed = json.loads((run.folder.path / "environments.json").read_text())
    assert keys == listed.keys() == {run.environment_key}
    assert listed[run.environment_key] == run.environment


def test_a_first_call_is_cold_only_if_nothing_called_the_pipeline_before(start, tiny_case):
    run = start()
    cases = tiny_case(DDPM), tiny_case(DDPM, seed=1), tiny_case(STABLE_DIFFUSION), tiny_case(DDPM, seed=2)
    assert [run.benchmark(case, 1).first_call_cold for case in cases] == [True, False, True, True]
    run.picture(tiny_case(STABLE_DIFFUSION))
    assert run.benchmark(tiny_case(STABLE_DIFFUSION, seed=1), 1).first_call_cold is False
    assert run.picture(tiny_case(DDPM)).first_call_cold is None


def test_a_first_call_that_raised_leaves_no_cold_pipeline(start, tiny_case, monkeypatch):
    run = start()
    with monkeypatch.context() as patched:
        patched.setattr(runs, "measure", lambda *_others, **_more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.benchmark(tiny_case(DDPM), 1)
    assert run.benchmark(tiny_case(DDPM), 1).first_call_cold is False


def test_the_state_of_a_gpu_is_read_after_the_calls(start, tiny_case, monkeypatch):
    events: list[str] = []
    really = runs.measure

    def measured(*given: Any, **more: Any) -> Measurement:
        events.append("measure")
        return really(*given, **more)

    def state(device: Any) -> GpuState:
        events.append(device.type)
        return GpuState(sm_clock_mhz=1755)

    monkeypatch.setattr(runs, "measure", measured)
    monkeypatch.setattr(runs, "gpu_state", state)
    record = start().benchmark(tiny_case(DDPM), 1)
    assert record.gpu == GpuState(sm_clock_mhz=1755)
    assert events == ["measure", "cpu"]


def test_a_picture_check_has_no_times(start, tiny_case):
    record = start().picture(tiny_case(DDPM))
    assert (record.samples_s, record.median_s, record.first_call_s, record.phases_s) == ((), None, None, None)


def test_each_record_is_on_disk_before_the_next_case_begins(start, tiny_case):
    run = start()
    for count in (1, 2, 3):
        run.picture(tiny_case(DDPM, seed=count))
        assert len(written(run)) == count


def test_a_case_that_raises_leaves_its_error_in_a_record(start, tiny_case, monkeypatch):
    run = start()
    run.picture(tiny_case(DDPM, seed=1))
    with monkeypatch.context() as patched:
        patched.setattr(type(run.pipeline(tiny_case(DDPM)).pipeline), "__call__", fail)
        with pytest.raises(RuntimeError, match="first line"):
            run.benchmark(tiny_case(DDPM, seed=2), 2)
    run.picture(tiny_case(DDPM, seed=3))
    before, failed, after = written(run)
    assert (before.verdict, before.error, after.verdict, after.error) == ("missing", None, "missing", None)
    assert failed.case == tiny_case(DDPM, seed=2).id
    assert failed.verdict == "raises"
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("RuntimeError", "first line")
    assert failed.weights == before.weights


def fail(*_arguments: Any, **_keywords: Any) -> None:
    raise RuntimeError("\nfirst line\nsecond line")


@pytest.mark.usefixtures("known_seconds")
def test_an_error_in_the_middle_keeps_what_was_measured_before(start, tiny_case, monkeypatch):
    run = start()

    def lose_the_disk(*_arguments: Any, **_keywords: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(runs, "check_golden", lose_the_disk)
    with pytest.raises(OSError, match="disk full"):
        run.benchmark(tiny_case(DDPM), 2)
    (record,) = written(run)
    assert (record.verdict, record.samples_s) == ("raises", (0.5, 0.1))


def test_a_missing_checkpoint_is_a_record_too(start, tiny_case):
    run, case = start(), tiny_case(DDPM)
    gone = case.model_copy(update={"model": case.model.model_copy(update={"path": Path("nowhere")})})
    with pytest.raises(PipelineError):
        run.picture(gone)
    (record,) = written(run)
    assert record.error is not None
    assert record.error.type == "PipelineError"
    run.picture(case)
    assert [record.verdict for record in written(run)] == ["raises", "missing"]


def test_broken_pictures_are_an_error_and_leave_no_grid(start, tiny_case):
    run, case = start(), tiny_case(DDPM)
    with torch.no_grad():
        run.pipeline(case).pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(BrokenPicture):
        run.picture(case)
    (record,) = written(run)
    assert record.error is not None
    assert record.error.type == "BrokenPicture"
    assert not (run.folder.path / "grids").exists()


def test_an_interrupted_case_still_leaves_a_record(start, tiny_case, monkeypatch):
    run, case = start(), tiny_case(DDPM)

    def interrupt(*_arguments: Any, **_keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(run.pipeline(case).pipeline), "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.picture(case)
    (record,) = written(run)
    assert record.verdict == "raises"


def test_a_changed_picture_is_kept_with_golden_and_difference(start, tiny_case, alter_golden, tmp_path):
    case = tiny_case(DDPM)
    start("first", update="auto").picture(case)
    golden = tmp_path / "golden" / f"{case.id}.png"
    alter_golden(golden)
    run = start()
    assert run.picture(case).verdict == "changed"
    kept = run.folder.path / "grids"
    assert (kept / f"{case.id}.golden.png").is_file()
    with Image.open(kept / f"{case.id}.golden.png") as shown, Image.open(golden) as accepted:
        assert np.array_equal(np.asarray(shown), np.asarray(accepted))
    with Image.open(kept / f"{case.id}.difference.png") as difference:
        levels = np.asarray(difference)
    assert levels[:8, :8].any()
    assert not levels[8:].any()
    assert (kept / f"{case.id}.png").is_file()


def test_a_picture_that_passes_is_kept_alone(start, tiny_case):
    case = tiny_case(DDPM, images=3)
    start("first", update="auto").picture(case)
    run = start()
    record = run.picture(case)
    assert record.verdict == "identical"
    assert record.pictures is not None
    assert record.pictures.ssim_worst_tile == 1
    kept = [path.relative_to(run.folder.path / "grids") for path in run.folder.path.rglob("*.png")]
    assert kept == [Path(f"{case.id}.png")]
    with Image.open(run.folder.path / "grids" / kept[0]) as grid:
        assert grid.size == (48, 16)


def test_pictures_of_another_size_have_no_difference_picture(start, tiny_case, tmp_path):
    case = tiny_case(STABLE_DIFFUSION)
    start("first", update="auto").picture(case)
    grown = tiny_case(STABLE_DIFFUSION, size=32)
    for suffix in (".png", ".json"):
        (tmp_path / "golden" / f"{case.id}{suffix}").rename(tmp_path / "golden" / f"{grown.id}{suffix}")
    run = start()
    assert run.picture(grown).verdict == "stale"
    assert (run.folder.path / "grids" / f"{grown.id}.golden.png").is_file()
    assert not (run.folder.path / "grids" / f"{grown.id}.difference.png").exists()


def test_a_run_writes_goldens_only_on_request(start, tiny_case, tmp_path, announced):
    run = start()
    assert run.picture(tiny_case(DDPM)).verdict == "missing"
    assert run.benchmark(tiny_case(DDPM), 2).verdict == "missing"
    assert not (tmp_path / "golden").exists()
    assert announced == []


def test_a_run_that_accepts_a_picture_does_not_pass(start, tiny_case, tmp_path, announced):
    case = tiny_case(DDPM)
    assert start(update="auto").picture(case).verdict == "missing"
    assert announced == [f"wrote {tmp_path / 'golden' / case.id}.png (missing, new)"]
    assert start("second").picture(case).verdict == "identical"


def test_consecutive_cases_of_one_dtype_share_a_pipeline(start, tiny_case, loads):
    run = start()
    for dtype in ("float32", "bfloat16"):
        for steps in (2, 3):
            run.picture(tiny_case(DDPM, steps=steps, dtype=dtype))
    run.picture(tiny_case(STABLE_DIFFUSION, steps=2))
    assert loads == [("tiny-ddpm", "float32"), ("tiny-ddpm", "bfloat16"), ("tiny-sd", "float32")]


def test_other_optimizations_are_another_pipeline(start, tiny_case, loads):
    run = start()
    for optimizations in ((), ("channels-last",), ()):
        run.picture(tiny_case(DDPM, optimizations=optimizations))
    assert len(loads) == 3


def test_a_pipeline_is_released_before_the_next_one_is_loaded(start, tiny_case, monkeypatch):
    run, load = start(), runs.load_pipeline
    seen: list[weakref.ref[torch.nn.Module]] = []

    def noting(*arguments: Any, **named: Any) -> Any:
        alive = [reference() is not None for reference in seen]
        assert not any(alive), "two pipelines at once"
        loaded = load(*arguments, **named)
        seen.append(weakref.ref(loaded.pipeline.unet))
        return loaded

    monkeypatch.setattr(runs, "load_pipeline", noting)
    for dtype in ("float32", "bfloat16"):
        run.benchmark(tiny_case(DDPM, dtype=dtype), 2)
    run.release()
    assert len(seen) == 2
    assert seen[-1]() is None


def test_a_pipeline_that_did_not_load_is_tried_again(start, tiny_case, monkeypatch, loads):
    run, case = start(), tiny_case(DDPM)
    with monkeypatch.context() as patched:
        patched.setattr(runs, "load_pipeline", fail)
        with pytest.raises(RuntimeError):
            run.picture(case)
    run.picture(case)
    assert loads == [("tiny-ddpm", "float32")]


def test_the_tally_adds_up_loading_and_calls(start, tiny_case):
    run = start()
    run.picture(tiny_case(DDPM))
    loading, calls = run.tally.loading_s, run.tally.in_pipeline_s
    assert loading > 0
    assert calls > 0
    run.picture(tiny_case(DDPM, seed=1))
    assert run.tally.loading_s == loading
    assert run.tally.in_pipeline_s > calls


# Counted work


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with the pipeline, in order: ``call`` or ``count``."""
    log: list[str] = []

    def counting(loaded: LoadedPipeline, case: Any) -> Any:
        log.append("count")
        return counted_call(loaded, case)

    monkeypatch.setattr(runs, "counted_call", counting)
    monkeypatch.setattr(runs, "count_work", lambda *of: counting(*of)[1])
    return log


def note_calls(run: Run, case: Any, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    owner = type(run.pipeline(case).pipeline)
    plain = owner.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        log.append("call")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(owner, "__call__", call)


@pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
def test_picture_check_and_measurement_count_the_same_work(kind, start, tiny_case):
    case = tiny_case(kind)
    accepted = start("accepted", update="auto").picture(case).work
    pictured, measured = start("pictured").picture(case), start("measured").benchmark(case, 2)
    assert accepted is not None
    assert accepted.verdict == Verdict.NOT_COMPARED
    for record in (pictured, measured):
        assert record.work is not None
        assert (record.verdict, record.work.verdict) == ("identical", Verdict.SAME_WORK)
        assert record.work.counts == accepted.counts
    assert Work.from_json(accepted.counts or {}).unet_calls == measured.unet_calls


def test_a_picture_check_takes_one_call_for_pictures_and_work(start, tiny_case, monkeypatch, calls):
    run, case = start(), tiny_case(DDPM)
    note_calls(run, case, monkeypatch, calls)
    run.picture(case)
    assert calls == ["count", "call"]


def test_a_measurement_counts_after_its_last_sample(start, tiny_case, monkeypatch, calls):
    run, case = start(), tiny_case(DDPM)
    note_calls(run, case, monkeypatch, calls)

    rounds = timing.measure_rounds

    def noting(*arguments: Any) -> Any:
        found = rounds(*arguments)
        calls.append("sampled")
        return found

    monkeypatch.setattr(timing, "measure_rounds", noting)
    run.benchmark(case, 2)
    assert calls[-4:] == ["call", "sampled", "count", "call"]
    assert calls.count("count") == 1


def test_a_run_of_pictures_only_counts_nothing(start, tiny_case, calls):
    case = tiny_case(DDPM)
    run = start(counts_work=False)
    assert run.picture(case).work is None
    assert run.benchmark(case, 2).work is None
    assert calls == []


def test_pictures_only_need_no_counts_in_the_golden(start, tiny_case):
    case = tiny_case(DDPM)
    start("accepted", update="auto", counts_work=False).picture(case)
    assert start("pictures", counts_work=False).picture(case).verdict == "identical"
    record = start("all").picture(case)
    assert record.verdict == Verdict.WORK_MISSING
    assert record.work is not None
    assert "--golden-update" in record.work.message


def read_a_value_each_step(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    forward = loaded.pipeline.unet.forward

    def reading(sample: torch.Tensor, *rest: Any, **more: Any) -> Any:
        sample[0, 0, 0, 0].item()
        return forward(sample, *rest, **more)

    patch.setattr(loaded.pipeline.unet, "forward", reading)


def clone_in_a_block(patch: pytest.MonkeyPatch, loaded: LoadedPipeline) -> None:
    block = loaded.pipeline.unet.mid_block.resnets[0]
    forward = block.forward
    patch.setattr(block, "forward", lambda hidden, *rest, **more: forward(hidden.clone(), *rest, **more))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (read_a_value_each_step, ("more work: value reads ", "+1 per step", "aten::_local_scalar_dense +4")),
        (clone_in_a_block, ("more work: copied bytes ", "aten::clone +4")),
    ],
)
@pytest.mark.parametrize("timed", [False, True], ids=["pictured", "measured"])
def test_a_fault_that_no_picture_shows_fails_its_case(timed, fault, words, start, tiny_case):
    broken, sound = tiny_case(DDPM), tiny_case(DDPM, seed=5)
    for case in (broken, sound):
        start("accepted", update="auto").picture(case)
    run = start()
    with pytest.MonkeyPatch.context() as patch:
        fault(patch, run.pipeline(broken))
        record = run.benchmark(broken, 2) if timed else run.picture(broken)
    assert record.verdict == Verdict.MORE_WORK
    assert record.pictures is not None
    assert record.pictures.verdict == "identical"
    assert record.work is not None
    assert all(word in record.work.message for word in words), record.work.message
    assert run.picture(sound).verdict == "identical"


def test_the_repair_of_a_fault_passes_and_is_reported(start, tiny_case, monkeypatch):
    case = tiny_case(DDPM)
    run = start("accepted", update="auto")
    with monkeypatch.context() as patch:
        read_a_value_each_step(patch, run.pipeline(case))
        run.picture(case)
    record = start().picture(case)
    assert Verdict(record.verdict).passes
    assert record.work is not None
    assert (record.work.verdict, "-1 per step" in record.work.message) == (Verdict.LESS_WORK, True)


@pytest.fixture
def compiled_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """``compile`` compiles one layer, whose compiled code gives other values, so that pictures show which one ran."""

    def apply(pipeline: Any) -> None:
        layer = pipeline.unet.time_embedding.linear_1
        forward = layer.forward
        layer.forward = lambda sample: forward(sample) + torch.compiler.is_compiling()
        layer.compile(backend="eager")

    monkeypatch.setitem(KNOBS, "compile", Knob(apply, KNOBS["compile"].count))


@pytest.mark.usefixtures("compiled_in_part")
def test_a_compiled_case_makes_pictures_with_compiled_code(start, tiny_case, tmp_path):
    case = tiny_case(DDPM, optimizations=("compile",))
    start("accepted", update="auto", counts_work=False).picture(case)
    run = start()
    first, second = run.picture(case), run.picture(case)
    for record in (first, second):
        assert record.pictures is not None
        assert record.pictures.verdict == "identical"
        assert record.work is not None
        assert record.work.counts is not None
        assert (record.work.counts["graphs"], record.work.counts["graph_breaks"]) == (1, 0)
    assert first.work == second.work


def test_a_compiled_case_is_counted_in_its_own_process(start, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(DDPM)
    start("accepted", update="auto").picture(case)
    asked: list[bool] = []

    def alone(case: Any, device: str, rounds: int, folder: Path, *, counts_work: bool) -> tuple[Any, Measurement]:
        asked.append(counts_work)
        loaded = load_tiny(case)
        return loaded, measure(loaded, case, Cpu(), rounds, count=count_work if counts_work else None)

    monkeypatch.setattr(runs, "measure_alone", alone)
    monkeypatch.setattr(runs, "compiles", lambda names: True)
    record = start().benchmark(case, 2)
    assert record.work is not None
    assert record.work.verdict == Verdict.SAME_WORK
    assert start(counts_work=False).benchmark(case, 2).work is None
    assert asked == [True, False]


def raising(tiny_case):
    """A sentinel that raises today: a bfloat16 tensor cannot become an array."""
    settings = {"dtype": "bfloat16", "scenario": "numpy-output", "issue": "https://example.org/issues/2"}
    return tiny_case(DDPM, sentinel="ways", scheduler="ddim", **settings)


def test_what_a_case_raises_is_recorded_accepted_and_then_passes(start, tiny_case):
    case = raising(tiny_case)
    missing = start("first").picture(case)
    assert missing.verdict == "missing"
    assert missing.error is not None
    assert missing.error.type == "TypeError"
    assert not Verdict(start("update", update="auto").picture(case).verdict).passes
    accepted = start("second").picture(case)
    assert accepted.verdict == "raises as before"
    assert Verdict(accepted.verdict).passes
    assert accepted.work is None


def test_a_case_that_raises_shows_where_and_the_others_run(start, tiny_case, monkeypatch, capsys):
    case, other = tiny_case(DDPM, sentinel="ways"), tiny_case(DDPM, sentinel="ways", seed=1)
    for one in (case, other):
        start("update", update="auto").picture(one)
    run = start("later")
    really = runs.counted_call

    def failing(loaded, asked):
        if asked == case:
            raise IndexError("index 5 is out of bounds\nsecond line")
        return really(loaded, asked)

    monkeypatch.setattr(runs, "counted_call", failing)
    found = run.picture(case)
    assert found.verdict == "raises now"
    assert found.pictures is not None
    assert "IndexError: index 5 is out of bounds" in found.pictures.message
    assert "Traceback" in capsys.readouterr().err
    assert Verdict(run.picture(other).verdict).passes
    assert [record.verdict for record in written(run)] == ["raises now", "identical"]


def test_an_unknown_option_is_never_a_golden(start, tiny_case):
    case = tiny_case(DDPM, sentinel="ways", options={"use_karras_sigmas": True})
    with pytest.raises(UnknownSchedulerOption):
        start("update", update="auto").picture(case)
    assert not list((start("later").goldens.root).rglob("*.json"))


def test_an_option_unknown_to_an_older_library_may_be_a_difference(start, tiny_case, monkeypatch):
    case = tiny_case(DDPM, sentinel="ways", options={"clip_sample": False})
    with_torch = Difference(when=(f"torch=={torch.__version__}",), reason="the option came later")
    newer = start("newer", update="auto")
    newer.environment["libraries"]["torch"] = "999"
    newer.picture(case)

    def unknown(*_others: Any) -> None:
        raise UnknownSchedulerOption("DDPMScheduler does not know clip_sample.")

    monkeypatch.setattr(runs, "counted_call", unknown)
    with pytest.raises(UnknownSchedulerOption):
        start("before", update="auto").picture(case)
    assert start("accepting", difference=with_torch).picture(case).verdict == "raises now"
    assert start("after").picture(case).verdict == "raises as before"
    monkeypatch.undo()
    assert start("works").picture(case).verdict == "works now"
    assert newer.picture(case).verdict == "identical"
