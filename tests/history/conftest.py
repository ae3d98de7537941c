"""Timelines and bisections over made-up releases, as the commands run them."""

import pytest

from bench import timeline as timeline_command
from bench.history import (
    bisect,
    release_pictures,
)
from bench.history.bisect_outcome import read_bisect
from bench.history.release_pictures import Bench
from tests.history.helpers import CASE, SCRIPT, Script, commit, pictures
from tests.installs.helpers import FINALS, git, leave_network, release_index


@pytest.fixture(scope="session")
def uv_variables(tmp_path_factory):
    return release_index(tmp_path_factory)


@pytest.fixture(autouse=True)
def _without_network(monkeypatch, uv_variables):
    leave_network(monkeypatch, uv_variables)


@pytest.fixture
def script(monkeypatch):
    script = Script(dict(SCRIPT), [])
    monkeypatch.setattr(release_pictures, "environment_of", script.environment_of)
    monkeypatch.setattr(
        Bench, "_cases", lambda self, found, side, requests, progress: script.cases(found.python, requests, progress)
    )
    return script


@pytest.fixture
def survey(script, tmp_path):
    """Runs a timeline, as the command does; its exit code and its folder."""

    def survey(*arguments):
        expression = "ddim-s20-fp32 or pndm-s5-g7.5-fp32"
        code = timeline_command.main(
            ["paint", "1.0.0..2.0.1", "-k", expression, "--device", "cpu", "--results", str(tmp_path), *arguments]
        )
        return code, (tmp_path / "latest").resolve()

    return survey


@pytest.fixture
def bisected(script, tmp_path):
    """Runs a bisection, as the command does; its exit code and what it wrote."""

    def bisected(*arguments, span="1.0.0..2.0.1"):
        places = ["--results", str(tmp_path), "--environments", str(tmp_path / "cache")]
        code = bisect.main(["paint", span, "--case", CASE, "--device", "cpu", *places, *arguments])
        path = tmp_path / "latest" / "bisect.json"
        return code, read_bisect(path) if path.exists() else None

    script.releases = {one: {CASE: pictures()} for one in FINALS}
    return bisected


@pytest.fixture
def repo(tmp_path):
    """Releases 1.0 and 2.0 of a package with eight commits between them, and a work tree that is being worked on."""
    repo = tmp_path / "paint"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    commit(repo, "shade = 0\n", "first")
    git(repo, "tag", "v1.0")
    names = [commit(repo, f"shade = {number}\n", f"shade {number}") for number in range(1, 9)]
    git(repo, "tag", "2.0")
    (repo / "paint.py").write_text("half done\n")
    (repo / "new.txt").write_text("not added\n")
    return repo, names


@pytest.fixture
def merged_repo(tmp_path):
    """Release 1.0 with shade 0, then 1, a merge with 13 of a branch with 11 and 12, and release 2.0 with 14."""
    repo = tmp_path / "merged"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    names = {0: commit(repo, "shade = 0\n", "first")}
    git(repo, "tag", "v1.0")
    git(repo, "checkout", "-q", "-b", "side")
    names |= {number: commit(repo, f"shade = {number}\n", f"shade {number}") for number in (11, 12)}
    git(repo, "checkout", "-q", "main")
    names[1] = commit(repo, "shade = 1\n", "shade 1")
    git(repo, "merge", "-q", "--no-ff", "--no-commit", "--strategy=ours", "side")
    names |= {number: commit(repo, f"shade = {number}\n", f"shade {number}") for number in (13, 14)}
    git(repo, "tag", "2.0")
    return repo, names
