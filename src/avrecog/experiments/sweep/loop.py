"""The loop of `avrecog sweep`: claim a trial, run it, tell; and what comes of it."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avrecog.config import PARAMS
from avrecog.errors import AvrecogError, ConfigError, TrainingError
from avrecog.experiments.params_file import merge_yaml_text, replace_params
from avrecog.experiments.sweep.settings import read_sweep
from avrecog.experiments.sweep.study import JOURNALS, Claim, Standing, SweepStudy
from avrecog.experiments.sweep.tracking import log_study
from avrecog.experiments.sweep.trial import DvcTrial, Trial, check_repository
from avrecog.runtime.files import file_lock
from avrecog.tracking.client import tracking_client

log = logging.getLogger(__name__)

POLL_S = 2.0
MAX_FAILURES = 3  # one after the other

Start = Callable[[Claim], Trial]


def run_sweep(path: Path, n_workers: int = 1) -> str:
    """Run the sweep of a file until as many trials as it asks for have ended; what came of it, to be printed.

    Any number of processes may do so at once: they share the study.

    Args:
        path: the sweep's file.
        n_workers: this process, and so many less one that it starts.

    Raises:
        ConfigError: if the file doesn't fit params.yaml or the study that was begun, or there is no git repository.
        TrainingError: if one trial after the other fails.
    """
    if n_workers < 1:
        raise ConfigError(f"--workers: expected 1 at least, got {n_workers}")
    check_repository()
    with file_lock(
        JOURNALS / ".begin.lock"
    ):  # dvc changes the working folder for a moment while it makes an experiment
        sweep = read_sweep(path)
    for warning in sweep.warnings:
        log.warning("%s: %s", path, warning)
    study = SweepStudy(sweep)
    tracking_client()
    log.info("study %s: journal %s (optuna-dashboard %s)", sweep.config.study, study.path, study.path)

    def check() -> None:
        if read_sweep(path).fixed != sweep.fixed:
            raise ConfigError(f"{PARAMS} has changed since the sweep began; put it back, or rename the study")

    def start(claim: Claim) -> Trial:
        return DvcTrial(claim.experiment, claim.values, sweep.config.objective, JOURNALS, check)

    with _helpers(path, n_workers - 1):
        work(study, start)
    with file_lock(JOURNALS / ".summary.lock"):
        records, best = [asdict(record) for record in study.records()], study.best()
        table = study.path.with_suffix(".trials.json")
        log_study(sweep.config.study, sweep.config.objective, records, asdict(best) if best else None, table)
    return summary(study, path)


def work(study: SweepStudy, start: Start, poll_s: float = POLL_S) -> None:
    """Run trials until enough have ended; while only other workers' are left, wait for those.

    Args:
        study: shared with other workers.
        start: begins a trial.
        poll_s: between looks at what runs, in seconds.

    Raises:
        TrainingError: if one trial after the other fails.
    """
    n_failed, waiting = 0, False
    while True:
        claim = study.claim()
        if claim is Standing.DONE:
            return
        if isinstance(claim, Standing):
            if not waiting:
                log.info("waiting: %s", claim.value)
            waiting = True
            time.sleep(poll_s)
            continue
        waiting = False
        log.info("trial %d (%s): %s", claim.number, claim.experiment, _format_values(claim.values))
        error = _run_trial(study, claim, start, poll_s)
        n_failed = n_failed + 1 if error else 0
        if n_failed == MAX_FAILURES:
            raise TrainingError(
                f"{n_failed} trials failed one after the other, the last one: {error}; mend it, and the same command "
                f"goes on"
            )


def _run_trial(study: SweepStudy, claim: Claim, start: Start, poll_s: float) -> str | None:
    """Run a trial and tell the study; the reason where its pipeline failed."""
    try:
        trial = start(claim)
        try:
            while not trial.ended():
                time.sleep(poll_s)
                if study.report(claim, trial.curve()):
                    trial.stop()
                    study.pruned(claim)
                    log.info("trial %d: pruned", claim.number)
                    return None
            value = _value(trial)
        finally:
            trial.stop()
    except BaseException:
        study.give_back(claim)
        raise
    if isinstance(value, str):
        log.warning("trial %d: failed: %s", claim.number, value)
        study.failed(claim, value)
        return value
    study.complete(claim, value)
    log.info("trial %d: %s %.4g", claim.number, study.config.objective, value)
    return None


def _value(trial: Trial) -> float | str:
    """The trial's value, or why it has none."""
    try:
        return trial.value()
    except AvrecogError as error:
        return str(error)


@contextmanager
def _helpers(path: Path, n: int) -> Iterator[None]:
    """So many further workers while the block runs; where it raises they are stopped in good order."""
    command = [sys.executable, "-m", "avrecog.cli", "sweep", str(path)]
    helpers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(n)]
    try:
        yield
    except BaseException:
        for helper in helpers:
            helper.terminate()
        raise
    finally:
        for helper in helpers:
            helper.wait()


def summary(study: SweepStudy, path: Path) -> str:
    """What came of a study, in lines."""
    records, best, config = study.records(), study.best(), study.config
    n = {state: sum(record.state == state for record in records) for state in ("COMPLETE", "PRUNED", "FAIL")}
    counts = f"{n['COMPLETE']} trials complete, {n['PRUNED']} pruned, {n['FAIL']} failed or tried again"
    lines = [
        f"study {config.study}: {counts}",
        f"journal: {study.path} (optuna-dashboard {study.path})",
    ]
    if best is None:
        return "\n".join([*lines, "no trial is complete, so that none is the best"])
    lines.append(f"best: trial {best.number} ({best.experiment}): {config.objective} {best.value:.4g}")
    lines += [f"  {key} {value}" for key, value in best.values.items()]
    return "\n".join([*lines, "to write these values into params.yaml:", f"avrecog sweep {path} --apply"])


def apply_best(path: Path) -> str:
    """Write the best trial's values into params.yaml, its comments kept; the difference, to be printed.

    Raises:
        ConfigError: if there is no study of this file, or none of its trials is complete.
    """
    with file_lock(JOURNALS / ".begin.lock"):
        sweep = read_sweep(path)
        journal = JOURNALS / f"{sweep.config.study}.log"
        if not journal.exists():
            raise ConfigError(f"{journal}: there is no such study; run it first: avrecog sweep {path}")
        best = SweepStudy(sweep).best()
        if best is None:
            raise ConfigError(f"{journal}: no trial is complete yet; go on with avrecog sweep {path}")
        text = merge_yaml_text(PARAMS.read_text(encoding="utf-8"), _nested(best.values), str(journal))
        return replace_params(text) or f"params.yaml has the values of trial {best.number} already"


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """`{"train.lr": 0.1}` as `{"train": {"lr": 0.1}}`."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        here = tree
        for name in sections:
            here = here.setdefault(name, {})
        here[last] = value
    return tree


def _format_values(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )
