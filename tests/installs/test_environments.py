"""Sides and the environments made for them: tiny wheels, a tiny current environment, the real uv, no network."""

import base64
import errno
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench.installs import environments, uv
from bench.installs.environments import (
    Change,
    Environment,
    changes,
    environment_of,
    list_environments,
    prune_environments,
)
from bench.installs.sides import Side, SideError, parse_side
from bench.installs.uv import EnvironmentFailed, as_uv_variables, condense, find_uv, settings_of_pip

UV = find_uv()
ROOT = Path(__file__).resolve().parents[2]


def write_wheel(folder, name, version, requires=(), *, body="", command=""):
    """A wheel of one module."""
    about = f"{name}-{version}.dist-info"
    requirements = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{name}.py": f"version = '{version}'\n{body}",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if command:
        files[f"{about}/entry_points.txt"] = f"[console_scripts]\n{command} = {name}:main\n"
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    wheel = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


BACKEND = f"""
import base64, hashlib, zipfile
from pathlib import Path

{inspect.getsource(write_wheel)}
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return write_wheel(folder, "easel", "1.0", body=Path("source.py").read_text()).name
"""
PROJECT = """
[project]
name = "easel"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def write_checkout(folder, text="made_of = 'wood'\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "source.py").write_text(text)
    return folder


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_checkout(folder, text, tag):
    write_checkout(folder, text)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", tag)
    git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """An index: a folder of wheels."""
    folder = tmp_path_factory.mktemp("shelf")
    write_wheel(folder, "paint", "1.0", body="def main(): print(version)\n", command="paint")
    write_wheel(folder, "paint", "2.0", ["brush>=2"])
    write_wheel(folder, "brush", "1.0")
    write_wheel(folder, "brush", "2.0")
    write_wheel(folder, "brush", "3.0")
    write_wheel(folder, "frame", "1.0")
    write_wheel(folder, "frame", "2.0")
    write_wheel(folder, "glaze", "1.0", ["paint"])
    write_wheel(folder, "glaze", "2.0", ["paint"])
    write_wheel(folder, "canvas", "1.0", ["brush<2"])
    return folder


@pytest.fixture(scope="session")
def uv_variables(tmp_path_factory, shelf):
    return {
        "UV_DEFAULT_INDEX": tmp_path_factory.mktemp("empty-index").as_uri(),
        "UV_FIND_LINKS": str(shelf),
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv-cache")),
    }


@pytest.fixture(autouse=True)
def _without_network(monkeypatch, uv_variables):
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    for name, value in uv_variables.items():
        monkeypatch.setenv(name, value)


def install(python, *requirements, **options):
    variables = os.environ | options.get("variables", {})
    command = [UV, "pip", "install", "-q", "--python", str(python), *requirements]
    subprocess.run(command, check=True, env=variables)


def make_environment(folder, *requirements, variables):
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True, env=os.environ | variables)
    python = folder / "bin" / "python"
    install(python, *requirements, variables=variables)
    return python


@pytest.fixture(scope="session")
def base(tmp_path_factory, uv_variables):
    """The current environment: it is shared, so each test also shows that it is only read."""
    folder = tmp_path_factory.mktemp("current") / "env"
    python = make_environment(folder, "paint==1.0", "brush==1.0", "frame==1.0", "glaze==1.0", variables=uv_variables)
    before = snapshot(folder)
    yield python
    assert snapshot(folder) == before


@pytest.fixture
def own_base(tmp_path, uv_variables):
    """A current environment that a test may change."""
    return make_environment(tmp_path / "own" / "env", "paint==1.0", "brush==1.0", variables=uv_variables)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def uv_log(tmp_path, monkeypatch):
    """What uv is asked to do, a line each time."""
    log = tmp_path / "uv.log"
    fake_uv(tmp_path, monkeypatch, f'echo "$@" >> {log}')
    return log


def fake_uv(folder, monkeypatch, script, name="uv"):
    """A uv that first runs a script."""
    path = folder / name
    path.write_text(f'#!/bin/bash\n{script}\nexec {UV} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv", lambda: str(path))
    return path


INSTALLING = '[[ "$1 $2" == "pip install" && "$*" != *--dry-run* ]]'


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def ask(text, cache, base, announced=None, folder=None):
    told = [] if announced is None else announced
    return environment_of(parse_side(text, folder or cache.parent), cache, told.append, base)


def run_in(environment, code):
    done = subprocess.run([environment.python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def differences(base, environment):
    current = environment_of(Side("current"), Path("unused"), print, base)
    return [str(change) for change in changes(current, environment)]


def nothing_is_left(cache):
    return [path.name for path in cache.glob("*") if not path.name.endswith(".lock")] == []


# sides


def test_current_is_the_running_environment(tmp_path):
    assert parse_side("current", tmp_path).is_current
    assert parse_side(" current ", tmp_path).is_current


@pytest.mark.parametrize(
    ("text", "requirements", "newest"),
    [
        ("diffusers==0.42.1", ("diffusers==0.42.1",), ()),
        ("diffusers==0.42.1 transformers==5.20.0", ("diffusers==0.42.1", "transformers==5.20.0"), ()),
        ("diffusers >= 0.40 transformers", ("diffusers>=0.40", "transformers"), ("transformers",)),
        ("diffusers transformers", ("diffusers", "transformers"), ("diffusers", "transformers")),
        ("Diffusers[torch]", ("Diffusers[torch]",), ("diffusers",)),
        ("diffusers~=0.40.0", ("diffusers~=0.40.0",), ()),
        ('torch==2.9; python_version < "3.12"', ('torch==2.9; python_version < "3.12"',), ()),
        ("""'torch==2.9; os_name == "nt"' numpy<3""", ('torch==2.9; os_name == "nt"', "numpy<3"), ()),
        ("git+https://example.org/a/b@main", ("git+https://example.org/a/b@main",), ()),
        ("b @ git+https://example.org/a/b@v1 c==1", ("b@ git+https://example.org/a/b@v1", "c==1"), ()),
    ],
)
def test_requirements_are_separated_by_spaces_and_bare_names_mean_the_newest(tmp_path, text, requirements, newest):
    side = parse_side(text, tmp_path)
    assert tuple(one.replace(" @ ", "@ ") for one in side.requirements) == requirements
    assert side.newest == newest
    assert not side.is_current


def test_paths_start_at_the_given_folder(tmp_path):
    write_checkout(tmp_path / "a folder" / "easel")
    write_wheel(tmp_path, "brush", "1.0")
    (tmp_path / "wanted.txt").write_text("paint\n")
    side = parse_side("-r wanted.txt brush-1.0-py3-none-any.whl './a folder/easel[oil]'", tmp_path)
    assert side.files == (tmp_path / "wanted.txt",)
    wheel, checkout = tmp_path / "brush-1.0-py3-none-any.whl", tmp_path / "a folder" / "easel"
    assert side.requirements == (str(wheel), f"{checkout}[oil]")
    assert parse_side("./a folder/easel", tmp_path).requirements == (str(checkout),)
    assert side.newest == ()


def test_a_virtual_environment_is_told_by_its_configuration_file(tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert parse_side("env", tmp_path).environment == tmp_path / "env"
    assert parse_side(str(tmp_path / "env"), Path("/")).environment == tmp_path / "env"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("./nowhere", "does not exist"),
        ("nowhere-1.0-py3-none-any.whl", "does not exist"),
        ("./empty", "neither a virtual environment (pyvenv.cfg) nor a checkout"),
        ("./notes.txt", "is not a wheel file"),
        ("-r", "needs a requirements file"),
        ("-r nowhere.txt", "needs a requirements file"),
        ("-e ./empty", "the option -e is not supported"),
        ("diffusers=0.42.1", "'diffusers=0.42.1' is neither a requirement nor"),
        ("diffusers==", "'diffusers==' is neither a requirement nor"),
        ("diffusers 'torch", "No closing quotation"),
    ],
)
def test_what_is_no_side_is_refused_in_a_sentence_that_says_what_is_allowed(tmp_path, text, reason):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SideError) as refused:
        parse_side(text, tmp_path)
    message = str(refused.value)
    assert reason in message
    assert "allowed are 'current'" in message
    assert not text.strip() or text in message
    assert "\n" not in message


# environments


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


def test_a_bare_name_is_its_newest_release_and_its_dependencies_stay_where_they_can(base, cache):
    assert differences(base, ask("glaze", cache, base)) == ["glaze 1.0 → 2.0"]


def test_a_library_that_was_not_there_is_new(base, cache):
    assert differences(base, ask("canvas", cache, base)) == ["canvas (new) 1.0"]


def test_what_pip_would_leave_unmet_is_left_and_told(base, cache):
    announced: list[str] = []
    canvas = ask("canvas", cache, base)
    environment = ask("brush==2.0", cache, canvas.python, announced)
    assert environment.unmet == ("canvas requires brush<2, but 2.0 is installed",)
    assert announced[-1] == "note: canvas requires brush<2, but 2.0 is installed"
    assert environment.libraries["canvas"] == "1.0"


def test_commands_of_the_clone_run_in_the_clone(base, cache):
    environment = ask("frame==2.0", cache, base)
    command = environment.python.with_name("paint")
    assert str(base.parent) in base.with_name("paint").read_text()
    assert str(base.parent) not in command.read_text()
    assert subprocess.run([command], check=True, capture_output=True, text=True).stdout == "1.0\n"


def test_a_wheel_file_is_installed_and_known_by_its_content(base, cache, tmp_path):
    write_wheel(tmp_path, "frame", "7.0", body="wood = 'oak'\n")
    oak = ask("./frame-7.0-py3-none-any.whl", cache, base)
    assert oak.libraries["frame"] == "7.0"
    write_wheel(tmp_path, "frame", "7.0", body="wood = 'ash'\n")
    ash = ask("./frame-7.0-py3-none-any.whl", cache, base)
    assert ash.folder != oak.folder
    assert run_in(ash, "import frame; print(frame.wood)") == "ash"
    (change,) = changes(oak, ash)
    assert str(change).startswith("frame 7.0 (file ")


def test_a_changed_checkout_gets_a_new_environment_and_an_unchanged_one_does_not(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    wood = ask("./easel", cache, base)
    assert ask("./easel", cache, base).folder == wood.folder
    write_checkout(checkout, "made_of = 'steel'\n")
    steel = ask("./easel", cache, base)
    assert steel.folder != wood.folder
    assert run_in(wood, "import easel; print(easel.made_of)") == "wood"
    assert run_in(steel, "import easel; print(easel.made_of)") == "steel"


def test_a_checkout_that_git_knows_is_told_apart_by_uncommitted_content_and_not_by_what_git_ignores(
    base, cache, tmp_path
):
    checkout = tmp_path / "easel"
    commit_checkout(checkout, "made_of = 'wood'\n", "one")
    (checkout / ".git" / "info" / "exclude").write_text("scratch.txt\n")
    first = ask("./easel", cache, base)
    (checkout / "scratch.txt").write_text("ignored")
    (checkout / "build").mkdir()
    (checkout / "build" / "left.py").write_text("built")
    assert ask("./easel", cache, base).folder == first.folder
    (checkout / "untracked.py").write_text("new")
    second = ask("./easel", cache, base)
    assert second.folder != first.folder
    (checkout / "source.py").write_text("made_of = 'steel'\n")
    assert ask("./easel", cache, base).folder not in (first.folder, second.folder)


def test_a_checkout_named_in_a_requirements_file_is_built_anew_when_it_changed(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (tmp_path / "wanted.txt").write_text(f"{checkout}\n")
    ask("-r wanted.txt", cache, base)
    (checkout / "source.py").write_text("made_of = 'steel'\n")
    assert run_in(ask("-r wanted.txt", cache, base), "import easel; print(easel.made_of)") == "steel"


def test_a_git_reference_is_the_commit_that_it_names(base, cache, tmp_path):
    checkout = tmp_path / "easel"
    commit = commit_checkout(checkout, "made_of = 'wood'\n", "one")
    commit_checkout(checkout, "made_of = 'steel'\n", "two")
    one = ask(f"git+file://{checkout}@one", cache, base)
    two = ask(f"easel @ git+file://{checkout}@two", cache, base)
    assert run_in(one, "import easel; print(easel.made_of)") == "wood"
    assert run_in(two, "import easel; print(easel.made_of)") == "steel"
    assert one.version("easel") == f"1.0 (git {commit[:9]})"
    git(checkout, "tag", "-f", "one", "two")
    assert ask(f"git+file://{checkout}@one", cache, base).folder == two.folder


def test_a_git_reference_that_does_not_exist_is_told_in_gits_own_words(base, cache, tmp_path):
    commit_checkout(tmp_path / "easel", "", "one")
    with pytest.raises(EnvironmentFailed, match="couldn't find remote ref") as failed:
        ask(f"git+file://{tmp_path}/easel@nine", cache, base)
    assert "\n" not in str(failed.value)


def test_a_requirements_file_can_be_mixed_with_requirements(base, cache, tmp_path):
    (tmp_path / "wanted.txt").write_text("frame==2.0\n# a comment\n")
    environment = ask("-r wanted.txt brush==2.0", cache, base)
    assert differences(base, environment) == ["brush 1.0 → 2.0", "frame 1.0 → 2.0"]


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


def test_nothing_to_change_means_the_current_environment_and_is_told(base, cache):
    announced: list[str] = []
    environment = ask("paint==1.0", cache, base, announced)
    assert environment.python == base
    assert announced == ["'paint==1.0' changes nothing; the current environment is used"]
    assert not cache.exists()


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


@pytest.mark.parametrize("damage", ["a library is gone", "a library was added", "no Python", "no notes"])
def test_a_damaged_environment_in_the_cache_is_made_again(base, cache, damage):
    environment = ask("frame==2.0", cache, base)
    if damage == "a library is gone":
        subprocess.run([UV, "pip", "uninstall", "-q", "--python", environment.python, "paint"], check=True)
    elif damage == "a library was added":
        install(environment.python, "canvas")
    elif damage == "no Python":
        environment.python.unlink()
    else:
        (environment.folder / environments.NOTES).write_text("{}")
    announced: list[str] = []
    again = ask("frame==2.0", cache, base, announced)
    assert announced[0].startswith("making")
    assert differences(base, again) == ["frame 1.0 → 2.0"]


def test_the_current_environment_is_untouched_and_its_files_are_shared(base, cache):
    before = snapshot(base.parents[1])
    environment = ask("paint==2.0", cache, base)
    assert snapshot(base.parents[1]) == before
    module = environments._look(base).purelib / "frame.py"
    assert module.samefile(environments._look(environment.python).purelib / "frame.py")


def test_files_that_are_shared_do_not_count_as_occupied(own_base, cache, tmp_path):
    install(own_base, str(write_wheel(tmp_path, "easel", "1.0", body="#" * 1_000_000)))
    ask("brush==2.0", cache, own_base)
    (listed,) = list_environments(cache)
    assert 0 < listed.occupied_bytes < 100_000


def test_compiled_files_of_the_old_release_are_not_taken_over(own_base, cache, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    run_in(Environment(own_base, {}), "import paint, brush")
    assert list(environments._look(own_base).purelib.rglob("*.pyc"))
    environment = ask("brush==2.0", cache, own_base)
    assert not list(environments._look(environment.python).purelib.rglob("*.pyc"))


def test_files_that_cannot_be_linked_are_copied(base, cache, monkeypatch):
    def refuse(source, place):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert differences(base, ask("frame==2.0", cache, base)) == ["frame 1.0 → 2.0"]


# failures


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paint==9.0", "there is no version of paint==9.0"),
        ("nowhere", "nowhere was not found"),
        ("paint==2.0 canvas", "paint==2.0 and canvas"),
        ("paint==2.0 brush==1.0", "you require brush==1.0"),
    ],
)
def test_what_cannot_be_resolved_is_told_in_one_sentence(base, cache, text, reason):
    with pytest.raises(EnvironmentFailed) as failed:
        ask(text, cache, base)
    message = str(failed.value)
    assert message.startswith(f"'{text}': ")
    assert reason in message
    assert "\n" not in message
    assert nothing_is_left(cache)


def test_a_build_that_fails_is_told_by_its_last_line(base, cache, tmp_path):
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


def test_a_disk_that_is_full_while_uv_installs_leaves_nothing(base, cache, tmp_path, monkeypatch):
    full = 'echo "error: Failed to install" >&2; echo "  cause: No space left on device (os error 28)" >&2; exit 2'
    fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then {full}; fi")
    with pytest.raises(EnvironmentFailed) as failed:
        ask("frame==2.0", cache, base)
    assert f"the disk of {cache} (or of uv's own cache) is full" in str(failed.value)
    assert nothing_is_left(cache)


def test_a_disk_that_is_full_while_files_are_linked_leaves_nothing(base, cache, monkeypatch):
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


def test_a_cache_that_cannot_be_made_is_named(base, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailed, match=r"file.cache cannot be written"):
        ask("frame==2.0", tmp_path / "file" / "cache", base, folder=tmp_path)


def test_an_interrupted_build_leaves_nothing(base, cache):
    def interrupt(line):
        if line.startswith("Installed"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment_of(parse_side("frame==2.0", cache), cache, interrupt, base)
    assert nothing_is_left(cache)


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


# processes side by side

PROCESS = """
import sys
from pathlib import Path
from bench.installs import uv as installs_uv
from bench.installs.environments import environment_of
from bench.installs.sides import parse_side

uv, text, cache, base = sys.argv[1:]
installs_uv.find_uv = lambda: uv
side = parse_side(text, Path(cache))
environment = environment_of(side, Path(cache), lambda line: print(line, flush=True), Path(base))
print("folder", environment.folder, flush=True)
sys.stdin.readline()
"""


def start(uv, text, cache, base):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, uv, text, cache, base],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_killed_build_left_is_cleared_at_the_next_use(base, cache, tmp_path, monkeypatch):
    reached = tmp_path / "reached"
    uv = fake_uv(tmp_path, monkeypatch, f"if {INSTALLING}; then echo $$ > {reached}; exec sleep 60; fi")
    with start(uv, "frame==2.0", cache, base) as process:
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


# the cache


def test_the_cache_lists_what_was_asked_what_changed_and_when_it_was_used(base, cache):
    kept = [ask(text, cache, base) for text in ("frame==2.0", "paint==2.0")]
    notes = kept[0].folder / environments.NOTES
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"last_used": "2020-01-01T00:00:00+00:00"}))
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


# words and settings


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("4.57.6", "5.23.0", "transformers 4.57.6 → 5.23.0"),
        (None, "6.3.1", "transformers (new) 6.3.1"),
        ("1.0", None, "transformers 1.0 → (removed)"),
    ],
)
def test_a_change_reads_as_a_line(before, after, text):
    assert str(Change("transformers", before, after)) == text


def test_changes_are_by_name_and_tell_new_and_removed():
    before = Environment(Path("a"), {"a": "1", "b": "1", "c": "1"})
    after = replace(before, libraries={"a": "2", "c": "1", "d": "1"})
    assert changes(before, after) == (Change("a", "1", "2"), Change("b", "1", None), Change("d", None, "1"))


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
    monkeypatch.setattr(uv, "_pip_configuration", lambda: "global.index-url='https://one.example/simple'\n")
    assert settings_of_pip({"UV_INDEX": "https://mine.example"}) == {}
    monkeypatch.setenv("HOME", "/no/such/home")
    assert settings_of_pip({}) in ({}, {"UV_DEFAULT_INDEX": "https://one.example/simple"})
