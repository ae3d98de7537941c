"""A clone has what the current environment has, by links, and leaves it alone."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from bench.installs.cache import list_environments
from bench.installs.installed import Environment, look
from bench.installs.uv import EnvironmentFailed
from tests.installs.helpers import ask, differences, install, nothing_is_left, run_in, snapshot, write_wheel


def test_commands_of_the_clone_run_in_the_clone(base, cache):
    environment = ask("frame==2.0", cache, base)
    command = environment.python.with_name("paint")
    assert str(base.parent) in base.with_name("paint").read_text()
    assert str(base.parent) not in command.read_text()
    assert subprocess.run([command], check=True, capture_output=True, text=True).stdout == "1.0\n"


def test_what_comes_from_no_index_is_cloned_as_it_is_installed(own_base, cache, tmp_path):
    gone = write_wheel(tmp_path, "easel", "1.0", body="made_of = 'wood'\n")
    install(own_base, str(gone))
    gone.unlink()
    environment = ask("brush==2.0", cache, own_base)
    assert differences(own_base, environment) == ["brush 1.0 → 2.0"]
    assert run_in(environment, "import easel; print(easel.made_of)") == "wood"


def test_clones_of_two_contents_under_one_version_are_two(own_base, cache, tmp_path):
    folders = []
    for text in ("made_of = 'wood'\n", "made_of = 'steel'\n"):
        install(own_base, "--reinstall", str(write_wheel(tmp_path, "easel", "1.0", body=text)))
        folders.append(ask("brush==2.0", cache, own_base).folder)
    assert folders[0] != folders[1]


def test_the_current_environment_stays_and_its_files_are_shared(base, cache):
    before = snapshot(base.parents[1])
    environment = ask("paint==2.0", cache, base)
    assert snapshot(base.parents[1]) == before
    module = look(base).purelib / "frame.py"
    assert module.samefile(look(environment.python).purelib / "frame.py")


def test_files_that_are_shared_do_not_count_as_occupied(own_base, cache, tmp_path):
    install(own_base, str(write_wheel(tmp_path, "easel", "1.0", body="#" * 1_000_000)))
    ask("brush==2.0", cache, own_base)
    (listed,) = list_environments(cache)
    assert 0 < listed.occupied_bytes < 100_000


def test_compiled_files_of_the_old_release_are_not_taken_over(own_base, cache, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    run_in(Environment(own_base, {}), "import paint, brush")
    assert list(look(own_base).purelib.rglob("*.pyc"))
    environment = ask("brush==2.0", cache, own_base)
    assert not list(look(environment.python).purelib.rglob("*.pyc"))


def test_files_that_cannot_be_linked_are_copied(base, cache, monkeypatch):
    def refuse(source, place):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert differences(base, ask("frame==2.0", cache, base)) == ["frame 1.0 → 2.0"]


def test_a_disk_that_fills_while_files_are_linked_leaves_nothing(base, cache, monkeypatch):
    linked = []

    def fill(source, place):
        linked.append(place)
        if len(linked) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        Path(place).touch()

    monkeypatch.setattr(os, "link", fill)
    with pytest.raises(EnvironmentFailed, match="is full"):
        ask("frame==2.0", cache, base)
    assert len(linked) == 4
    assert nothing_is_left(cache)
