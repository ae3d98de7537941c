"""Real worker processes: what they answer, how they end, and what is left of them: nothing."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.calls.pipelines import Checkpoint
from bench.calls.sampling import generate
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade import comparison, workers
from bench.upgrade.comparison import (
    SIDES,
    Plan,
    Samples,
    load_request,
    measure_pair,
    measure_until_decided,
    picture_of,
    pictures_of,
)
from bench.upgrade.decision import FEWEST_PAIRS
from bench.upgrade.lockstep import ALTERNATE, DUET, PairedCall, Places, paired_call, places_for
from bench.upgrade.protocol import MAX_HEADER, Channel, Closed, TimedOut
from bench.upgrade.slow_down import choose_layers, layer_seconds, repeat_layers
from bench.upgrade.worker import Notices, move_weights
from bench.upgrade.workers import Sides, WorkerBroken, WorkerProcess, fresh, started_worker

psutil = importlib.import_module("psutil")

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
UNET_CALLS = {STABLE_DIFFUSION: 5, DDPM: 4}
CURRENT = Path(sys.executable)
ROOT = Path(__file__).parents[2]
TAKING_TURNS = Places(ALTERNATE, threads=1, move_weights=True)
PLAN = Plan(TAKING_TURNS, pair_s=0.0, budget_s=0.0)

Channels = tuple[Channel, int]
Request = Callable[..., dict[str, Any]]
FakePython = Callable[..., Path]


@pytest.fixture
def pipe() -> Iterator[Channels]:
    """A channel that receives what it sends, and the descriptor at which others may write into it."""
    read_from, write_to = os.pipe()
    yield Channel(read_from, write_to), write_to
    os.close(read_from)
    with contextlib.suppress(OSError):
        os.close(write_to)


def test_a_frame_with_blobs_arrives_as_it_was_sent(pipe):
    channel, _ = pipe
    channel.send({"do": "picture", "name": "größe", "list": [1, None, 0.5]}, (b"", b"\0\xff" * 500, b"end"))
    channel.send({})
    assert channel.receive(1) == (
        {"do": "picture", "name": "größe", "list": [1, None, 0.5]},
        (b"", b"\0\xff" * 500, b"end"),
    )
    assert channel.receive(1) == ({}, ())


def test_a_frame_larger_than_the_pipe_arrives(pipe):
    channel, _ = pipe
    blob = random.Random(0).randbytes(3 * 2**20)
    sender = threading.Thread(target=channel.send, args=({"a": 1}, (blob,)))
    sender.start()
    assert channel.receive(10) == ({"a": 1}, (blob,))
    sender.join()


def frame(header: dict[str, Any], *blobs: bytes) -> bytes:
    text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
    return struct.pack(">I", len(text)) + text + b"".join(blobs)


def test_bytes_that_arrive_one_by_one_are_put_together(pipe):
    channel, write_to = pipe

    def trickle() -> None:
        for byte in frame({"a": 1}, b"xyz"):
            os.write(write_to, bytes([byte]))
            time.sleep(0.001)

    sender = threading.Thread(target=trickle)
    sender.start()
    assert channel.receive(10) == ({"a": 1}, (b"xyz",))
    sender.join()


@pytest.mark.parametrize("sent", [0, 2, 10, -1])
def test_an_end_that_closes_between_frames_or_within_one_is_closed(pipe, sent):
    channel, write_to = pipe
    os.write(write_to, frame({"a": 1}, b"xyz")[:sent])
    os.close(write_to)
    for timeout in (1, None):
        with pytest.raises(Closed):
            channel.receive(timeout)


def test_nobody_to_read_is_closed():
    read_from, write_to = os.pipe()
    os.close(read_from)
    with pytest.raises(Closed):
        Channel(-1, write_to).send({"a": 1})
    os.close(write_to)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are limited on POSIX")
def test_a_channel_of_a_program_with_many_open_files_can_be_waited_for():
    import fcntl
    import resource

    many = 1100  # more than select() takes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= many:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 1), hard))
    read_from, write_to = os.pipe()
    high = fcntl.fcntl(read_from, fcntl.F_DUPFD, many)
    channel = Channel(high, -1)
    os.write(write_to, frame({"a": 1}))
    assert channel.receive(1) == ({"a": 1}, ())
    with pytest.raises(TimedOut):
        channel.receive(0.01)
    for descriptor in (read_from, write_to, high):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("sent", [0, 2, 10, -1])
def test_a_frame_that_is_not_there_in_time_timed_out(pipe, sent):
    channel, write_to = pipe
    os.write(write_to, frame({"a": 1}, b"xyz")[:sent])
    began = time.monotonic()
    with pytest.raises(TimedOut):
        channel.receive(0.2)
    assert 0.15 < time.monotonic() - began < 5


def test_the_time_is_that_of_the_whole_frame(pipe):
    channel, write_to = pipe
    stop = threading.Event()

    def trickle() -> None:
        os.write(write_to, struct.pack(">I", 1000))
        while not stop.wait(0.05):
            os.write(write_to, b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(TimedOut):
            channel.receive(0.4)
    finally:
        stop.set()
        sender.join()


@pytest.mark.parametrize("start", [struct.pack(">I", MAX_HEADER + 1), b"Loading pipeline components..."])
def test_what_is_no_frame_is_refused_with_the_reason(pipe, start):
    channel, write_to = pipe
    os.write(write_to, start)
    with pytest.raises(Closed, match=r"announces a header of \d+ bytes: something else wrote into the channel"):
        channel.receive(1)


def descendants(worker: WorkerProcess) -> list[int]:
    return [process.pid for process in psutil.Process(worker.process.pid).children(recursive=True)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(pids: list[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def ask_after(worker: WorkerProcess, what: Callable[[int], None]) -> None:
    """Asks a fresh child of the worker something after doing this to the child."""
    with fresh(worker) as process:
        what(descendants(worker)[0])
        process.ask("import")


LIBRARY = """
from types import SimpleNamespace
__version__ = "0"
utils = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
StableDiffusionPipeline = DDPMPipeline = None
"""


@pytest.fixture
def fake_python(tmp_path: Path) -> FakePython:
    """``fake_python(module="its first lines")`` is an interpreter with libraries that take no time to import."""

    def make(**modules: str) -> Path:
        folder = tmp_path / "libraries"
        folder.mkdir(exist_ok=True)
        for name in ("torch", "diffusers", "transformers", *modules):
            (folder / f"{name}.py").write_text(modules.get(name, "") + LIBRARY)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        return python

    return make


def test_what_libraries_print_stays_out_of_the_channel(fake_python):
    prints = (
        "import os, subprocess\nprint('by print')\nos.write(1, b'by write')\nsubprocess.run(['echo', 'by child'])\n"
    )
    with started_worker("baseline", fake_python(diffusers=prints), 20) as worker, fresh(worker) as process:
        assert process.ask("import")[0]["torch"] == "0"
        words = worker.log.read_text()
    assert all(text in words for text in ("by print", "by write", "by child"))


def test_what_is_printed_before_the_worker_runs_is_named_as_the_reason(fake_python):
    with (
        pytest.raises(WorkerBroken, match="something else wrote into the channel"),
        started_worker("baseline", fake_python(sitecustomize="print('welcome')\n"), 20),
    ):
        pass


def test_libraries_cannot_read_the_requests(fake_python):
    with started_worker("baseline", fake_python(diffusers="import sys\nassert sys.stdin.read() == ''\n"), 20) as worker:
        assert worker.ask("import")[0]["python"]


def test_an_import_that_fails_says_so_in_the_words_of_the_library(fake_python):
    python = fake_python(diffusers="raise ImportError('diffusers needs torch>=9\\nand more lines')\n")
    with pytest.raises(WorkerBroken) as caught, started_worker("baseline", python, 20):
        pass
    assert str(caught.value) == "ImportError: diffusers needs torch>=9"


def test_an_interpreter_that_does_not_start_leaves_its_last_words(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first line >&2\necho no such library >&2\nexit 3\n")
    python.chmod(0o755)
    with (
        pytest.raises(WorkerBroken, match=r"its process ended.*first line \| no such library") as caught,
        started_worker("a", python, 20),
    ):
        pass
    assert not caught.value.alive


def test_a_library_that_ends_the_process_is_broken(fake_python):
    python = fake_python(diffusers="import os\nos.write(2, b'fatal: no kernel')\nos._exit(7)\n")
    with pytest.raises(WorkerBroken, match=r"its process ended.*fatal: no kernel"), started_worker("a", python, 20):
        pass


def test_a_library_that_hangs_is_stopped(fake_python):
    python = fake_python(diffusers="import time\ntime.sleep(1000)\n")
    began = time.monotonic()
    with (
        pytest.raises(WorkerBroken, match=r"gave no answer for 0\.5 s and was stop") as caught,
        started_worker("a", python, 0.5),
    ):
        pass
    assert not caught.value.alive
    assert time.monotonic() - began < 10


def test_a_child_that_hangs_is_stopped_with_its_parent(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        worker.timeout_s = 0.5
        left = [worker.process.pid]

        def hang(child: int) -> None:
            left.append(child)
            os.kill(child, signal.SIGSTOP)

        with pytest.raises(WorkerBroken, match="gave no answer"):
            ask_after(worker, hang)
        assert len(left) == 2
        assert all_gone(left)


def test_a_worker_that_gives_no_answer_is_ended_at_once(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        worker.timeout_s = 0.2
        with pytest.raises(WorkerBroken, match="gave no answer"):
            worker.reply()
        assert not alive(worker.process.pid)


def test_an_interrupted_pair_ends_its_worker_at_once(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        with pytest.raises(KeyboardInterrupt), fresh(worker):
            raise KeyboardInterrupt
        assert not alive(worker.process.pid)


def test_a_request_that_raises_leaves_a_process_that_goes_on(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker, fresh(worker) as process:
        (child,) = descendants(worker)
        for _ in range(2):
            with pytest.raises(WorkerBroken, match=r"^AttributeError: 'Worker' object has no attribute") as caught:
                process.ask("nonsense")
            assert caught.value.alive
        assert process.ask("import")[0]["torch"] == "0"
        assert descendants(worker) == [child]


def test_each_fresh_process_is_a_new_one_and_the_first_survives(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        seen = []
        for _ in range(3):
            with fresh(worker) as process:
                process.ask("import")
                seen += descendants(worker)
            assert descendants(worker) == []
        assert len(set(seen)) == 3
        assert worker.ask("import")[0]["torch"] == "0"


def test_without_forks_a_fresh_process_is_a_new_interpreter(fake_python):
    with started_worker("baseline", fake_python(), 20, forks=False) as worker:
        with fresh(worker) as process:
            pid = process.process.pid
            assert pid != worker.process.pid
            assert process.name == "baseline"
            assert process.ask("import")[0]["torch"] == "0"
            assert descendants(worker) == []
        assert not alive(pid)
        assert worker.ask("import")[0]["torch"] == "0"


def test_a_killed_child_is_named_with_its_signal(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        pid = worker.process.pid
        with pytest.raises(WorkerBroken, match=r"was killed by SIGKILL \(out of memory\?\)") as caught:
            ask_after(worker, lambda child: os.kill(child, signal.SIGKILL))
        assert not caught.value.alive
        assert all_gone([pid])


def test_a_child_that_crashes_is_named_with_its_signal(fake_python):
    with started_worker("a", fake_python(), 20) as worker, pytest.raises(WorkerBroken, match="was killed by SIGSEGV"):
        ask_after(worker, lambda child: os.kill(child, signal.SIGSEGV))


def test_a_worker_killed_as_a_whole_is_broken(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        with pytest.raises(WorkerBroken, match=r"its process (was killed by SIGKILL|ended)") as caught:
            ask_after(worker, lambda _: os.killpg(worker.process.pid, signal.SIGKILL))
        assert not caught.value.alive
        assert all_gone([worker.process.pid])


def test_a_worker_that_is_gone_says_so_when_it_is_asked_again(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker:
        worker.kill()
        with pytest.raises(WorkerBroken):
            worker.ask("import")


@pytest.mark.parametrize("forks", [True, False])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_when_the_block_ends(fake_python, forks, error):
    left = []
    try:
        with started_worker("baseline", fake_python(), 20, forks=forks) as worker, fresh(worker) as process:
            left = [worker.process.pid, process.process.pid, *descendants(worker)]
            folder = worker.log.parent
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert len(set(left)) == 2
    assert all_gone(left)
    assert not folder.exists()


PARENT = """
import sys, time
from pathlib import Path
from bench.upgrade.workers import Sides, fresh
with Sides({"baseline": Path(sys.argv[1]), "candidate": Path(sys.argv[1])}, 60) as sides:
    one, other = sides.take()
    with fresh(one), fresh(other):
        print(one.process.pid, other.process.pid, flush=True)
        time.sleep(60)
"""


def test_workers_end_by_themselves_when_the_suite_is_killed(fake_python, tmp_path):
    command = [sys.executable, "-c", PARENT, str(fake_python())]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        left = [int(pid) for pid in parent.stdout.readline().split()]
        left += [child.pid for pid in left for child in psutil.Process(pid).children()]
        parent.kill()
    assert len(left) == 4
    assert all_gone(left)


def test_ctrl_c_does_not_reach_the_workers(fake_python):
    with started_worker("baseline", fake_python(), 20) as worker, fresh(worker) as process:
        assert os.getpgid(worker.process.pid) != os.getpgid(0)
        for pid in (worker.process.pid, *descendants(worker)):
            os.kill(pid, signal.SIGINT)
        assert process.ask("import")[0]["torch"] == "0"


def test_old_first_processes_are_renewed_together(fake_python, monkeypatch):
    monkeypatch.setattr(workers, "RENEWED_AFTER", 2)
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        taken = [[worker.process.pid for worker in sides.take()] for _ in range(5)]
        assert [worker.name for worker in sides.take()] == list(SIDES)
    assert taken[0] == taken[1]
    assert taken[2] == taken[3]
    assert len({pid for pids in taken for pid in pids}) == 6
    assert all_gone([pid for pids in taken for pid in pids], 0)


def test_both_first_processes_start_at_the_same_time(fake_python, tmp_path):
    # Each import waits until the other process has begun its own.
    meet = (
        "import os, time\nfrom pathlib import Path\n"
        f"here = Path({str(tmp_path)!r}) / 'met'\nhere.mkdir(exist_ok=True)\n(here / str(os.getpid())).touch()\n"
        "while len(list(here.iterdir())) < 2: time.sleep(0.01)\n"
    )
    with Sides(dict.fromkeys(SIDES, fake_python(diffusers=meet)), 10) as sides:
        assert len(sides.take()) == 2


def test_a_lost_first_process_is_replaced(fake_python):
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        first = sides.take()
        pids = [worker.process.pid for worker in first]
        first[1].kill()
        assert all(worker.ask("import")[0]["torch"] == "0" for worker in sides.take())
        assert all_gone(pids, 0)


def test_one_side_that_cannot_start_leaves_nothing_of_the_other(fake_python, tmp_path):
    good = fake_python()
    bad = tmp_path / "bad"
    bad.write_text("#!/bin/sh\nexit 1\n")
    bad.chmod(0o755)
    with Sides({"baseline": good, "candidate": bad}, 20) as sides, pytest.raises(WorkerBroken):
        sides.take()
    assert [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE] == []


def test_the_python_of_a_worker_keeps_its_bytecode_and_asks_no_hub(fake_python, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    notes = "import os, sys\nprint(sys.dont_write_bytecode, os.environ['HF_HUB_OFFLINE'])\n"
    with started_worker("baseline", fake_python(diffusers=notes), 20) as worker:
        assert worker.log.read_text().split() == ["False", "1"]


@pytest.fixture
def notices() -> Iterator[Notices]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Notices()


def test_notices_are_kept_once_each_and_in_order(notices):
    logger = logging.getLogger("tests.notices")
    notices.watch("tests.notices")
    for _ in range(2):
        logger.warning("first")
        warnings.warn("second", FutureWarning, stacklevel=1)
    logger.info("not this")
    logger.removeHandler(notices)
    assert list(notices.texts) == ["tests.notices: first", "FutureWarning: second"]


@pytest.fixture(scope="module")
def module_sides() -> Iterator[Sides]:
    with pytest.MonkeyPatch.context() as patch, Sides(dict.fromkeys(SIDES, CURRENT), 120) as sides:
        patch.setattr(workers, "RENEWED_AFTER", 10**6)
        yield sides


@pytest.fixture
def sides(module_sides: Sides) -> list[WorkerProcess]:
    """The first processes of two equal sides, new ones if a test before has ended them."""
    return module_sides.take()


@pytest.fixture
def request_of(tiny_case) -> Request:
    """``request_of(kind, **settings)`` is what a worker needs to load the tiny pipeline of that kind."""

    def make(kind: str, **settings: Any) -> dict[str, Any]:
        case = tiny_case(kind, **settings)
        return load_request(case, Checkpoint(Path(case.model.path), None, False), "cpu", 1)

    return make


@KINDS
def test_two_equal_sides_make_the_pictures_of_the_suite_itself(kind, sides, request_of, tiny_case, load_tiny):
    results = [picture_of(side, request_of(kind)) for side in sides]
    case = tiny_case(kind)
    expected = [image.tobytes() for image in generate(load_tiny(case), case)]
    assert [result.error for result in results] == [None, None]
    assert [result.unet_calls for result in results] == [UNET_CALLS[kind]] * 2
    assert [[image.tobytes() for image in result.images] for result in results] == [expected] * 2


@KINDS
@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
def test_a_call_in_lockstep_has_a_segment_more_than_unet_calls(kind, mode, sides, request_of):
    places = TAKING_TURNS
    if mode == DUET:
        places = places_for("cpu")
        if places.mode != DUET:
            pytest.skip("a duet needs Linux and two cores")
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        for side in (one, other):
            side.ask("load", **request_of(kind))
        calls = [paired_call((one, other), places, random.Random(0), swapped=swapped) for swapped in (False, True)]
    for call in calls:
        assert len(call.baseline) == len(call.candidate) == UNET_CALLS[kind] + 1
        assert min(call.baseline + call.candidate) > 0
    assert len({checksum for call in calls for checksum in call.checksums}) == 1


def test_a_side_with_more_unet_calls_does_the_rest_alone(sides, request_of):
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        one.ask("load", **request_of(DDPM))
        other.ask("load", **request_of(DDPM, steps=6))
        call = paired_call((one, other), TAKING_TURNS, random.Random(0))
    assert (len(call.baseline), len(call.candidate)) == (5, 7)
    assert call.checksums[0] != call.checksums[1]


def test_waiting_for_the_other_side_is_not_counted(sides, request_of):
    wait = 0.4
    with fresh(sides[0]) as process:
        process.ask("load", **request_of(DDPM))
        process.ask("picture")
        process.tell(do="call", move_weights=False)
        reply, waits = process.reply()[0], 0
        while "segments_s" not in reply:
            assert reply == {"halted": True}
            time.sleep(wait)
            process.tell(cores=[])
            reply, waits = process.reply()[0], waits + 1
    assert waits == 5
    assert sum(reply["segments_s"]) < wait * waits / 2


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
def test_a_side_computes_on_the_cores_that_it_is_told(sides, request_of):
    last = max(os.sched_getaffinity(0))
    with fresh(sides[0]) as process:
        process.ask("load", **request_of(DDPM))
        (child,) = descendants(sides[0])
        process.ask("picture", cores=[last])
        threads = [int(task.name) for task in Path(f"/proc/{child}/task").iterdir()]
        assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({last})}
    assert os.sched_getaffinity(sides[0].process.pid) == os.sched_getaffinity(0)


def test_notices_of_loading_and_of_the_call_come_with_the_pictures(sides, request_of, tiny_sd_folder, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_sd_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps_offset": 0}))
    request = request_of(STABLE_DIFFUSION) | {"folder": str(folder)}
    request["settings"]["prompts"] = ["red fox " * 60, "blue whale"]
    noticed = picture_of(sides[0], request)
    assert noticed.error is None
    assert any("FutureWarning" in text and "steps_offset" in text for text in noticed.notices)
    assert any("truncated" in text for text in noticed.notices)
    assert picture_of(sides[0], request_of(STABLE_DIFFUSION)).notices == ()


def test_cases_of_one_process_are_told_of_their_own_notices_only(sides, request_of):
    long = request_of(STABLE_DIFFUSION)
    long["settings"]["prompts"] = ["red fox " * 60, "blue whale"]
    plain, other = request_of(STABLE_DIFFUSION), request_of(DDPM)
    found = dict(pictures_of(sides[0], {"long": long, "plain": plain, "long again": long, "another pipeline": other}))
    truncated = {case: [text for text in result.notices if "truncated" in text] for case, result in found.items()}
    assert [len(texts) for texts in truncated.values()] == [1, 0, 1, 0]
    assert found["plain"].images == picture_of(sides[0], plain).images


def test_in_one_process_a_case_that_raises_costs_itself_and_a_process_that_dies_is_the_last(
    sides, request_of, tmp_path
):
    requests = {name: request_of(DDPM) for name in ("fails", "works", "dies", "is left")}
    requests["fails"]["folder"] = str(tmp_path)
    found = {}
    for case, result in pictures_of(sides[0], requests):
        found[case] = result
        if case == "works":
            (child,) = descendants(sides[0])
            os.kill(child, signal.SIGKILL)
    assert list(found) == ["fails", "works", "dies"]
    assert "model_index.json" in (found["fails"].error or "")
    assert found["works"].error is None
    assert "was killed by SIGKILL" in (found["dies"].error or "")


def test_peak_memory_is_at_least_what_the_process_holds_now(sides, request_of):
    with fresh(sides[0]) as process:
        process.ask("load", **request_of(DDPM))
        process.ask("picture")
        (child,) = descendants(sides[0])
        held = psutil.Process(child).memory_info().rss
        peak = process.ask("memory")[0]["peak_bytes"]
    assert peak >= held > 100 * 2**20


def test_a_load_that_fails_leaves_a_process_that_can_load_something_else(sides, request_of, tmp_path):
    with fresh(sides[0]) as process:
        with pytest.raises(WorkerBroken, match=r"^\w+Error: .*model_index\.json") as caught:
            process.ask("load", **(request_of(DDPM) | {"folder": str(tmp_path)}))
        assert caught.value.alive
        process.ask("load", **request_of(DDPM))
        assert process.ask("picture")[0]["unet_calls"] == UNET_CALLS[DDPM]
    result = picture_of(sides[0], request_of(DDPM) | {"folder": str(tmp_path)})
    assert "model_index.json" in (result.error or "")
    assert result.images == ()
    assert sides[0].process.poll() is None


def test_one_pair_gives_all_samples(sides, request_of):
    samples = Samples()
    measure_pair(sides, (request_of(DDPM), request_of(DDPM)), PLAN, samples, random.Random(0))
    assert [len(calls) for calls in samples.calls] == [1]
    assert len(samples.log_ratios) == 1
    pairs = [*samples.load_s, *samples.first_call_s, *samples.peak_bytes]
    assert len(pairs) == 3
    assert all(value and value > 0 for pair in pairs for value in pair)
    assert samples.unrepeatable == ()
    assert all(descendants(side) == [] for side in sides)


def test_the_budget_ends_the_measurement_after_a_pair(module_sides, request_of):
    lines: list[str] = []
    request = request_of(DDPM)
    samples = measure_until_decided(module_sides, (request, request), PLAN, announce=lines.append)
    assert len(samples.calls) == len(lines) == 1
    assert lines[0].startswith("pair 1: ")
    assert samples.seconds > 0


class NoSides:
    def take(self) -> tuple[()]:
        return ()


def measured(monkeypatch: pytest.MonkeyPatch, ratios: list[float], **plan: Any) -> Samples:
    """Of pairs with these ratios, 10 s each by the clock of the comparison."""
    now, rest = [0.0], iter(ratios)

    def pair(_sides: Any, _requests: Any, _plan: Plan, samples: Samples, _rng: Any) -> None:
        now[0] += 10
        samples.calls.append([PairedCall([1.0], [next(rest)], ("", ""))])

    monkeypatch.setattr(comparison, "measure_pair", pair)
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: now[0])
    sides: Any = NoSides()
    return measure_until_decided(sides, ({}, {}), Plan(TAKING_TURNS, **plan))


def test_measuring_goes_on_until_it_is_decided(monkeypatch):
    assert len(measured(monkeypatch, [1.0] * 9, budget_s=1000).calls) == FEWEST_PAIRS
    wide = [0.9, 1.1] * 50
    assert len(measured(monkeypatch, wide, budget_s=10**6, min_change=0.1).calls) > FEWEST_PAIRS


@pytest.mark.parametrize(("budget_s", "pairs"), [(0, 1), (19, 1), (20, 2), (39, 3), (75, 7)])
def test_no_pair_is_begun_that_would_end_after_the_budget(monkeypatch, budget_s, pairs):
    samples = measured(monkeypatch, [0.5, 2.0] * 20, budget_s=budget_s)
    assert len(samples.calls) == pairs
    assert samples.seconds == 10 * pairs


STUBBED_LOADING = """
import sys
from types import ModuleType, SimpleNamespace

def stub(name, **contents):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)

def load(model, folder, *_):
    if folder.name == "broken":
        raise OSError("no such checkpoint")
    return SimpleNamespace(load_s=0.1)

stub("bench.calls.device", choose_device=str)
stub("bench.calls.pipelines", Checkpoint=lambda folder, *_: folder, load_checkpoint=load)
set_num_threads = int
"""


@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_side_that_cannot_load_is_named(broken, mode, fake_python, request_of):
    requests = [request_of(DDPM), request_of(DDPM)]
    requests[broken]["folder"] = "broken"
    plan, samples = Plan(Places(mode, ((), ()), 1)), Samples()
    with Sides(dict.fromkeys(SIDES, fake_python(torch=STUBBED_LOADING)), 20) as sides:
        for seed in (1, 2):  # one of which asks the candidate first
            with pytest.raises(WorkerBroken, match=r"^OSError: no such checkpoint") as caught:
                measure_pair(sides.take(), requests, plan, samples, random.Random(seed))
            assert (caught.value.side, caught.value.alive) == (SIDES[broken], True)
    assert samples == Samples()


@KINDS
def test_moved_weights_are_the_same_weights_elsewhere(kind, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(kind, optimizations=("channels-last",))).pipeline
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight for part in parts for weight in part.parameters()]
    before = [(weight.data_ptr(), weight.stride(), weight.detach().clone()) for weight in weights]
    move_weights(pipeline)
    after = [weight for part in parts for weight in part.parameters()]
    assert all(one is other for one, other in zip(after, weights, strict=True))
    assert len(before) > 20
    for weight, (address, stride, values) in zip(weights, before, strict=True):
        assert weight.data_ptr() != address
        assert weight.stride() == stride
        assert torch.equal(weight, values)


def test_the_chosen_layers_take_nearly_what_is_wanted_and_never_more():
    rng = random.Random(5)
    for _ in range(300):
        seconds = {f"layer {number}": rng.lognormvariate(0, 1.5) for number in range(rng.randint(1, 80))}
        wanted = rng.random() * sum(seconds.values())
        chosen = choose_layers(seconds, wanted)
        total = math.fsum(seconds[name] for name in chosen)
        assert total <= wanted * (1 + 1e-9)
        assert len(set(chosen)) == len(chosen)
        assert all(total + took > wanted for name, took in seconds.items() if name not in chosen)
        if len(seconds) > 40 and wanted > 2 * max(seconds.values()):
            assert total > 0.95 * wanted


def test_nothing_is_chosen_for_no_time_and_everything_for_all_of_it():
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert choose_layers(seconds, 0.0) == []
    assert choose_layers(seconds, 7.0) == ["c", "b", "a"]


@KINDS
def test_repeated_layers_do_their_work_twice_and_leave_the_pictures_alone(kind, tiny_case, load_tiny, monkeypatch):
    case = tiny_case(kind)
    loaded = load_tiny(case)
    plain = [image.tobytes() for image in generate(loaded, case)]
    unet = loaded.pipeline.unet
    seconds, whole = layer_seconds(unet, lambda: generate(loaded, case))
    assert whole > 0
    assert 0 < sum(seconds.values()) < 1.5 * whole
    assert all(not unet.get_submodule(name)._forward_hooks for name in seconds)
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm)
    names = [name for name in seconds if isinstance(unet.get_submodule(name), kinds)]
    counts = dict.fromkeys(names, 0)
    for name in names:
        monkeypatch.setattr(unet.get_submodule(name), "forward", counting(unet.get_submodule(name), counts, name))
    generate(loaded, case)
    once = dict(counts)
    repeated = names[::2]
    repeat_layers(unet, repeated)
    assert [image.tobytes() for image in generate(loaded, case)] == plain
    assert min(once.values()) >= UNET_CALLS[kind]
    for name in names:
        assert counts[name] - once[name] == (2 if name in repeated else 1) * once[name]


def counting(module: torch.nn.Module, counts: dict[str, int], name: str) -> Callable[..., Any]:
    forward = module.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return forward(*args, **kwargs)

    return counted


def test_a_worker_repeats_the_layers_that_it_is_told(sides, request_of):
    plain = picture_of(sides[0], request_of(DDPM))
    repeated = picture_of(sides[1], request_of(DDPM) | {"repeated_layers": ["conv_in", "conv_out"]})
    assert repeated.error is None
    assert repeated.images == plain.images
    unknown = picture_of(sides[1], request_of(DDPM) | {"repeated_layers": ["no such layer"]})
    assert unknown.error == "KeyError: 'no such layer'"


def test_a_child_killed_within_a_call_is_reported_and_the_next_take_gives_workers_that_work(module_sides, request_of):
    one, other = module_sides.take()
    left = [one.process.pid, other.process.pid]

    def kill_in_call(child: int) -> None:
        one.ask("load", **request_of(DDPM))
        assert one.ask("call", move_weights=False)[0] == {"halted": True}
        os.kill(child, signal.SIGKILL)

    with pytest.raises(WorkerBroken, match=r"^its process was killed by SIGKILL") as caught:
        ask_after(one, kill_in_call)
    assert not caught.value.alive
    renewed = module_sides.take()
    assert all_gone(left, 0)
    assert [picture_of(side, request_of(DDPM)).error for side in renewed] == [None, None]


def test_a_side_whose_call_raises_is_named_and_its_pair_leaves_no_samples(module_sides, request_of):
    requests = [request_of(DDPM), request_of(DDPM)]
    requests[1]["settings"]["steps"] = 5000  # of 1000
    samples = Samples()
    with pytest.raises(WorkerBroken, match=r"^ValueError") as caught:
        measure_pair(module_sides.take(), requests, PLAN, samples, random.Random(0))
    assert caught.value.side == "candidate"
    assert samples == Samples()


def test_a_side_killed_in_lockstep_is_named(module_sides, request_of, monkeypatch):
    def killing(sides: Any, *arguments: Any, **more: Any) -> PairedCall:
        os.kill(descendants(sides[1])[0], signal.SIGKILL)
        return paired_call(sides, *arguments, **more)

    monkeypatch.setattr(comparison, "paired_call", killing)
    with pytest.raises(WorkerBroken, match=r"^its process was killed by SIGKILL") as caught:
        measure_pair(module_sides.take(), (request_of(DDPM),) * 2, PLAN, Samples(), random.Random(0))
    assert caught.value.side == "candidate"
