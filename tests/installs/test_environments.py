"""From a side to its environment: what changes, what stays, and what a failure leaves: nothing."""

import pytest

from bench.installs.environments import environment_of
from bench.installs.sides import parse_side
from bench.installs.uv import EnvironmentFailed
from tests.installs.helpers import INSTALLING, ask, differences, fake_uv, nothing_is_left, run_in, write_wheel


def test_current_is_not_cloned(base, cache, uv_log):
    environment = ask("current", cache, base)
    assert environment.python == base
    assert environment.libraries == {"brush": "1.0", "frame": "1.0", "glaze": "1.0", "paint": "1.0"}
    assert not cache.exists()
    assert not uv_log.exists()


def test_an_existing_environment_is_used_as_it_is(base, cache, own_base, uv_log):
    environment = ask(str(own_base.parents[1]), cache, base)
    assert environment.python == own_base
    assert environment.libraries == {"brush": "1.0", "paint": "1.0"}
    assert not uv_log.exists()


def test_an_existing_environment_without_a_python_is_refused(base, cache, own_base):
    own_base.unlink()
    with pytest.raises(EnvironmentFailed, match="not a Python that works"):
        ask(str(own_base.parents[1]), cache, base)


def test_a_requirement_changes_its_library_and_no_other(base, cache):
    announced: list[str] = []
    environment = ask("frame==2.0", cache, base, announced)
    assert differences(base, environment) == ["frame 1.0 → 2.0"]
    assert environment.python.is_relative_to(cache)
    assert run_in(environment, "import frame, paint; print(frame.version, paint.version)") == "2.0 1.0"
    assert announced[0] == "making an environment for 'frame==2.0': frame 1.0 → 2.0"
    assert any(line.startswith("Installed 1 package in") for line in announced)
    assert announced[-1].startswith("made in")


def test_several_requirements_change_together(base, cache):
    environment = ask("frame==2.0 brush==3.0", cache, base)
    assert differences(base, environment) == ["brush 1.0 → 3.0", "frame 1.0 → 2.0"]


def test_a_dependency_moves_along_where_it_must(base, cache):
    announced: list[str] = []
    environment = ask("paint==2.0", cache, base, announced)
    assert differences(base, environment) == ["brush 1.0 → 3.0", "paint 1.0 → 2.0"]
    assert "brush 1.0 → 3.0, paint 1.0 → 2.0" in announced[0]


def test_a_bare_name_is_its_newest_release_and_nothing_else_moves(base, cache):
    assert differences(base, ask("glaze", cache, base)) == ["glaze 1.0 → 2.0"]


def test_a_library_that_was_not_there_is_new(base, cache):
    assert differences(base, ask("canvas", cache, base)) == ["canvas (new) 1.0"]


def test_what_pip_would_leave_unmet_is_left_and_announced(base, cache):
    announced: list[str] = []
    canvas = ask("canvas", cache, base)
    environment = ask("brush==2.0", cache, canvas.python, announced)
    assert environment.unmet == ("canvas requires brush<2, but 2.0 is installed",)
    assert announced[-1] == "note: canvas requires brush<2, but 2.0 is installed"
    assert environment.libraries["canvas"] == "1.0"


def test_a_requirements_file_can_be_mixed_with_requirements(base, cache, tmp_path):
    (tmp_path / "wanted.txt").write_text("frame==2.0\n# a comment\n")
    environment = ask("-r wanted.txt brush==2.0", cache, base)
    assert differences(base, environment) == ["brush 1.0 → 2.0", "frame 1.0 → 2.0"]


def test_nothing_to_change_means_the_current_environment(base, cache):
    announced: list[str] = []
    environment = ask("paint==1.0", cache, base, announced)
    assert environment.python == base
    assert announced == ["'paint==1.0' changes nothing; the current environment is used"]
    assert not cache.exists()


def test_a_disk_that_is_full_while_uv_installs_leaves_nothing(base, cache, tmp_path, monkeypatch):
    full = 'echo "error: Failed to install" >&2; echo "  cause: No space left on device (os error 28)" >&2; exit 2'
    fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then {full}; fi")
    with pytest.raises(EnvironmentFailed) as failed:
        ask("frame==2.0", cache, base)
    assert f"the disk of {cache} (or of uv's own cache) is full" in str(failed.value)
    assert nothing_is_left(cache)


def test_an_interrupted_build_leaves_nothing(base, cache):
    def interrupt(line):
        if line.startswith("Installed"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment_of(parse_side("frame==2.0", cache), cache, interrupt, base)
    assert nothing_is_left(cache)


def test_an_index_that_changes_meanwhile_is_noticed(base, cache, shelf, tmp_path, monkeypatch):
    moving = tmp_path / "moving"
    moving.mkdir()
    write_wheel(moving, "frame", "3.0")
    monkeypatch.setenv("UV_FIND_LINKS", f"{shelf},{moving}")
    write_wheel(tmp_path, "frame", "4.0")
    fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then cp {tmp_path}/frame-4.0-*.whl {moving}; fi")
    with pytest.raises(EnvironmentFailed, match="the index changed"):
        ask("frame", cache, base)
    assert nothing_is_left(cache)
