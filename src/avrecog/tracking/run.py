"""One MLflow run of a stage: its parameters, numbers and files; what can't be sent now is kept and sent later.

Two MLflow experiments: `avrecog-stages` has a run for every execution of a stage; `avrecog` has the rows that people
compare, written whole by stage report. client.py says where they are.
"""

import contextlib
import functools
import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avrecog.config import Params
from avrecog.errors import AvrecogError
from avrecog.runtime.entry_point import kept_log
from avrecog.tracking.address import first_line
from avrecog.tracking.client import STAGES_EXPERIMENT, ensured_experiment_id, tracking_client, tracking_errors
from avrecog.tracking.outcome import Outcome
from avrecog.tracking.provenance import file_digest, origin_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)
SYSTEM_METRICS_EVERY_S = 10
TRY_AGAIN_AFTER_S = 30


class Run:
    """One MLflow run of `avrecog-stages`.

    What can't be written now, since the store is away or full, is kept and tried again with the next numbers: tracking
    never ends a training. Every number is in the project's own files too.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._entries: list[Callable[[], None]] = []  # numbers and words that wait to be written
        self._files: list[Callable[[], None]] = []  # they may go to another place, which may be away alone
        self._failed_at = -math.inf
        self.outcome: Outcome | None = None

    def log(self, outcome: Outcome) -> None:
        """Keep what the stage has to say; it is written and printed when the run ends."""
        self.outcome = outcome
        self.log_metrics(outcome.metrics)
        self.log_curves(outcome.curves)
        for key, value in outcome.facts.items():
            self.tag(key, value)
        if outcome.manifest is not None:
            self._entries.append(functools.partial(_log_manifest, self._client, self._run_id, outcome.manifest))
        for path in outcome.files:
            self._files.append(functools.partial(self._client.log_artifact, self._run_id, str(path)))
        self._write()

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """The numbers of one epoch, in one call."""
        self.log_curves([(step, dict(metrics))])

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Numbers without a step; None is left out."""
        self.log_curves([(0, {key: value for key, value in metrics.items() if value is not None})])

    def log_curves(self, curves: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Many steps at once."""
        for batch in metric_batches(curves):
            self._entries.append(functools.partial(self._client.log_batch, self._run_id, metrics=batch))
        self._write()

    def tag(self, key: str, value: str) -> None:
        """A word."""
        self._entries.append(functools.partial(self._client.set_tag, self._run_id, key, value))
        self._write()

    def end(self, status: str, log_text: str) -> None:
        """Write what is left, the log, and how the run ended."""
        self._failed_at = -math.inf
        self._entries.append(functools.partial(self._client.set_terminated, self._run_id, status))
        if log_text:
            self._files.append(functools.partial(self._client.log_text, self._run_id, log_text, "log.txt"))
        self._write()
        n_lost = len(self._entries) + len(self._files)
        if n_lost:
            log.error("run %s: %d entries could not be written to the tracking store", self._run_id, n_lost)

    def _write(self) -> None:
        """Write what waits, in order; after a failure not again for a while, since each try may take long."""
        if time.monotonic() - self._failed_at < TRY_AGAIN_AFTER_S:
            return
        for waiting in (self._entries, self._files):
            try:
                while waiting:
                    waiting[0]()
                    waiting.pop(0)
            except Exception as error:  # noqa: BLE001  stores of metrics and artifacts are plug-ins: they raise anything
                self._failed_at = time.monotonic()
                log.warning("the tracking store can't be written now (%s); kept, to be tried again", first_line(error))


class _SilentRun(Run):
    """Of a process that is not the first of its training: the first one tracks."""

    def __init__(self) -> None:
        self.outcome = None

    def log(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        pass


@contextlib.contextmanager
def tracked(stage: str, params: Params, model: str | None = None) -> Iterator[Run]:
    """An MLflow run around a stage: parameters and tags at its start, wall time, memory and its log at its end.

    A stage that raises leaves a run marked FAILED, one that is stopped a run marked KILLED; a run whose process was
    killed is marked so by the next stage. At a good end the outcome is printed: one line for people, one line of JSON
    for programs. Under torchrun there is one run, the first process's.

    Raises:
        KeyboardInterrupt: again, after the run is marked.
        TrackingError: if the store can't be opened.
    """
    from avrecog.runtime.device import gpu_memory_mib, machine_tags, peak_memory_mib
    from avrecog.runtime.distributed import processes

    if not processes().is_main:
        logging.getLogger("avrecog").setLevel(logging.WARNING)
        yield _SilentRun()
        return
    began = time.perf_counter()
    tags = origin_tags() | machine_tags() | {"stage": stage} | ({"model": model} if model else {})
    with kept_log() as kept:
        client = tracking_client()
        run_id = begin_run(client, STAGES_EXPERIMENT, f"{stage} {model}" if model else stage, params.flat(), tags)
        run = Run(client, run_id)
        status = "FAILED"
        try:
            with _system_metrics(run_id, stage):
                yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except Exception as error:
            run.tag("error", str(error)[:5000])
            told = isinstance(error, AvrecogError)
            kept.write(f"error: {error}\n" if told else "".join(traceback.format_exception(error)))
            raise
        finally:
            seconds = time.perf_counter() - began
            memory = {"peak_memory_mib": peak_memory_mib(), "gpu_memory_mib": gpu_memory_mib()}
            run.log_metrics({"wall_s": seconds, **memory})
            run.end(status, kept.getvalue())
    assert run.outcome is not None, f"stage {stage} logged no outcome"
    sys.stdout.write(f"{stage}: {run.outcome.summary}\n")
    sys.stdout.write(
        json.dumps({"stage": stage, "model": model, "wall_s": round(seconds, 3), **run.outcome.metrics}) + "\n"
    )


def begin_run(
    client: "MlflowClient", experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """The id of a new run with its parameters and tags.

    Raises:
        TrackingError: if the store can't be written.
    """
    with tracking_errors():
        place = ensured_experiment_id(client, experiment)
        run_id: str = client.create_run(place, run_name=name, tags=dict(tags)).info.run_id
        try:
            _log_params(client, run_id, params)
        except BaseException:
            client.delete_run(run_id)
            raise
    return run_id


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for begin in range(0, len(entries), 100):  # MLflow takes 100 at once
        client.log_batch(run_id, params=entries[begin : begin + 100])


def _log_manifest(client: "MlflowClient", run_id: str, manifest: Path) -> None:
    """The manifest as a dataset, with the digest that dvc.lock has for it."""
    from mlflow.entities import Dataset, DatasetInput

    source = json.dumps({"uri": str(manifest.resolve())})
    dataset = Dataset("manifest", file_digest(manifest), "local", source)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[])])


def metric_batches(curves: Sequence[tuple[int, Mapping[str, float]]]) -> "Iterator[list[Metric]]":
    """The numbers as MLflow takes them, stamped now, 1,000 at once."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(key, float(value), now, step) for step, numbers in curves for key, value in numbers.items()]
    for begin in range(0, len(metrics), 1000):
        yield metrics[begin : begin + 1000]


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
