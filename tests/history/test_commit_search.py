"""Bisection over commits: made-up repositories and pictures, real git, the real judge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.history import release_pictures
from bench.history.bisect_outcome import CommitsFound, Step
from bench.history.commit_search import CommitSearch, describe_commits
from bench.history.question import Judge, Question
from bench.history.release_pictures import NOT_INSTALLED, Bench, Unusable
from bench.history.search import Undecided
from bench.installs.installed import Environment
from bench.installs.sides import SideError
from bench.upgrade.side_results import SideResult
from tests.history.helpers import CASE, LIMITS, commit, pictures, set_from, shade_in, status
from tests.installs.helpers import FINALS, git

REFERENCE = "paint==1.0"


def changed_from(shade):
    """What a case gives under each shade: other pictures from this one on."""
    return lambda number: pictures(noise=250 if number >= shade else 0)


@dataclass
class Searching:
    """Searches from v1.0 to 2.0, where the case gives under each commit what ``gives`` says of its shade.

    Attributes:
        asked: shade, files and requirements of each commit that was run, and the folder of its environment.
    """

    environments: Path
    gives: Callable[[int], SideResult | Exception] = field(init=False)
    asked: list[tuple[int, list[str], list[str], Path]] = field(default_factory=list)
    notes: list[tuple[Step, ...]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __call__(self, repo, gives, good="v1.0", bad="2.0"):
        self.gives = gives
        question = Question(
            case=CASE, request={}, limits=LIMITS, reference=REFERENCE, by="pictures", exact=False,
            min_change=0.03, budget_s=1, device="cpu", environments=self.environments,
        )  # fmt: skip
        judge = Judge(question, print, {REFERENCE: pictures()})
        return CommitSearch(judge, repo, "brush==1.0", self.notes.append, self.said.append).between(good, bad)

    def pictures(self, bench, side, requests):
        """Stands for environments and workers."""
        worktree, *beside = side.split()
        shade, there = shade_in(worktree), sorted(path.name for path in Path(worktree).iterdir())
        self.asked.append((shade, there, beside, bench.environments))
        assert bench.environments.parent == self.environments
        assert bench.environments.exists()
        (Path(worktree) / "build").mkdir()
        (Path(worktree) / "paint.py").write_text("changed by the build\n")
        given = self.gives(shade)
        if isinstance(given, Exception):
            raise given
        return None, dict.fromkeys(requests, given)


@pytest.fixture
def search(tmp_path, monkeypatch):
    searching = Searching(tmp_path / "cache")

    def made(bench, side, requests):
        return searching.pictures(bench, side, requests)

    monkeypatch.setattr(Bench, "pictures", made)
    return searching


@pytest.mark.parametrize("change", [1, 4, 8])
def test_the_commit_is_found_and_the_work_tree_stays(search, repo, change):
    repo, names = repo
    before = status(repo)
    found = search(repo, changed_from(change))
    assert found.first_bad == f"{names[change - 1][:10]} (shade {change})"
    assert (found.possible, found.problem) == ((), None)
    assert describe_commits(found) == f"its first such commit is {found.first_bad}"
    answers = {names.index(step.item) + 1: step.answer.answer for step in found.steps}
    assert answers == {shade: "bad" if shade >= change else "good" for shade in answers}
    assert 8 not in answers  # the release itself was judged before
    assert len(answers) <= 3
    assert (repo / "paint.py").read_text() == "half done\n"
    assert status(repo) == before


def test_each_commit_is_judged_by_what_it_has_itself(search, repo):
    found = search(repo[0], changed_from(4))
    assert [shade for shade, *_ in search.asked] == [repo[1].index(step.item) + 1 for step in found.steps]
    for _, there, beside, environments in search.asked:
        assert there == [".git", "paint.py", "pyproject.toml"]  # nothing built of another commit
        assert beside == ["brush==1.0"]
        assert not environments.exists()  # environments of commits are not kept


def test_what_is_known_is_noted_after_each_commit(search, repo):
    found = search(repo[0], changed_from(4))
    assert [len(steps) for steps in search.notes] == list(range(1, len(found.steps) + 1))
    assert search.notes[-1] == found.steps
    assert "8 commits left, about 3 steps" in search.said
    assert any(line.startswith(f"{repo[1][3][:10]} (shade 4): bad: changed: ") for line in search.said)


@pytest.mark.parametrize("reason", [Unusable(NOT_INSTALLED, "no wheel"), SideError("no checkout")])
def test_commits_that_cannot_be_tried_are_skipped(search, repo, reason):
    found = search(repo[0], lambda shade: reason if shade in (4, 5) else changed_from(5)(shade))
    assert found.first_bad is None
    assert [one.split()[0] for one in found.possible] == [name[:10] for name in repo[1][3:6]]
    assert describe_commits(found).startswith("its commit is one of ")
    assert {step.answer.answer for step in found.steps if step.item in repo[1][3:5]} == {"skip"}


def test_what_is_undecided_ends_the_search_with_its_words(search, repo):
    before = status(repo[0])
    found = search(repo[0], lambda shade: Undecided("too close"))
    assert (found.first_bad, found.possible, found.problem) == (None, (), "too close")
    assert describe_commits(found) == "its commit was not found: too close"
    assert status(repo[0]) == before


def test_a_fault_of_the_suite_is_no_answer(search, repo):
    before = status(repo[0])
    with pytest.raises(ZeroDivisionError):
        search(repo[0], lambda shade: ZeroDivisionError())
    assert search.notes == []
    assert status(repo[0]) == before


@pytest.mark.parametrize("change", [1, 11, 12, 13, 14])
def test_the_commit_is_found_within_the_branch_that_brought_it(search, merged_repo, change):
    repo, names = merged_repo
    order = (1, 11, 12, 13, 14)
    bad = {one for one in order if order.index(one) >= order.index(change)}
    if change == 1:
        bad -= {11, 12}  # they branched off before
    found = search(repo, lambda shade: pictures(noise=250 if shade in bad else 0))
    assert found.first_bad.split()[0] == names[change][:10]


@pytest.fixture
def released_aside(repo):
    """The repository, and a good release 1.1 on its own branch, from shade 2 on."""
    repo, names = repo
    git(repo, "checkout", "-qf", names[1])
    commit(repo, "shade = 50\n", "release 1.1")
    git(repo, "tag", "v1.1")
    return repo, names


def test_where_a_release_has_a_branch_its_start_is_judged_too(search, released_aside):
    repo, names = released_aside
    found = search(repo, changed_from(4), good="v1.1")
    assert found.first_bad.startswith(names[3][:10])
    assert search.asked[0][0] == 2


@pytest.mark.parametrize(
    ("start", "said"), [(pictures(noise=250), "is already changed"), (SideError("no"), "cannot be tried")]
)
def test_a_start_that_is_not_good_is_no_start(search, released_aside, start, said):
    repo, names = released_aside
    found = search(repo, lambda shade: start, good="v1.1")
    assert (found.first_bad, len(found.steps)) == (None, 1)
    assert found.problem == f"{names[1][:10]} (shade 2), the common ancestor of v1.1 and 2.0, {said}"


def test_two_tags_of_one_commit_have_nothing_between_them(search, repo):
    git(repo[0], "tag", "v2.0.post1", "2.0")
    assert search(repo[0], changed_from(1), good="2.0", bad="v2.0.post1") == CommitsFound(
        good_tag="2.0", bad_tag="v2.0.post1", problem="v2.0.post1 has no commit that 2.0 does not have"
    )


def test_a_bisection_goes_on_over_the_commits(script, bisected, monkeypatch, tmp_path):
    repo = tmp_path / "paint"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    for number, release in enumerate(FINALS):
        for part in range(2):
            name = commit(repo, f"shade = {2 * number + part}\n", f"{release} part {part}")
            if (release, part) == ("1.2.0", 1):
                wanted = name
        git(repo, "tag", f"v{release}")
    set_from(script, "1.2.0", pictures(noise=250))
    script.releases |= {"good": {CASE: pictures()}, "bad": {CASE: pictures(noise=250)}}
    threshold = 2 * FINALS.index("1.2.0") + 1
    made_in = []

    def environment_of(side, cache, announce):
        if not side.requirements[0].startswith("/"):
            return script.environment_of(side, cache, announce)
        made_in.append(cache)
        return Environment(Path("bad" if shade_in(side.requirements[0]) >= threshold else "good"), {})

    monkeypatch.setattr(release_pictures, "environment_of", environment_of)
    code, found = bisected("--repo", str(repo))
    assert code == 0
    assert found.first_bad == "1.2.0"
    assert (found.commits.good_tag, found.commits.bad_tag) == ("v1.1.2", "v1.2.0")
    assert found.commits.first_bad == f"{wanted[:10]} (1.2.0 part 1)"
    assert found.sentence.endswith(f"its first such commit is {found.commits.first_bad}")
    assert [(step.item == wanted, step.answer.answer) for step in found.commits.steps] == [(False, "good")]
    assert [folder.parent for folder in made_in] == [tmp_path / "cache"]
    assert not made_in[0].exists()  # environments of commits are not kept
    assert git(repo, "status", "--porcelain") == ""
