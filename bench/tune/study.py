"""A study: what was tried, in a storage that several workers may share, and whose turn a setting is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from bench.suite.case import Case
from bench.tune.errors import TuneError
from bench.tune.result import Tried
from bench.tune.search import Chooser, Known
from bench.tune.space import Space

JOURNAL = "journal.log"
SPACE, TRIED, REASON, WORKER = "space", "tried", "reason", "worker"
# Why a trial without a result ended.
TAKEN, DIED = "another worker tries it", "its worker died"
# A worker of a database that was silent for so long is dead; its trial is free again.
HEARTBEAT_S, DEAD_AFTER_S = 30, 120
OPENING_ATTEMPTS = 5
# A worker that has begun a trial names its setting within this time, or it is dead.
CHOOSING_S = 30.0


def quiet_optuna() -> None:
    """Optuna says nothing of trials, of what is experimental in it, or of heartbeats; see ``Study.alive``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")


def open_storage(url: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """The journal file in the study's folder, or the database of this address.

    Raises:
        TuneError: the database cannot be reached, or a driver is missing.
    """
    quiet_optuna()
    if not url:
        folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        return optuna.storages.JournalStorage(backend)
    with as_tune_error(url):
        return _open_database(_with_driver(url))


def _open_database(url: str) -> optuna.storages.BaseStorage:
    """The database; where several workers create its tables at the same moment, all but one of them try again."""
    from sqlalchemy.exc import DatabaseError, OperationalError

    for attempt in range(1, OPENING_ATTEMPTS + 1):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},  # a connection that was closed meanwhile is opened again
                heartbeat_interval=HEARTBEAT_S,
                grace_period=DEAD_AFTER_S,
            )
        except OperationalError:
            raise
        except DatabaseError:
            if attempt == OPENING_ATTEMPTS:
                raise
            time.sleep(0.5 * attempt)
    raise AssertionError("unreachable")


def _with_driver(url: str) -> str:
    """SQLAlchemy's name for PostgreSQL with the driver that the suite installs."""
    scheme, colon, rest = url.partition("://")
    return f"postgresql+psycopg{colon}{rest}" if scheme in ("postgresql", "postgres") else url


@contextmanager
def as_tune_error(where: str) -> Iterator[None]:
    """What a storage raises, as one sentence."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        shown = where.rpartition("@")[2]  # without a password
        raise TuneError(
            f"--storage {shown}: {first}; what was tried so far is kept, and the same command continues."
        ) from error


@dataclass(frozen=True)
class Claim:
    """A setting that this worker tries now."""

    case: Case
    trial: optuna.Trial


class FrontSampler(optuna.samplers.BaseSampler):
    """Optuna's way to ask a ``Chooser``: it proposes a setting that no trial has or had.

    Attributes:
        has_ended: whether the chooser has no other setting to propose.
    """

    def __init__(self, search: Chooser, seed: int | None = None) -> None:
        self._search = search
        self._rng = np.random.default_rng(seed)
        self.has_ended = False

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._search.space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        space = self._search.space
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        name = self._search.next(known_of(trials, space), taken_by(trials, space), self._rng)
        self.has_ended = name is None
        return dict(zip(space.axes, space.place(space.cases[name]), strict=True)) if name else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        assert isinstance(distribution, CategoricalDistribution)
        return distribution.choices[0]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The axes of a space as Optuna's parameters."""
    return {axis: CategoricalDistribution(values) for axis, values in space.axes.items()}


def case_of_trial(trial: FrozenTrial | optuna.Trial, space: Space) -> Case | None:
    """The setting of a trial; ``None`` if this combination cannot be tried, or is not complete yet."""
    place = tuple(trial.params.get(axis, "") for axis in space.axes)
    name = space.by_words.get(place)
    return space.cases[name] if name else None


def tried_of(trial: FrozenTrial) -> Tried:
    return Tried.model_validate_json(trial.user_attrs[TRIED])


def known_of(trials: list[FrozenTrial], space: Space) -> dict[str, Known]:
    """Time and quality of the settings that ended with a result."""
    found = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and (case := case_of_trial(trial, space)):
            found[case.id] = Known(*trial.values)
    return found


def taken_by(trials: list[FrozenTrial], space: Space) -> set[str]:
    """Ids of the settings that ended, or that a worker tries now; one whose worker died is free again."""
    found = set()
    for trial in trials:
        free = trial.state == TrialState.FAIL and trial.user_attrs.get(REASON) in (None, TAKEN, DIED)
        if not free and (case := case_of_trial(trial, space)):
            found.add(case.id)
    return found


@dataclass
class Study:
    """The trials of a space, in Optuna's study; the sampler chooses the next one."""

    space: Space
    optuna: optuna.Study
    sampler: FrontSampler
    where: str

    def claim(self) -> Claim | None:
        """The next setting, which is this worker's from now on; ``None`` when the search has ended.

        Two workers may choose the same setting at the same moment; the one with the earlier trial keeps it. So a worker
        waits until those with earlier trials have named theirs (Lamport 1974, "A new solution of Dijkstra's concurrent
        programming problem").
        """
        with as_tune_error(self.where):
            while True:
                optuna.storages.fail_stale_trials(self.optuna)
                trial = self.optuna.ask(distributions(self.space))
                trial.set_user_attr(WORKER, worker_name())
                trials = self._when_earlier_ones_have_chosen(trial.number)
                case = case_of_trial(trial, self.space)
                if case and not self.sampler.has_ended and not self._is_anothers(case, trial.number, trials):
                    return Claim(case, trial)
                trial.set_user_attr(REASON, TAKEN)
                self.optuna.tell(trial, state=TrialState.FAIL)
                if self.sampler.has_ended:
                    return None

    def _when_earlier_ones_have_chosen(self, number: int) -> list[FrozenTrial]:
        while True:
            trials = self.optuna.get_trials(deepcopy=False)
            if not any(_is_choosing(one) for one in trials if one.number < number):
                return trials
            time.sleep(0.02)

    def _is_anothers(self, case: Case, number: int, trials: list[FrozenTrial]) -> bool:
        before = [one for one in trials if one.number < number or one.state.is_finished()]
        return case.id in taken_by(before, self.space)

    @contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """In the block, a database that other machines share is told that this worker is alive."""
        storage = self.optuna._storage
        if not hasattr(storage, "record_heartbeat"):
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while True:
                # The next beat may succeed; if none does, others take the setting over, and ``end`` says why.
                with contextlib.suppress(Exception):
                    storage.record_heartbeat(claim.trial._trial_id)
                if ended.wait(HEARTBEAT_S):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def end(self, claim: Claim, tried: Tried) -> None:
        with as_tune_error(self.where):
            claim.trial.set_user_attr(TRIED, tried.model_dump_json())
            self.optuna.tell(claim.trial, [tried.seconds, tried.quality])

    def fail(self, claim: Claim, reason: str) -> None:
        """The setting cannot be used, and is not tried again."""
        with as_tune_error(self.where):
            claim.trial.set_user_attr(REASON, reason)
            self.optuna.tell(claim.trial, state=TrialState.FAIL)

    def release(self, claim: Claim) -> None:
        """The setting was not tried to its end, and is free again."""
        self.fail(claim, DIED)

    def tried(self) -> list[Tried]:
        """All results, in the order of their trials."""
        with as_tune_error(self.where):
            trials = self.optuna.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [tried_of(trial) for trial in trials]

    def failed(self) -> dict[str, str]:
        """Why settings could not be used, by id."""
        with as_tune_error(self.where):
            trials = self.optuna.get_trials(deepcopy=False, states=[TrialState.FAIL])
        found = {}
        for trial in trials:
            reason = trial.user_attrs.get(REASON)
            case = case_of_trial(trial, self.space)
            if case and reason not in (None, TAKEN, DIED):
                found[case.id] = str(reason)
        return found

    def release_dead(self) -> int:
        """Ends the trials of workers of this machine that are gone, and says how many those were."""
        count = 0
        with as_tune_error(self.where):
            for trial in self.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if _is_dead(trial.user_attrs.get(WORKER, "")):
                    self.optuna.tell(trial.number, state=TrialState.FAIL)
                    count += 1
        return count


def _is_choosing(trial: FrozenTrial) -> bool:
    """Whether a trial has begun and its worker has not named the setting yet; after some time, that worker is dead."""
    if trial.state != TrialState.RUNNING or WORKER in trial.user_attrs or trial.datetime_start is None:
        return False
    return datetime.now() - trial.datetime_start < timedelta(seconds=CHOOSING_S)


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_dead(worker: str) -> bool:
    host, _, process = worker.rpartition(":")
    return host == socket.gethostname() and not Path(f"/proc/{process}").exists()


def open_study(
    name: str, search: Chooser, storage: optuna.storages.BaseStorage, where: str, seed: int | None = None
) -> Study:
    """The study of this name, created if there is none.

    Raises:
        TuneError: it is there, for other settings, another reference or another device.
    """
    space, sampler = search.space, FrontSampler(search, seed)
    with as_tune_error(where):
        made = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            directions=["minimize", "maximize"],
            load_if_exists=True,
        )
        made.set_metric_names(["seconds per picture", "quality"])
        known = made.user_attrs.get(SPACE)
        if known is None:
            made.set_user_attr(SPACE, space_key(space))
        elif known != space_key(space):
            raise TuneError(
                f"study '{name}' was started with other settings to try, other prompts or another model; "
                "give the same suite file, or another --study."
            )
    return Study(space, made, sampler, where)


def space_key(space: Space) -> str:
    """A short hash of everything that the results of a study depend on, apart from the machine."""
    content: Mapping[str, Any] = {
        # Studies that were started before models had variants keep their key.
        "model": space.model.model_dump(mode="json", exclude=None if space.model.variant else {"variant"}),
        "tuning": space.tuning.model_dump(mode="json", by_alias=True),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
