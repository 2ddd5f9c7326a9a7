"""Experiment tracking: the only importer of mlflow.

Two MLflow experiments: `avrecog-stages` has a run for every execution of a stage; `avrecog` has the rows that people
compare, written whole by stage report. The store is `mlruns/mlflow.db` of the project (DVC_ROOT, so that experiments in
temporary folders write there too), or wherever MLFLOW_TRACKING_URI points.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avrecog.config import Params
from avrecog.outcome import Outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

STAGES_EXPERIMENT = "avrecog-stages"
ROWS_EXPERIMENT = "avrecog"
SYSTEM_METRICS_EVERY_S = 10


def project_root() -> Path:
    """The project's folder: DVC_ROOT where dvc runs the stage, the working folder elsewhere."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


class Run:
    """One MLflow run of `avrecog-stages`."""

    def __init__(self, client: "MlflowClient", run_id: str, stage: str) -> None:
        self._client, self.run_id, self.stage = client, run_id, stage
        self.outcome: Outcome | None = None

    def log(self, outcome: Outcome) -> None:
        """Keep what the stage has to say; it is written and printed when the run ends."""
        self.outcome = outcome
        self.log_metrics(outcome.metrics)
        self.log_curves(outcome.curves)
        for key, value in outcome.facts.items():
            self._client.set_tag(self.run_id, key, value)
        for path in outcome.files:
            self._client.log_artifact(self.run_id, str(path))

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """The numbers of one epoch, in one call."""
        self.log_curves([(step, dict(metrics))])

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Numbers without a step; None is left out."""
        self.log_curves([(0, {key: value for key, value in metrics.items() if value is not None})])

    def log_curves(self, curves: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Many steps at once."""
        _log_batch(self._client, self.run_id, curves)


@contextlib.contextmanager
def tracked(stage: str, params: Params, model: str | None = None) -> Iterator[Run]:
    """An MLflow run around a stage: parameters and tags at its start, wall time and memory at its end.

    A stage that raises leaves a run marked FAILED, one that is stopped a run marked KILLED. At a good end the outcome
    is printed: one line for people, one line of JSON for programs.

    Raises:
        KeyboardInterrupt: again, after the run is marked.
    """
    from avrecog.hardware import gpu_memory_mib, hardware, peak_memory_mib

    began = time.perf_counter()
    client = _client()
    run_id = _start(client, STAGES_EXPERIMENT, f"{stage} {model}" if model else stage)
    _log_params(client, run_id, params.flat())
    for key, value in (
        _context() | {"stage": stage, "hardware": hardware()} | ({"model": model} if model else {})
    ).items():
        client.set_tag(run_id, key, value)
    run = Run(client, run_id, stage)
    status = "FAILED"
    try:
        with _system_metrics(run_id, stage):
            yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        client.set_tag(run_id, "error", str(error)[:5000])
        raise
    finally:
        seconds = time.perf_counter() - began
        run.log_metrics({"wall_s": seconds, "peak_memory_mib": peak_memory_mib(), "gpu_memory_mib": gpu_memory_mib()})
        client.set_terminated(run_id, status)
    assert run.outcome is not None, f"stage {stage} logged no outcome"
    sys.stdout.write(f"{stage}: {run.outcome.summary}\n")
    sys.stdout.write(
        json.dumps({"stage": stage, "model": model, "wall_s": round(seconds, 3), **run.outcome.metrics}) + "\n"
    )


def log_row(
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    metrics: Mapping[str, float | None],
    curves: Sequence[tuple[int, Mapping[str, float]]],
    files: Sequence[Path],
) -> None:
    """Write one finished run of the experiment `avrecog`: a row that people compare."""
    from avrecog.hardware import hardware

    client = _client()
    run_id = _start(client, ROWS_EXPERIMENT, name)
    _log_params(client, run_id, params)
    for key, value in (_context() | {"hardware": hardware()} | dict(tags)).items():
        client.set_tag(run_id, key, value)
    _log_batch(client, run_id, [(0, {key: value for key, value in metrics.items() if value is not None}), *curves])
    for path in files:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED")


def ensure_store(root: Path) -> str:
    """The address of the tracking store, made if it is not there: once, under a lock, in WAL mode."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    folder = root / "mlruns"
    folder.mkdir(exist_ok=True)
    database = folder / "mlflow.db"
    address = f"sqlite:///{database}"
    with (folder / ".init.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists() or database.stat().st_size == 0:
            from mlflow import MlflowClient

            MlflowClient(address).search_experiments()  # makes the tables
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
    return address


def _client() -> "MlflowClient":
    root = project_root()
    address = ensure_store(root)
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(address)  # the system metrics' monitor reads it
    return MlflowClient(address)


def _start(client: "MlflowClient", experiment: str, name: str) -> str:
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else _create_experiment(client, experiment)
    return client.create_run(experiment_id, run_name=name).info.run_id


def _create_experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    location = None if os.environ.get("MLFLOW_TRACKING_URI") else (project_root() / "mlruns" / name).as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process was first
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for begin in range(0, len(entries), 100):  # MLflow takes 100 at once
        client.log_batch(run_id, params=entries[begin : begin + 100])


def _log_batch(client: "MlflowClient", run_id: str, curves: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics: list[Metric] = [
        Metric(key, float(value), now, step) for step, numbers in curves for key, value in numbers.items()
    ]
    for begin in range(0, len(metrics), 1000):  # MLflow takes 1,000 at once
        client.log_batch(run_id, metrics=metrics[begin : begin + 1000])


def _context() -> dict[str, str]:
    """Where and from what a run was made, as tags."""
    tags = {
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "dvc.stage": os.environ.get("DVC_STAGE"),
        "git.commit": _git("rev-parse", "HEAD"),
        "git.dirty": "true" if _git("status", "--porcelain", "--untracked-files=no") else "false",
    }
    return {key: value for key, value in tags.items() if value}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, or not a repository: the tag is left out
    return result.stdout.strip() if result.returncode == 0 else None


@contextlib.contextmanager
def _system_metrics(run_id: str, stage: str) -> Iterator[None]:
    """Processor, memory and GPU use every ten seconds while a training runs."""
    if stage != "train":
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_METRICS_EVERY_S, samples_before_logging=1)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
