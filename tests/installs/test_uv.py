"""uv's failures in one sentence, and pip's settings as uv's."""

import os
import sys

import pytest

from bench.installs import uv
from bench.installs.environments import environment_of
from bench.installs.sides import parse_side
from bench.installs.uv import EnvironmentFailed, as_uv_variables, condense, settings_of_pip
from tests.installs.helpers import (
    BACKEND,
    INSTALLING,
    ask,
    commit_checkout,
    differences,
    fake_uv,
    nothing_is_left,
    write_checkout,
)


def test_an_unknown_git_reference_is_refused_in_gits_own_words(base, cache, tmp_path):
    commit_checkout(tmp_path / "easel", "", "one")
    with pytest.raises(EnvironmentFailed, match="couldn't find remote ref") as failed:
        ask(f"git+file://{tmp_path}/easel@nine", cache, base)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paint==9.0", "there is no version of paint==9.0"),
        ("nowhere", "nowhere was not found"),
        ("paint==2.0 canvas", "paint==2.0 and canvas"),
        ("paint==2.0 brush==1.0", "you require brush==1.0"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_one_sentence(base, cache, text, reason):
    with pytest.raises(EnvironmentFailed) as failed:
        ask(text, cache, base)
    message = str(failed.value)
    assert message.startswith(f"'{text}': ")
    assert reason in message
    assert "\n" not in message
    assert nothing_is_left(cache)


def test_a_build_that_fails_is_described_by_its_last_line(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (checkout / "backend.py").write_text(BACKEND + "    raise RuntimeError('no wood')\nimport no_such_tool\n")
    with pytest.raises(EnvironmentFailed, match=r"Failed to build .*No module named 'no_such_tool'") as failed:
        ask("./easel", cache, base)
    assert "Traceback" not in str(failed.value)
    assert nothing_is_left(cache)


def test_an_index_that_cannot_be_reached_is_named(base, cache, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    with pytest.raises(EnvironmentFailed, match=r"Failed to fetch: .*127\.0\.0\.1:9/simple/paint.*refused") as failed:
        ask("paint==7.0", cache, base)
    assert "\n" not in str(failed.value)
    assert "client error" not in str(failed.value)


def test_without_uv_the_sentence_says_how_to_get_it(monkeypatch, base, cache):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentFailed, match="pip install uv"):
        ask("frame==2.0", cache, base)


def test_an_interruption_ends_uv_at_once(base, cache, tmp_path, monkeypatch):
    def interrupt(line):
        if line.startswith("Building"):
            raise KeyboardInterrupt

    number = tmp_path / "number"
    script = f"echo $$ > {number}; echo '   Building easel'; exec sleep 20"
    fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then {script}; fi")
    with pytest.raises(KeyboardInterrupt):
        environment_of(parse_side("frame==2.0", cache), cache, interrupt, base)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)
    assert nothing_is_left(cache)


def test_older_frames_around_a_reason_are_taken_off():
    older = (
        "Using Python 3.11\n  × No solution found when resolving dependencies:\n"
        "  ╰─▶ Because there is no version of a==9 and you require\n      a==9, we can conclude that it is so.\n"
    )
    reason = "Because there is no version of a==9 and you require a==9, we can conclude that it is so"
    assert condense(older) == f"No solution found when resolving dependencies: {reason}"


def test_pips_indexes_are_passed_on_as_uvs(tmp_path):
    configuration = (
        "global.index-url='https://one.example/simple'\n"
        f"global.find-links='{tmp_path} /no/such/folder'\n"
        ":env:.index-url='https://two.example/simple'\n"
        "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'\n"
        "global.timeout='60'\n"
    )
    assert as_uv_variables(configuration) == {
        "UV_DEFAULT_INDEX": "https://two.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),
    }
    assert as_uv_variables("global.timeout='60'\n") == {}
    assert as_uv_variables(":env:.no-index='1'\n") == {"UV_OFFLINE": "1"}


def test_pips_indexes_stay_out_where_uv_has_its_own(monkeypatch):
    monkeypatch.setattr(uv, "pip_configuration", lambda: "global.index-url='https://one.example/simple'\n")
    assert settings_of_pip({"UV_INDEX": "https://mine.example"}) == {}
    monkeypatch.setenv("HOME", "/no/such/home")
    assert settings_of_pip({}) in ({}, {"UV_DEFAULT_INDEX": "https://one.example/simple"})


def test_no_subprocess_of_uv_imports_libraries_from_elsewhere(base, cache, tmp_path, monkeypatch):
    log = tmp_path / "variables"
    fake_uv(tmp_path, monkeypatch, f'echo "path=$PYTHONPATH home=$PYTHONHOME user=$PYTHONNOUSERSITE" >> {log}')
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    assert ask("frame==2.0", cache, base).libraries["frame"] == "2.0"
    assert set(log.read_text().splitlines()) == {"path= home= user=1"}


@pytest.fixture
def constrained(tmp_path, monkeypatch):
    """Sets ``PIP_CONSTRAINT`` to a file with this text."""

    def constrain(text):
        (tmp_path / "constraints.txt").write_text(text)
        monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))

    return constrain


def test_pips_constraints_bind_uv(base, cache, constrained):
    constrained("brush<3\n")
    assert differences(base, ask("paint==2.0", cache, base)) == ["brush 1.0 → 2.0", "paint 1.0 → 2.0"]


def test_a_side_that_breaks_a_constraint_is_refused_in_one_sentence(base, cache, constrained):
    constrained("frame<2\n")
    with pytest.raises(EnvironmentFailed, match=r"frame<2") as failed:
        ask("frame==2.0", cache, base)
    assert "\n" not in str(failed.value)


def test_constraints_of_uv_replace_those_of_pip(base, cache, constrained, tmp_path, monkeypatch):
    constrained("brush<3\n")
    (tmp_path / "of_uv.txt").touch()
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "of_uv.txt"))
    assert differences(base, ask("paint==2.0", cache, base)) == ["brush 1.0 → 3.0", "paint 1.0 → 2.0"]
