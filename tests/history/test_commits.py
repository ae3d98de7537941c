"""The commits between two tags, and the worktree in which they are checked out: made-up repositories, real git."""

import pytest

from bench.history.commits import (
    CommitsError,
    branching_point,
    check_out,
    commit_at,
    commits_between,
    merged_commits,
    tag_of,
    worktree_at,
)
from tests.history.helpers import commit, shade_in, status
from tests.installs.helpers import git


def test_a_tag_is_found_in_its_usual_spellings(repo):
    assert [tag_of(repo[0], "paint", release) for release in ("1.0", "2.0")] == ["v1.0", "2.0"]


def test_the_commits_between_two_tags_are_listed_oldest_first(repo):
    repo, names = repo
    found = commits_between(repo, commit_at(repo, "v1.0"), commit_at(repo, "2.0"))
    assert [one.name for one in found] == names
    assert [one.subject for one in found] == [f"shade {number}" for number in range(1, 9)]
    assert str(found[0]) == f"{names[0][:10]} (shade 1)"
    assert commits_between(repo, commit_at(repo, "2.0"), commit_at(repo, "v1.0")) == ()


def test_a_merge_is_one_commit_and_its_branch_is_listed_apart(merged_repo):
    repo, names = merged_repo
    old, new = commit_at(repo, "v1.0"), commit_at(repo, "2.0")
    assert [one.name for one in commits_between(repo, old, new)] == [names[one] for one in (1, 13, 14)]
    assert [one.name for one in merged_commits(repo, commit_at(repo, names[13]))] == [names[11], names[12]]
    assert merged_commits(repo, new) == ()


def test_two_branches_come_from_their_last_common_commit(repo):
    repo, names = repo
    git(repo, "checkout", "-qf", names[2])
    commit(repo, "shade = 50\n", "aside")
    assert branching_point(repo, commit_at(repo, "HEAD"), commit_at(repo, "2.0")).name == names[2]
    git(repo, "checkout", "-q", "--orphan", "alone")
    commit(repo, "shade = 60\n", "alone")
    with pytest.raises(CommitsError, match=r"\(alone\) and .* have no commit in common; fetch the history"):
        branching_point(repo, commit_at(repo, "HEAD"), commit_at(repo, "2.0"))


def test_nothing_of_another_commit_is_left_in_a_worktree(repo):
    repo, names = repo
    with worktree_at(repo, "2.0") as worktree:
        (worktree / "build").mkdir()
        (worktree / "build" / "old.py").touch()
        (worktree / "paint.py").write_text("changed by a build\n")
        check_out(worktree, commit_at(repo, names[0]))
        assert sorted(path.name for path in worktree.iterdir()) == [".git", "paint.py", "pyproject.toml"]
        assert shade_in(worktree) == 1
        assert (repo / "paint.py").read_text() == "half done\n"


def test_the_worktree_goes_also_when_something_fails(repo):
    repo, _ = repo
    before = status(repo)
    with pytest.raises(ZeroDivisionError), worktree_at(repo, "2.0") as worktree:
        raise ZeroDivisionError
    assert not worktree.exists()
    assert status(repo) == before


def test_variables_of_git_do_not_lead_to_another_repository(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert tag_of(repo[0], "paint", "1.0") == "v1.0"


def test_a_checkout_without_the_tag_is_one_sentence(repo):
    with pytest.raises(CommitsError, match=r"has no tag v3\.0 or 3\.0; fetch its tags"):
        tag_of(repo[0], "paint", "3.0")
