"""A study in a journal that several workers share: who tries what, and what became of it; an importer of optuna.

Every step is taken in turns under one lock, which ends with the process that holds it. A trial carries the process of
its worker: where that one is gone, the next worker to come by has the trial failed and its parameters tried again.
"""

import json
import logging
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from avrecog.config import plain
from avrecog.errors import ConfigError
from avrecog.experiments.sweep.settings import ParameterRange, Sweep
from avrecog.fusion.weight_search import drop_cut_off_line, journal_storage, quiet
from avrecog.runtime.files import file_lock
from avrecog.tracking.provenance import is_gone, this_process

log = logging.getLogger(__name__)

JOURNALS = Path("sweeps/journals")
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


class Standing(Enum):
    """Why there is nothing to try now."""

    DONE = "as many trials as asked for have ended"
    WAIT = "other workers' trials, which are still running, may be the last ones"


@dataclass(frozen=True)
class Claim:
    """A trial that is this worker's to run."""

    number: int
    experiment: str  # dvc's name for it
    values: dict[str, Any]  # by dotted path in params.yaml


@dataclass(frozen=True)
class TrialRecord:
    """What became of a trial."""

    number: int
    state: str
    value: float | None  # where complete, or of the last epoch before it was pruned
    values: dict[str, Any]
    experiment: str
    error: str


class SweepStudy:
    """A study's trials. Each method sees what other processes have written until then."""

    def __init__(self, sweep: Sweep, folder: Path = JOURNALS) -> None:
        """Open the study, or begin it.

        Args:
            sweep: what is varied, and what is not.
            folder: of the journals.

        Raises:
            ConfigError: if the journal is damaged, or of another file or other parameters.
        """
        self.config, self.path = sweep.config, folder / f"{sweep.config.study}.log"
        self._lock = self.path.with_suffix(".lock")
        self._live: dict[int, optuna.Trial] = {}  # this worker's, by number
        with file_lock(self._lock), quiet():
            if self.path.exists():
                drop_cut_off_line(self.path)
            try:
                self._study = optuna.create_study(
                    study_name=self.config.study,
                    storage=journal_storage(self.path),
                    direction=self.config.direction,
                    pruner=optuna.pruners.MedianPruner(),
                    load_if_exists=True,
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # what a line that isn't Optuna's gives
                raise ConfigError(f"{self.path}: not a journal of Optuna ({error}); move it away") from None
            self._check(_description(sweep))

    def _check(self, description: dict[str, str]) -> None:
        """Compare what the study was begun with; write it down where the study is new.

        Raises:
            ConfigError: if it was begun with something else.
        """
        attributes = self._study.user_attrs
        if "sweep" not in attributes:  # new, or its beginner was killed before any trial
            self._study.set_user_attr("id", secrets.token_hex(2))
            self._study.set_user_attr("sweep", description)
            return
        before = attributes["sweep"]
        keys = [key for key in {**before, **description} if before.get(key) != description.get(key)]
        if keys:
            changes = "; ".join(
                f"{key} {before.get(key, 'absent')}, now {description.get(key, 'absent')}" for key in keys
            )
            raise ConfigError(
                f"{self.path}: study {self.config.study} was begun with other values ({changes}): its trials can't be "
                f"compared with new ones; put the values back, or rename the study"
            )

    def claim(self) -> Claim | Standing:
        """The next trial to run; trials of workers that are gone are told so first, and tried again."""
        with self._turn():
            self._recover()
            states = Counter(trial.state for trial in self._trials())
            n_ended = sum(states[state] for state in COUNTED)
            if n_ended >= self.config.n_trials:
                return Standing.DONE
            if n_ended + states[TrialState.RUNNING] >= self.config.n_trials:
                return Standing.WAIT
            # seeded by what came before, so that a sweep that is gone on with does not repeat its first draws
            self._study.sampler = optuna.samplers.TPESampler(seed=self.config.seed + len(self._trials()))
            trial = self._study.ask({key: _distribution(given) for key, given in self.config.parameters.items()})
            experiment = f"{self.config.study}-{self._study.user_attrs['id']}-{trial.number}"
            trial.set_user_attr("experiment", experiment)
            trial.set_user_attr("process", this_process())
            self._live[trial.number] = trial
            return Claim(trial.number, experiment, dict(trial.params))

    def report(self, claim: Claim, curve: Sequence[tuple[int, float]]) -> bool:
        """Write down the validations there are so far; whether the trial should be pruned."""
        with self._turn():
            trial = self._live[claim.number]
            known = self._study.trials[claim.number].intermediate_values
            for step, value in curve:
                if step not in known:
                    trial.report(value, step)
            return self.config.prune and bool(curve) and trial.should_prune()

    def complete(self, claim: Claim, value: float) -> None:
        """The trial has ended with this value."""
        self._tell(claim, TrialState.COMPLETE, value)

    def pruned(self, claim: Claim) -> None:
        """The trial was stopped since it was worse than the others."""
        self._tell(claim, TrialState.PRUNED)

    def failed(self, claim: Claim, error: str) -> None:
        """The trial's pipeline has failed: others are tried in its place."""
        self._tell(claim, TrialState.FAIL, error=error)

    def give_back(self, claim: Claim) -> None:
        """The trial was stopped with its worker: the same values are tried again by the next."""
        if claim.number in self._live:  # not told yet
            self._tell(claim, TrialState.FAIL, error="stopped; tried again", again=claim.values)

    def records(self) -> list[TrialRecord]:
        """All trials, by number."""
        with self._turn():
            return [_record(trial) for trial in self._trials()]

    def best(self) -> TrialRecord | None:
        """The complete trial of the best value, the earlier one of equals."""
        complete = [record for record in self.records() if record.state == "COMPLETE"]
        sign = 1 if self.config.direction == "maximize" else -1
        return max(complete, key=lambda record: sign * (record.value or 0.0), default=None)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with file_lock(self._lock), quiet():
            drop_cut_off_line(self.path)
            yield

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _recover(self) -> None:
        """Fail the trials whose worker is gone, and have their values tried again; who calls this holds the lock."""
        for trial in self._trials():
            process = trial.user_attrs.get("process")
            if trial.state != TrialState.RUNNING or (process is not None and not is_gone(process)):
                continue  # without a process: killed within its turn, since no one else has one now
            whole = len(trial.params) == len(self.config.parameters)
            values = trial.params if whole else trial.system_attrs.get("fixed_params")
            log.warning("trial %d: its worker has ended without a word; its values are tried again", trial.number)
            left = optuna.Trial(self._study, trial._trial_id)
            left.set_user_attr("error", "its worker was killed; tried again")
            if values:
                self._study.enqueue_trial(values)
            self._study.tell(left, state=TrialState.FAIL)

    def _tell(
        self,
        claim: Claim,
        state: TrialState,
        value: float | None = None,
        error: str | None = None,
        again: dict[str, Any] | None = None,
    ) -> None:
        with self._turn():
            trial = self._live[claim.number]
            if error is not None:
                trial.set_user_attr("error", error)
            if again is not None:
                self._study.enqueue_trial(again)
            self._study.tell(trial, value, state)
            del self._live[claim.number]


def _distribution(given: ParameterRange) -> BaseDistribution:
    if given.choices is not None:
        return CategoricalDistribution(given.choices)
    assert given.low is not None
    assert given.high is not None
    if isinstance(given.low, int) and isinstance(given.high, int):
        return IntDistribution(given.low, given.high, given.log)
    return FloatDistribution(given.low, given.high, given.log)


def _description(sweep: Sweep) -> dict[str, str]:
    """What all trials of a study must have in common, each value as text."""
    ranges = {f"parameters.{key}": plain(given) for key, given in sweep.config.parameters.items()}
    together = {"objective": sweep.config.objective, **ranges, **sweep.fixed}
    return {key: json.dumps(value) for key, value in together.items()}


def _record(trial: FrozenTrial) -> TrialRecord:
    value = trial.values[0] if trial.values else None
    attributes = trial.user_attrs
    return TrialRecord(
        trial.number,
        trial.state.name,
        value,
        dict(trial.params),
        attributes.get("experiment", ""),
        attributes.get("error", ""),
    )
