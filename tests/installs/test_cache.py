"""The cache: reuse, locks, leftovers, list and prune."""

import json
import os
import signal
import subprocess

import pytest

from bench.installs import uv
from bench.installs.cache import DESCRIPTION, list_environments, prune_environments
from bench.installs.installed import Change
from bench.installs.uv import EnvironmentFailed
from tests.installs.helpers import (
    INSTALLING,
    UV,
    ask,
    differences,
    fake_uv,
    install,
    nothing_is_left,
    run_in,
    start,
    wait_for,
)


def test_a_second_time_the_environment_comes_from_the_cache(base, cache, uv_log):
    first = ask("frame==2.0", cache, base)
    announced: list[str] = []
    again = ask("frame", cache, base, announced)
    assert (again.folder, again.libraries) == (first.folder, first.libraries)
    assert announced == ["'frame' is in the cache: frame 1.0 → 2.0"]
    asked = uv_log.read_text().splitlines()
    assert len([line for line in asked if line.startswith("venv")]) == 1
    assert len([line for line in asked if line.startswith("pip install") and "--dry-run" not in line]) == 1


def test_a_changed_current_environment_gives_another_clone(own_base, cache):
    first = ask("brush==2.0", cache, own_base)
    install(own_base, "frame==1.0")
    second = ask("brush==2.0", cache, own_base)
    assert first.folder != second.folder
    assert "frame" in second.libraries


@pytest.mark.parametrize("damage", ["a library is gone", "a library was added", "no Python", "no description"])
def test_a_damaged_environment_in_the_cache_is_made_again(base, cache, damage):
    environment = ask("frame==2.0", cache, base)
    if damage == "a library is gone":
        subprocess.run([UV, "pip", "uninstall", "-q", "--python", environment.python, "paint"], check=True)
    elif damage == "a library was added":
        install(environment.python, "canvas")
    elif damage == "no Python":
        environment.python.unlink()
    else:
        (environment.folder / DESCRIPTION).write_text("{}")
    announced: list[str] = []
    again = ask("frame==2.0", cache, base, announced)
    assert announced[0].startswith("making")
    assert differences(base, again) == ["frame 1.0 → 2.0"]


def test_a_cache_that_cannot_be_made_is_named(base, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailed, match=r"file.cache cannot be written"):
        ask("frame==2.0", tmp_path / "file" / "cache", base, folder=tmp_path)


def test_what_a_killed_build_left_is_cleared_at_the_next_use(base, cache, tmp_path, monkeypatch):
    reached = tmp_path / "reached"
    sleeping = fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then echo $$ > {reached}; exec sleep 60; fi")
    with start(sleeping, "frame==2.0", cache, base) as process:
        wait_for(reached)
        process.send_signal(signal.SIGKILL)
    os.kill(int(reached.read_text()), signal.SIGKILL)
    assert len(list(cache.glob("*.part"))) == 1
    assert list_environments(cache) == ()
    monkeypatch.setattr(uv, "find_uv", lambda: UV)
    ask("brush==2.0", cache, base)
    assert not list(cache.glob("*.part"))
    assert differences(base, ask("frame==2.0", cache, base)) == ["frame 1.0 → 2.0"]


def test_two_that_want_it_at_once_build_it_once(base, cache, tmp_path, monkeypatch):
    log = tmp_path / "uv.log"
    uv = fake_uv(tmp_path, monkeypatch, f'echo "$1" >> {log}; if {INSTALLING}; then sleep 1; fi')
    processes = [start(uv, "frame==2.0", cache, base) for _ in range(2)]
    outputs = [process.communicate("\n")[0] for process in processes]
    folders = {line for output in outputs for line in output.splitlines() if line.startswith("folder")}
    assert len(folders) == 1
    assert log.read_text().split().count("venv") == 1
    assert sorted("waiting: another process makes" in output for output in outputs) == [False, True]


def test_the_cache_lists_what_was_asked_and_when_it_was_used(base, cache):
    kept = [ask(text, cache, base) for text in ("frame==2.0", "paint==2.0")]
    description = kept[0].folder / DESCRIPTION
    description.write_text(json.dumps(json.loads(description.read_text()) | {"last_used": "2020-01-01T00:00:00+00:00"}))
    newer, older = list_environments(cache)
    assert (newer.asked, older.asked) == ("paint==2.0", "frame==2.0")
    assert newer.changes == (Change("brush", "1.0", "3.0"), Change("paint", "1.0", "2.0"))
    assert newer.folder == kept[1].folder
    ask("frame==2.0", cache, base)
    assert list_environments(cache)[0].asked == "frame==2.0"
    assert list_environments(cache)[0].last_used.year > 2020


def test_a_list_of_no_cache_is_empty(cache):
    assert list_environments(cache) == ()
    assert prune_environments(cache, print) == 0


def test_prune_removes_what_nobody_uses_and_keeps_what_is_in_use(base, cache):
    used = ask("frame==2.0", cache, base)
    ask("brush==2.0", cache, base)
    announced: list[str] = []
    assert prune_environments(cache, announced.append) == 1
    assert [one.asked for one in list_environments(cache)] == ["frame==2.0"]
    assert sorted(announced)[0] == "kept 'frame==2.0': it is in use"
    assert sorted(announced)[1].startswith("removed 'brush==2.0' (")
    assert run_in(used, "import frame; print(frame.version)") == "2.0"
    del used
    assert prune_environments(cache, announced.append) == 1
    assert nothing_is_left(cache)


def test_prune_keeps_what_another_process_uses_until_it_ends(base, cache):
    with start(UV, "frame==2.0", cache, base) as process:
        while not process.stdout.readline().startswith("folder"):
            assert process.poll() is None
        assert prune_environments(cache, print) == 0
        process.kill()
    assert prune_environments(cache, print) == 1


def test_prune_leaves_alone_what_is_not_its_own(base, cache):
    (cache / "pictures").mkdir(parents=True)
    assert prune_environments(cache, print) == 0
    assert (cache / "pictures").exists()
