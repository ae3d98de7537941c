"""Worker processes: how they start and end, and what is left of them: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.upgrade.workers import SIDES, Sides, WorkerBroken, fresh, fresh_pair, started_worker
from tests.upgrade.helpers import ROOT, alive, all_gone, ask_after, descendants, psutil


def test_what_libraries_print_stays_out_of_the_channel(fake_python):
    prints = (
        "import os, subprocess\nprint('by print')\nos.write(1, b'by write')\nsubprocess.run(['echo', 'by child'])\n"
    )
    with started_worker("baseline", fake_python(diffusers=prints), 20) as worker, fresh(worker) as process:
        assert process.ask("import")[0]["torch"] == "0"
        words = worker.log.read_text()
    assert all(text in words for text in ("by print", "by write", "by child"))


def test_what_is_printed_before_the_worker_runs_is_named(fake_python):
    with (
        pytest.raises(WorkerBroken, match="something else wrote into the channel"),
        started_worker("baseline", fake_python(sitecustomize="print('welcome')\n"), 20),
    ):
        pass


def test_libraries_cannot_read_the_requests(fake_python):
    with started_worker("baseline", fake_python(diffusers="import sys\nassert sys.stdin.read() == ''\n"), 20) as worker:
        assert worker.ask("import")[0]["python"]


def test_an_import_that_fails_says_so_in_its_own_words(fake_python):
    python = fake_python(diffusers="raise ImportError('diffusers needs torch>=9\\nand more lines')\n")
    with pytest.raises(WorkerBroken) as caught, started_worker("baseline", python, 20):
        pass
    assert str(caught.value) == "ImportError: diffusers needs torch>=9"


def test_an_interpreter_that_fails_leaves_its_last_words(tmp_path):
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
from bench.upgrade.workers import SIDES, Sides, fresh
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


def test_first_processes_are_kept_until_they_are_renewed_together(fake_python):
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        taken = [[worker.process.pid for worker in one] for one in (sides.take(), sides.take(), sides.renewed())]
        assert [worker.name for worker in sides.take()] == list(SIDES)
        assert sides.process("candidate").process.pid == taken[2][1]
    assert taken[0] == taken[1]
    assert len({pid for pids in taken for pid in pids}) == 4
    assert all_gone([pid for pids in taken for pid in pids], 0)


def meeting(folder: Path, count: int) -> str:
    """First lines of a library whose import waits until so many processes have begun theirs."""
    return (
        "import os, time\nfrom pathlib import Path\n"
        f"here = Path({str(folder)!r}) / 'met'\nhere.mkdir(exist_ok=True)\n(here / str(os.getpid())).touch()\n"
        f"while len(list(here.iterdir())) < {count}: time.sleep(0.01)\n"
    )


def test_both_first_processes_start_at_the_same_time(fake_python, tmp_path):
    with Sides(dict.fromkeys(SIDES, fake_python(diffusers=meeting(tmp_path, 2))), 10) as sides:
        assert len(sides.take()) == 2


def test_both_fresh_processes_start_at_the_same_time_without_forks(fake_python, tmp_path):
    with Sides(dict.fromkeys(SIDES, fake_python()), 10, forks=False) as sides:
        first = sides.take()
        fake_python(diffusers=meeting(tmp_path, 2))
        with fresh_pair(first) as pair:
            pids = [one.process.pid for one in pair]
            assert len({*pids, *(one.process.pid for one in first)}) == 4
        assert all_gone(pids, 0)


def test_one_fresh_process_that_does_not_come_up_leaves_nothing_of_the_other(fake_python, tmp_path):
    with Sides(dict.fromkeys(SIDES, fake_python()), 10, forks=False) as sides:
        good, bad = sides.take()
        bad.python = tmp_path / "missing"
        before = living_children()
        with pytest.raises(OSError, match="missing"), fresh_pair([good, bad]):
            pytest.fail("the candidate has no interpreter")
        assert living_children() == before


def test_a_lost_first_process_is_replaced_and_the_other_kept(fake_python):
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        kept, lost = (worker.process.pid for worker in sides.take())
        sides.process("candidate").kill()
        assert all(worker.ask("import")[0]["torch"] == "0" for worker in sides.take())
        assert sides.process("baseline").process.pid == kept
        assert all_gone([lost], 0)


def living_children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def test_one_side_that_cannot_start_leaves_nothing_of_the_other(fake_python, tmp_path):
    good = fake_python()
    bad = tmp_path / "bad"
    bad.write_text("#!/bin/sh\nexit 1\n")
    bad.chmod(0o755)
    before = living_children()
    with Sides({"baseline": good, "candidate": bad}, 20) as sides, pytest.raises(WorkerBroken):
        sides.take()
    assert living_children() == before


def test_a_worker_keeps_its_bytecode_and_asks_no_hub(fake_python, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    notes = "import os, sys\nprint(sys.dont_write_bytecode, os.environ['HF_HUB_OFFLINE'])\n"
    with started_worker("baseline", fake_python(diffusers=notes), 20) as worker:
        assert worker.log.read_text().split() == ["False", "1"]
