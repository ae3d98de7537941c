"""Bisection over commits: made-up repositories, real git."""

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.history import (
    bisect_outcome,
    bisect_step,
)
from bench.history.bisect_step import StepRequest
from bench.history.commits import CommitsError, as_shell_command, find_commit, tag_of, worktree_at
from bench.history.question import Answer, Judge, Question
from bench.history.search import BAD, GOOD, SKIP, Undecided
from bench.installs.sides import SideError
from tests.history.helpers import CASE, LIMITS, commit, pictures, set_from
from tests.installs.helpers import FINALS, git


def shade_command(tmp_path, body):
    """A predicate on the worktree's ``paint.py``, run in another folder, as the real one is."""
    program = tmp_path / "judge.py"
    program.write_text(
        f"import re, sys\nshade = int(re.search(r'\\d+', open(sys.argv[1] + '/paint.py').read())[0])\n{body}"
    )

    def command(worktree):
        return as_shell_command(tmp_path, [sys.executable, str(program), str(worktree)])

    return command


def status(repo):
    return [
        git(repo, "status", "--porcelain"),
        git(repo, "rev-parse", "HEAD"),
        git(repo, "branch", "-a"),
        git(repo, "worktree", "list"),
    ]


@pytest.mark.parametrize("change", [1, 4, 8])
def test_git_finds_the_commit_and_the_work_tree_stays(repo, tmp_path, change):
    repo, names = repo
    before = status(repo)
    command = shade_command(tmp_path, f"print('  shade', shade)\nsys.exit(shade >= {change})")
    said: list[str] = []
    good, bad = tag_of(repo, "paint", "1.0"), tag_of(repo, "paint", "2.0")
    assert (good, bad) == ("v1.0", "2.0")
    with worktree_at(repo, bad) as worktree:
        found = find_commit(worktree, good, bad, command(worktree), said.append)
        assert (repo / "paint.py").read_text() == "half done\n"
    assert found.first_bad
    assert found.first_bad.name == names[change - 1]
    assert found.first_bad.subject == f"shade {change}"
    assert any(line.startswith("  shade") for line in said)
    assert status(repo) == before
    assert not worktree.exists()


def test_commits_that_cannot_be_built_are_skipped(repo, tmp_path):
    repo, names = repo
    command = shade_command(tmp_path, "sys.exit(125 if shade in (4, 5) else shade >= 5)")
    with worktree_at(repo, "2.0") as worktree:
        found = find_commit(worktree, "v1.0", "2.0", command(worktree), print)
    assert found.first_bad is None
    assert {one.name for one in found.possible} == set(names[3:6])


def test_a_predicate_that_stops_ends_the_search_with_its_words(repo, tmp_path):
    repo, _ = repo
    command = shade_command(tmp_path, "print('  too close', flush=True)\nsys.exit(128)")
    before = status(repo)
    with worktree_at(repo, "2.0") as worktree:
        found = find_commit(worktree, "v1.0", "2.0", command(worktree), print)
    assert (found.first_bad, found.possible) == (None, ())
    assert "128" in found.words
    assert status(repo) == before


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


@pytest.fixture
def step(repo, tmp_path, monkeypatch):
    """Runs a step on a worktree, with a judge that answers as told; its exit code."""
    names = {"case": CASE, "request": {}, "limits": asdict(LIMITS), "reference": "paint==1.0.0", "by": "pictures"}
    asked = Question(**names, exact=False, min_change=0.03, budget_s=1, device="cpu", environments=tmp_path)

    def step(answer):
        def told(self, side):
            if isinstance(answer, Exception):
                raise answer
            return Answer(answer=answer, message=f"{side} has {sorted(path.name for path in worktree.iterdir())}")

        monkeypatch.setattr(Judge, "answer", told)
        with worktree_at(repo[0], "2.0") as worktree:
            (worktree / "build").mkdir()
            (worktree / "build" / "old.py").touch()
            request = StepRequest(question=asked, worktree=worktree, alongside="brush==1.0", steps=tmp_path / "steps")
            (tmp_path / "request.json").write_text(request.model_dump_json())
            return bisect_step.main([str(tmp_path / "request.json")])

    return step


@pytest.mark.parametrize(("answer", "code"), [(GOOD, 0), (BAD, 1), (SKIP, 125)])
def test_a_step_tells_git_its_answer_and_notes_it(step, repo, tmp_path, answer, code):
    assert step(answer) == code
    (noted,) = bisect_outcome.read_steps(tmp_path / "steps")
    assert (noted.item, noted.answer.answer) == (repo[1][-1], answer)
    assert noted.answer.message.endswith(" brush==1.0 has ['.git', 'paint.py']")  # nothing built of another commit


def test_a_step_that_cannot_be_built_is_skipped_and_what_is_unknown_is_not_called_bad(step, capsys):
    assert step(SideError("no checkout")) == 125
    assert step(Undecided("too close")) == 128
    assert step(RuntimeError("a fault of the suite")) == 128
    assert "stopped: RuntimeError: a fault of the suite" in capsys.readouterr().out


def test_a_whole_bisection_goes_on_over_the_commits(script, bisected, monkeypatch, tmp_path):
    """The real step, in its own process, on commits whose pictures are made up by a stand-in for the workers."""
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
    stand_in = tmp_path / "stand_in"
    stand_in.mkdir()
    threshold = 2 * FINALS.index("1.2.0") + 1
    (stand_in / "sitecustomize.py").write_text(STAND_IN.format(threshold=threshold))
    monkeypatch.setenv("PYTHONPATH", str(stand_in))
    code, found = bisected("--repo", str(repo))
    assert code == 0
    assert found.first_bad == "1.2.0"
    assert (found.commits.good_tag, found.commits.bad_tag) == ("v1.1.2", "v1.2.0")
    assert found.commits.first_bad == f"{wanted[:10]} (1.2.0 part 1)"
    assert found.sentence.endswith(f"its first such commit is {found.commits.first_bad}")
    assert [(step.item == wanted, step.answer.answer) for step in found.commits.steps] == [(False, "good")]
    made_in = Path(found.commits.steps[0].answer.message)
    assert made_in.parent == tmp_path / "cache"
    assert not made_in.exists()  # environments of commits are not kept
    assert git(repo, "status", "--porcelain") == ""


# Read by each new interpreter; only in a step it replaces the judge, by one that reads a number in the worktree.
STAND_IN = """
import re, sys
if "bench.history.bisect_step" in sys.orig_argv:
    sys.path.insert(0, "")
    from bench.history import question

    def answer(self, side):
        shade = int(re.search(r"\\d+", open(side + "/paint.py").read())[0])
        bad = shade >= {threshold}
        return question.Answer(answer="bad" if bad else "good", message=str(self.question.environments))

    question.Judge.answer = answer
"""
