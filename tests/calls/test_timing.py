"""The clock waits for the device, phases are those of the call, and each pass measures only one thing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.calls import device as devices
from bench.calls import timing
from bench.calls.compiled import measure_alone
from bench.calls.device import Cpu, PeakMemory
from bench.calls.pipelines import LoadedPipeline, PipelineError
from bench.calls.sampling import generate
from bench.calls.timing import measure, measure_phases
from bench.calls.work import count_work
from bench.pictures.check import check_golden
from bench.pictures.limits import STRICT, CalibratedLimits, VariationMeasured
from bench.pictures.similarity import Limits
from bench.pictures.store import describe_origin
from bench.record.folder import RunFolder
from bench.run import GoldenPolicy, Run
from bench.suite.case import Case
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections")

KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])


@dataclass
class LoggingDevice:
    """A CPU that writes down what it is asked for; ``peaks`` are the answers of its memory counter, in turn."""

    log: list[str] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    type: str = "cpu"
    name: str = "logging"
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    total_memory: int | None = None

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def reset_peak_memory(self) -> None:
        self.log.append("reset")

    def empty_cache(self) -> None:
        self.log.append("empty")

    def peak_memory(self) -> PeakMemory:
        self.log.append("peak")
        if not self.peaks:
            return PeakMemory(None, "no counter")
        return PeakMemory(self.peaks.pop(0) if len(self.peaks) > 1 else self.peaks[0])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> LoggingDevice:
    """A device in whose log each reading of the clock appears, each 1 s after the one before."""
    logging = LoggingDevice()
    readings = iter(range(10**6))

    def read() -> float:
        logging.log.append("clock")
        return float(next(readings))

    monkeypatch.setattr(devices, "time", SimpleNamespace(perf_counter=read))
    return logging


def note_calls(monkeypatch: pytest.MonkeyPatch, loaded: LoadedPipeline, log: list[str]) -> None:
    """Writes into the log when the pipeline is called and when its call ends."""
    owner, plain = type(loaded.pipeline), type(loaded.pipeline).__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        log.append("call")
        try:
            return plain(self, *args, **kwargs)
        finally:
            log.append("end")

    monkeypatch.setattr(owner, "__call__", call)


def without_phases(log: list[str]) -> list[str]:
    """The log without what is inside calls."""
    outside, inside = [], False
    for entry in log:
        if entry == "end":
            inside = False
        if not inside:
            outside.append(entry)
        inside = inside or entry == "call"
    return outside


@KINDS
def test_the_clock_is_never_read_before_the_device_is_done(kind, device, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(kind)
    loaded = load_tiny(case)
    device.log.clear()
    measure(loaded, case, device, 2)
    assert device.log.count("clock") >= 2 * 2 + case.settings.steps
    assert all(device.log[place - 1] == "synchronize" for place, entry in enumerate(device.log) if entry == "clock")


@KINDS
def test_every_timed_call_is_inside_its_clock_readings(kind, device, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(kind)
    loaded = load_tiny(case)
    note_calls(monkeypatch, loaded, device.log)
    device.log.clear()
    measure(loaded, case, device, 2)
    timed = ["synchronize", "clock", "call", "end", "synchronize", "clock"]
    assert without_phases(device.log) == [*timed, *timed, "peak", *timed, *timed]


def test_the_clock_runs_only_during_the_call(device, tiny_case, load_tiny):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    # Readings are 1 s apart, so a first call without a reading inside it takes 1 s, and one of the phases pass as
    # many as there are readings in it: one per step and one per UNet call, and the last one.
    measured = measure(loaded, case, device, 2)
    assert measured.first_call_s == 1
    assert measured.phases.denoising == (1, 2, 2, 2)
    assert measured.phases.decoding == 1
    assert measured.in_pipeline_s == 1 + (2 * case.settings.steps + 1) + sum(measured.samples_s)
    assert measured.samples_s == (1.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "scheduler", "calls"),
    [
        (STABLE_DIFFUSION, "pndm", (1, 1, 1, 1, 1)),  # the second step is made twice
        (STABLE_DIFFUSION, "heun", (1, 1, 1, 1, 1, 1, 1)),  # two a step but for the last
        (STABLE_DIFFUSION, "ddim", (1, 1, 1, 1)),
        (DDPM, "ddpm", (1, 1, 1, 1)),
    ],
)
def test_unet_calls_are_counted_step_by_step(kind, scheduler, calls, tiny_case, load_tiny):
    case = tiny_case(kind, scheduler=scheduler)
    phases, _, _ = measure_phases(load_tiny(case), case, Cpu())
    assert phases.unet_calls == calls
    assert len(phases.denoising) == len(calls)


def test_both_halves_of_guidance_are_one_unet_call(tiny_case, load_tiny):
    for guidance in (1.0, 5.0):
        case = tiny_case(STABLE_DIFFUSION, guidance=guidance, scheduler="ddim")
        assert sum(measure_phases(load_tiny(case), case, Cpu())[0].unet_calls) == 4


@KINDS
def test_phases_add_up_to_the_call(kind, tiny_case, load_tiny):
    case = tiny_case(kind, steps=8)
    loaded = load_tiny(case)
    generate(loaded, case)
    phases, whole, _ = measure_phases(loaded, case, Cpu())
    parts = (phases.text_encoding or 0) + sum(phases.denoising) + phases.decoding
    assert 0.5 * whole < parts <= whole
    assert min(phases.denoising) > 0
    assert phases.decoding > 0


def test_only_stable_diffusion_encodes_text(tiny_case, load_tiny):
    for kind in (STABLE_DIFFUSION, DDPM):
        case = tiny_case(kind)
        seconds = measure_phases(load_tiny(case), case, Cpu())[0].text_encoding
        assert (seconds is None) if kind == DDPM else (seconds is not None and seconds > 0)


def slow_down(monkeypatch: pytest.MonkeyPatch, module: Any, seconds: float) -> None:
    forward = module.forward

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return forward(*args, **kwargs)

    monkeypatch.setattr(module, "forward", slow)


@pytest.mark.parametrize(
    ("part", "phase"), [("text_encoder", "text_encoding"), ("unet", "denoising"), ("vae.decoder", "decoding")]
)
def test_time_counts_in_the_phase_where_it_was_spent(part, phase, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(STABLE_DIFFUSION, scheduler="ddim")
    loaded = load_tiny(case)
    generate(loaded, case)
    module = loaded.pipeline
    for name in part.split("."):
        module = getattr(module, name)
    slow_down(monkeypatch, module, 0.25)
    phases, _, _ = measure_phases(loaded, case, Cpu())
    shares = {
        "text_encoding": phases.text_encoding or 0.0,
        "denoising": statistics.median(phases.denoising),
        "decoding": phases.decoding,
    }
    assert shares.pop(phase) >= 0.25
    assert max(shares.values()) < 0.25


STOCHASTIC: list[dict[str, Any]] = [
    {"scheduler": "euler-ancestral"},
    {"scheduler": "ddpm"},
    {"scheduler": "ddim", "call": {"eta": 1.0}},
]


@pytest.mark.parametrize(
    ("kind", "settings"), [(STABLE_DIFFUSION, {}), (DDPM, {}), *((STABLE_DIFFUSION, one) for one in STOCHASTIC)]
)
def test_measuring_phases_does_not_change_the_pictures(kind, settings, tiny_case, load_tiny):
    case = tiny_case(kind, **settings)
    loaded = load_tiny(case)
    plain = generate(loaded, case)
    _, _, output = measure_phases(loaded, case, Cpu())
    assert same(timing.to_images(loaded.pipeline, output), plain)


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return [image.tobytes() for image in one] == [image.tobytes() for image in other]


@pytest.mark.parametrize("fails", [False, True])
def test_the_patched_classes_are_restored_exactly(fails, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(STABLE_DIFFUSION)
    loaded = load_tiny(case)
    owners = (type(loaded.pipeline.unet), type(loaded.pipeline.text_encoder), torch.nn.Module)
    before = [dict(owner.__dict__) for owner in owners]
    if fails:
        monkeypatch.setattr(loaded.pipeline.vae, "decode", refuse)
        with pytest.raises(RuntimeError, match="no decoder"):
            measure_phases(loaded, case, Cpu())
    else:
        measure_phases(loaded, case, Cpu())
    assert [dict(owner.__dict__) for owner in owners] == before


def refuse(*_args: Any, **_kwargs: Any) -> None:
    raise RuntimeError("no decoder")


def test_patching_restores_an_own_call_and_leaves_none_elsewhere():
    class Doubled(torch.nn.Identity):
        def __call__(self, value: int) -> int:
            return 2 * value

    class Plain(torch.nn.Identity):
        pass

    log: list[str] = []
    own = Doubled.__dict__["__call__"]
    with timing.before_call(Doubled(), lambda: log.append("another object of its class")):
        assert Doubled()(1) == 2
    assert log == []
    assert Doubled.__dict__["__call__"] is own
    module = Plain()
    with timing.before_call(module, lambda: log.append("called")):
        module(torch.zeros(1))
    assert log == ["called"]
    assert "__call__" not in Plain.__dict__


def test_memory_has_no_pass_where_there_is_no_counter(device, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    note_calls(monkeypatch, loaded, device.log)
    device.log.clear()
    assert measure(loaded, case, device, 0).peak_memory == PeakMemory(None, "no counter")
    assert device.log.count("call") == 2
    assert "reset" not in device.log


def test_memory_is_that_of_one_call_after_a_reset(device, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    note_calls(monkeypatch, loaded, device.log)
    device.log.clear()
    device.peaks = [10**9, 123456]
    measured = measure(loaded, case, device, 1)
    assert measured.peak_memory == PeakMemory(123456)
    outside = [entry for entry in without_phases(device.log) if entry != "clock"]
    memory = outside[outside.index("reset") - 1 :]
    call = ["synchronize", "call", "end", "synchronize"]
    assert memory == ["empty", "reset", *call, "synchronize", "peak", *call]  # the last call is the sample


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> Callable[[LoadedPipeline], None]:
    """``numbered(loaded)`` makes its calls return pictures whose level is the number of the call."""

    def number(loaded: LoadedPipeline) -> None:
        plain, count = type(loaded.pipeline).__call__, iter(range(1, 100))

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            output = plain(self, *args, **kwargs)
            output.images = torch.full_like(output.images, next(count) / 255)
            return output

        monkeypatch.setattr(type(loaded.pipeline), "__call__", call)

    return number


def test_first_and_last_images_are_of_the_first_and_last_call(tiny_case, load_tiny, numbered):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    numbered(loaded)
    measured = measure(loaded, case, Cpu(), 3)
    assert {int(np.asarray(image).max()) for image in measured.first_images} == {1}
    assert {int(np.asarray(image).min()) for image in measured.images} == {5}  # after the phases, three samples


@KINDS
def test_every_call_has_new_generators_and_a_new_scheduler(kind, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(kind)
    loaded = load_tiny(case)
    owner, plain = type(loaded.pipeline), type(loaded.pipeline).__call__
    seen: list[Any] = []

    def noting(self: Any, **arguments: Any) -> Any:
        seen.append((self.scheduler, *arguments["generator"]))
        return plain(self, **arguments)

    monkeypatch.setattr(owner, "__call__", noting)
    measured = measure(loaded, case, Cpu(), 3)
    assert len({id(thing) for things in seen for thing in things}) == 5 * (1 + case.settings.images)
    assert same(measured.first_images, measured.images)
    assert same(measured.first_images, measured.phases_images)


def test_without_rounds_the_images_are_those_of_the_phases_pass(tiny_case, load_tiny, numbered):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    numbered(loaded)
    measured = measure(loaded, case, Cpu(), 0)
    assert measured.samples_s == ()
    assert {int(np.asarray(image).max()) for image in measured.images} == {2}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    goldens, environment = GoldenPolicy(tmp_path / "golden"), {"libraries": {"torch": torch.__version__}}
    return Run(Cpu(), RunFolder(tmp_path / "results", "run"), goldens, tmp_path, environment)


def accept(run: Run, case: Case, loaded: LoadedPipeline) -> None:
    """Accepts the pictures and the work of the pipeline as the golden of the case."""
    origin = describe_origin(case, loaded.weights, loaded.revision, run.device, {}, work=count_work(loaded, case))
    quiet: list[str] = []
    images = generate(loaded, case)
    check_golden(case, images, origin, run.goldens.root, run.device, update="auto", announce=quiet.append)


@pytest.fixture
def shared_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the rounds: what the first call has drawn is missing for the next."""
    really, shared = timing.prepare_call, list[Any]()

    def sharing(loaded: LoadedPipeline, case: Case) -> dict[str, Any]:
        arguments = really(loaded, case)
        shared.append(arguments["generator"])
        return arguments | {"generator": shared[0]}

    monkeypatch.setattr(timing, "prepare_call", sharing)


def test_a_pipeline_that_repeats_itself_passes(run, tiny_case, load_tiny):
    case = tiny_case(DDPM)
    accept(run, case, load_tiny(case))
    record = run.benchmark(case, 2)
    assert (record.verdict, record.error) == ("identical", None)


def test_a_pipeline_with_its_own_noise_is_not_repeatable(run, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(DDPM)
    unet = run.pipeline(case).pipeline.unet
    forward = unet.forward

    def noisy(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.sample += torch.rand_like(output.sample) / 100
        return output

    monkeypatch.setattr(unet, "forward", noisy)
    limitless_golden(run, case, load_tiny(case))
    record = run.benchmark(case, 2)
    assert record.verdict == Verdict.NOT_REPEATABLE
    assert record.error is not None
    assert record.error.type == "NotRepeatable"
    assert "the first and the last call with the same seeds differ" in record.error.message
    assert (run.folder.path / "grids" / f"{case.id}.first.png").is_file()


@pytest.mark.parametrize("settings", STOCHASTIC)
def test_a_phases_pass_with_other_pictures_is_not_repeatable(settings, run, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(STABLE_DIFFUSION, **settings)
    accept(run, case, load_tiny(case))
    assert run.benchmark(case, 2).verdict == "identical"
    # Without the signature of the scheduler's own step, diffusers leaves out the generator or eta.
    monkeypatch.setattr(timing, "functools", SimpleNamespace(wraps=lambda _step: lambda timed_step: timed_step))
    record = run.benchmark(case, 2)
    assert record.verdict == Verdict.NOT_REPEATABLE
    assert record.error is not None
    assert record.error.message.startswith("the first and the call that measures phases with the same seeds differ: ")
    assert (run.folder.path / "grids" / f"{case.id}.phases.png").is_file()


@pytest.mark.usefixtures("shared_generators")
def test_a_shared_generator_is_not_repeatable(run, tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION)
    limitless_golden(run, case, load_tiny(case))
    assert run.benchmark(case, 2).verdict == Verdict.NOT_REPEATABLE


@pytest.mark.usefixtures("shared_generators")
def test_a_changed_last_round_fails_though_the_first_call_passed(run, tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION)
    accept(run, case, load_tiny(case))
    assert run.benchmark(case, 2).verdict == "changed"


def limitless_golden(run: Run, case: Case, loaded: LoadedPipeline) -> None:
    """A golden that every picture matches, so that only repeatability is judged."""
    accept(run, case, loaded)
    for path in run.goldens.root.rglob("*.json"):
        anything = Limits(ssim=-1.0, max_diff=255, mean_diff=255.0, reason="a test")
        limits = CalibratedLimits(
            strict=anything, portable=anything,
            evidence=(VariationMeasured(name="none", tier=STRICT, ssim=1, max_diff=0, changed_share=0, mean_diff=0),),
            margin="", processor="", instruction_set="", libraries={}, date="2026-11-22",
        )  # fmt: skip
        path.write_text(path.read_text().replace('"limits": null', f'"limits": {limits.model_dump_json()}'))


def test_a_case_is_measured_in_its_process_as_it_is_here(tiny_case, load_tiny, tmp_path):
    case = tiny_case(STABLE_DIFFUSION)
    loaded, measured = measure_alone(case, "cpu", 2, tmp_path, counts_work=True)
    here = measure(load_tiny(case), case, Cpu(), 2, count=count_work)
    assert (loaded.pipeline, loaded.weights) == (None, load_tiny(case).weights)
    assert len(measured.samples_s) == 2
    assert measured.phases.unet_calls == here.phases.unet_calls
    assert measured.work == here.work
    for images in (measured.first_images, measured.phases_images, measured.images):
        assert same(images, measured.images)
        assert [image.size for image in images] == [image.size for image in here.images]


def test_what_a_case_raises_in_its_process_is_raised_here(tiny_case, tmp_path):
    case = tiny_case(DDPM)
    gone = case.model_copy(update={"model": case.model.model_copy(update={"path": Path("nowhere")})})
    with pytest.raises(PipelineError, match="nowhere"):
        measure_alone(gone, "cpu", 2, tmp_path)
