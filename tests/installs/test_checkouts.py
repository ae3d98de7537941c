"""A checkout is built from a clean copy: nothing is written in it, and nothing that was built there is installed."""

from typing import Any

import pytest

from bench.installs.checkouts import read_checkout
from bench.installs.uv import EnvironmentFailed
from tests.installs.helpers import BACKEND, PROJECT, ask, git, run_in, snapshot, write_checkout

# As setuptools: it copies the modules to build/, and installs all that is there.
BUILDS_IN_ITS_FOLDER = BACKEND.replace(
    'body=Path("source.py").read_text()', 'body="".join(path.read_text() for path in built())'
) + (
    "\ndef built():\n"
    "    Path('build').mkdir(exist_ok=True)\n"
    "    Path('easel.egg-info').mkdir(exist_ok=True)\n"
    "    Path('build', 'source.py').write_text(Path('source.py').read_text())\n"
    "    return sorted(Path('build').iterdir())\n"
)
# As setuptools_scm: the version is that of the repository.
KNOWS_ITS_COMMIT = BACKEND.replace(
    'body=Path("source.py").read_text()',
    'body="described = " + repr(subprocess.check_output('
    '["git", "describe", "--tags", "--long", "--dirty", "--match", "v*"], text=True).strip())',
).replace("import base64", "import subprocess, base64")


def commit(folder, *tags):
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "a commit")
    for tag in tags:
        git(folder, "tag", tag)
    return folder


def stale_checkout(folder):
    write_checkout(folder)
    (folder / "backend.py").write_text(BUILDS_IN_ITS_FOLDER)
    return folder


@pytest.fixture(params=["git", "git and not ignored", "no git"])
def stale(request, tmp_path):
    """A checkout with what an earlier build left of a module that was deleted."""
    checkout = stale_checkout(tmp_path / "easel")
    if request.param == "git":
        (checkout / ".gitignore").write_text("build/\n*.egg-info\n")
    if request.param != "no git":
        commit(checkout)
    (checkout / "build").mkdir()
    (checkout / "build" / "deleted.py").write_text("deleted = 'still here'\n")
    return checkout


@pytest.mark.parametrize("text", ["./easel", "easel @ file://{folder}/easel", "-r wanted.txt", "-r nested.txt"])
def test_a_deleted_module_is_not_installed_and_nothing_is_written(base, cache, tmp_path, stale, text):
    (tmp_path / "wanted.txt").write_text(f"frame==2.0\n-e {stale}  # the checkout\n")
    (tmp_path / "nested.txt").write_text("-r wanted.txt\n")
    before = snapshot(stale)
    environment = ask(text.format(folder=tmp_path), cache, base)
    assert run_in(environment, "import easel; print(easel.made_of, hasattr(easel, 'deleted'))") == "wood False"
    assert snapshot(stale) == before
    assert ask(text.format(folder=tmp_path), cache, base).folder == environment.folder


def test_the_build_of_the_tests_installs_what_was_left(tmp_path, monkeypatch):
    checkout = stale_checkout(tmp_path / "easel")
    (checkout / "build").mkdir()
    (checkout / "build" / "deleted.py").write_text("deleted = 'still here'\n")
    monkeypatch.chdir(checkout)
    written: dict[str, Any] = {}
    exec(BUILDS_IN_ITS_FOLDER, written)
    assert [path.name for path in written["built"]()] == ["deleted.py", "source.py"]


def described(environment):
    return run_in(environment, "import easel; print(easel.described)")


@pytest.fixture
def versioned(tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (checkout / "backend.py").write_text(KNOWS_ITS_COMMIT)
    return commit(checkout, "v1.0")


def test_a_version_from_the_repository_is_that_of_the_checkout(base, cache, versioned):
    (versioned / "new.py").touch()
    index = versioned / ".git" / "index"
    before = index.read_bytes()
    assert described(ask("./easel", cache, base)) == f"v1.0-0-g{git(versioned, 'rev-parse', '--short', 'HEAD')}"
    (versioned / "source.py").write_text("changed = True\n")
    assert described(ask("./easel", cache, base)).endswith("-dirty")
    assert index.read_bytes() == before


def test_a_worktree_has_the_version_of_its_own_commit(base, cache, versioned):
    (versioned / "source.py").write_text("later = True\n")
    commit(versioned, "v2.0")
    git(versioned, "worktree", "add", "-q", "--detach", str(versioned.parent / "other"), "v1.0")
    assert described(ask("./other", cache, base)).startswith("v1.0-0-g")


def test_a_project_within_a_repository_has_the_files_around_it(base, cache, tmp_path):
    project = write_checkout(tmp_path / "repository" / "projects" / "easel")
    (project / "backend.py").write_text(BACKEND.replace("source.py", "../../shared/source.py"))
    (tmp_path / "repository" / "shared").mkdir()
    (tmp_path / "repository" / "shared" / "source.py").write_text("made_of = 'steel'\n")
    commit(tmp_path / "repository")
    environment = ask("./repository/projects/easel", cache, base)
    assert run_in(environment, "import easel; print(easel.made_of)") == "steel"


def test_links_are_copied_as_links(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (checkout / "backend.py").write_text(BACKEND.replace('"source.py"', '"link/source.py"'))
    (checkout / "link").symlink_to(".")
    for tracked in (False, True):
        if tracked:
            commit(checkout)
        assert run_in(ask("./easel", cache, base), "import easel; print(easel.made_of)") == "wood"


def test_what_git_ignores_within_another_repository_is_a_plain_folder(tmp_path):
    commit(write_checkout(tmp_path))
    (tmp_path / ".gitignore").write_text("scratch\n")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "pyproject.toml").write_text(PROJECT)
    checkout = read_checkout(tmp_path / "scratch")
    assert (checkout.root, checkout.commit) == (tmp_path / "scratch", "")
    assert [str(name) for name in checkout.files] == ["pyproject.toml"]


def test_variables_of_git_do_not_name_another_repository(versioned, tmp_path, monkeypatch):
    other = commit(write_checkout(tmp_path / "another"))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    found = read_checkout(versioned)
    monkeypatch.delenv("GIT_DIR")
    assert found.commit == git(versioned, "rev-parse", "HEAD")


def test_a_failure_names_the_checkout_and_not_its_copy(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (checkout / "backend.py").write_text("import no_such_tool\n")
    with pytest.raises(EnvironmentFailed, match=str(checkout)) as failed:
        ask("./easel", cache, base)
    assert "checkouts-" not in str(failed.value)


def test_a_checkout_that_cannot_be_cloned_is_refused_in_one_sentence(base, cache, versioned):
    for path in (versioned / ".git" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(EnvironmentFailed, match=r"easel cannot be copied: git clone: ") as failed:
        ask("./easel", cache, base)
    assert "\n" not in str(failed.value)
