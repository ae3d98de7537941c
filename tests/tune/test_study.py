"""What a study keeps, and whose turn a setting is when several workers share it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from bench.tune import study as studies
from bench.tune.errors import TuneError
from bench.tune.front import front_of
from bench.tune.search import Search, Shuffled
from bench.tune.study import Claim, Study, open_storage, open_study
from tests.tune.made_up import made_up_result, made_up_space

ROOT = Path(__file__).parents[2]
SPACE = made_up_space()


@pytest.fixture
def study(tmp_path):
    """``study()`` opens the study in a folder, again and again."""

    def opened(space=SPACE, name="one"):
        return open_study(name, Shuffled(space), open_storage(None, tmp_path), str(tmp_path), seed=1)

    return opened


def test_what_was_tried_is_there_when_the_study_is_opened_again(study):
    before = study()
    claims = [before.claim() for _ in range(3)]
    for claim in claims[:2]:
        before.end(claim, made_up_result(claim.case))
    before.fail(claims[2], "RuntimeError: no such kernel")
    after = study()
    assert after.tried() == [made_up_result(claim.case) for claim in claims[:2]]
    assert after.failed() == {claims[2].case.id: "RuntimeError: no such kernel"}
    assert after.claim().case.id not in {claim.case.id for claim in claims}


def test_every_setting_is_tried_once_and_then_none_is_left(study):
    found = study()
    tried = []
    while claim := found.claim():
        tried.append(claim.case.id)
        found.end(claim, made_up_result(claim.case))
    assert sorted(tried) == sorted(SPACE.cases)


def test_a_setting_that_another_worker_tries_is_not_chosen(study):
    one, other = study(), study()
    claims = [worker.claim().case.id for _ in range(5) for worker in (one, other)]
    assert len(set(claims)) == 10


def test_of_two_workers_with_the_same_choice_the_earlier_keeps_it(study, monkeypatch):
    one, other = study(), study()
    first = one.claim()
    chosen = iter([first.case.id])  # as if the other one had not seen that trial yet

    def choose(self, known, taken, rng):
        return next(chosen, None) or next(name for name in self.space.cases if name not in taken)

    monkeypatch.setattr(Shuffled, "next", choose)
    second = other.claim()
    assert second.case.id != first.case.id
    states = Counter(trial.state for trial in other.optuna.get_trials(deepcopy=False))
    assert states == {TrialState.RUNNING: 2, TrialState.FAIL: 1}


def test_a_worker_that_died_while_it_chose_holds_nobody_up(study, monkeypatch):
    found = study()
    found.optuna.ask()  # and never names its setting
    monkeypatch.setattr(studies, "CHOOSING_S", 1.0)
    began = time.monotonic()
    assert found.claim()
    assert time.monotonic() - began > 0.5
    began = time.monotonic()
    assert found.claim()
    assert time.monotonic() - began < 1.0


def test_a_released_setting_is_tried_again(study):
    found = study()
    claim = found.claim()
    found.release(claim)
    left = set()
    while again := found.claim():
        left.add(again.case.id)
    assert left == set(SPACE.cases)
    assert found.failed() == {}


def test_what_a_dead_worker_of_this_machine_left_is_free_again(study, monkeypatch):
    found = study()
    monkeypatch.setattr(studies, "worker_name", lambda: f"{studies.socket.gethostname()}:999999999")
    lost = found.claim()
    monkeypatch.undo()
    mine = found.claim()
    assert found.release_dead() == 1
    states = {trial.number: trial.state for trial in found.optuna.get_trials(deepcopy=False)}
    assert states == {lost.trial.number: TrialState.FAIL, mine.trial.number: TrialState.RUNNING}
    assert lost.case.id not in studies.taken_by(found.optuna.get_trials(deepcopy=False), SPACE)


def test_a_study_of_other_settings_is_refused(study):
    study()
    with pytest.raises(TuneError, match="study 'one' was started with other settings to try"):
        study(made_up_space(steps=(4, 5)))
    study(made_up_space(steps=(4, 5)), "another")


def test_a_search_learns_from_what_is_in_the_storage(tmp_path):
    storage = open_storage(None, tmp_path)
    found = open_study("one", Search(SPACE, 0.0), storage, "here", seed=1)
    for _ in range(10):
        claim = claimed(found)
        found.end(claim, made_up_result(claim.case))
    tried = [one.case for one in found.tried()]
    assert len(set(tried)) == 10
    assert tried[0] == SPACE.start.id


def test_a_database_that_cannot_be_reached_is_one_sentence_without_its_password(tmp_path):
    with pytest.raises(TuneError) as caught:
        open_storage("postgresql://me:secret@127.0.0.1:9/none", tmp_path)
    assert "--storage 127.0.0.1:9/none: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_database_is_one_sentence(tmp_path):
    with pytest.raises(TuneError, match=r"--storage .*nothing"):
        open_storage("nothing://here", tmp_path)


def claimed(study: Study) -> Claim:
    claim = study.claim()
    assert claim
    return claim


def workers(url: str, name: str, count: int, seconds: float) -> list[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.tune.worker_of_study", url, name, str(seconds)]
    return [subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE) for _ in range(count)]


def test_four_workers_of_a_database_one_of_them_killed_try_each_setting_once(postgres, monkeypatch):
    monkeypatch.setattr(studies, "HEARTBEAT_S", 1)
    monkeypatch.setattr(studies, "DEAD_AFTER_S", 2)
    one, *others = workers(postgres, "four", 4, 0.05)
    assert one.stdout
    for _ in range(3):
        one.stdout.readline()
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    printed = Counter(line for worker in others for line in worker.communicate(timeout=120)[0].split())
    assert [worker.returncode for worker in others] == [0, 0, 0]
    last = open_study("four", Shuffled(SPACE), open_storage(postgres, Path()), postgres)
    last.release_dead()
    while claim := last.claim():
        last.end(claim, made_up_result(claim.case))
    tried = last.tried()
    assert sorted(one.case for one in tried) == sorted(SPACE.cases)
    assert max(printed.values()) == 1
    assert front_of(tried) == front_of([made_up_result(case) for case in SPACE.cases.values()])


def test_a_worker_of_another_machine_that_is_silent_is_dead_and_one_that_beats_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "HEARTBEAT_S", 1)
    monkeypatch.setattr(studies, "DEAD_AFTER_S", 2)
    monkeypatch.setattr(studies, "worker_name", lambda: "elsewhere:1")
    url = f"sqlite:///{tmp_path}/study.db"
    found = open_study("beats", Shuffled(SPACE), open_storage(url, tmp_path), url)
    silent, alive = claimed(found), claimed(found)
    with found.alive(silent):
        pass
    with found.alive(alive):
        time.sleep(3.5)
        claimed(found)
        taken = studies.taken_by(found.optuna.get_trials(deepcopy=False), SPACE)
    assert alive.case.id in taken
    assert silent.case.id not in taken


def test_a_database_that_goes_away_is_one_sentence_and_what_was_tried_is_kept(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    found = open_study("gone", Shuffled(SPACE), open_storage(url, tmp_path), url)
    first = claimed(found)
    found.end(first, made_up_result(first.case))
    claim = claimed(found)
    (tmp_path / "study.db").rename(tmp_path / "elsewhere.db")
    found.optuna._storage._backend.engine.dispose()
    with pytest.raises(TuneError, match=r"--storage sqlite:.*; what was tried so far is kept"):
        found.end(claim, made_up_result(claim.case))
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    again = open_study("gone", Shuffled(SPACE), open_storage(url, tmp_path), url)
    assert again.tried() == [made_up_result(first.case)]
