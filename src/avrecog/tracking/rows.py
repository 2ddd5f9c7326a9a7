"""The rows of MLflow's experiment `avrecog`, which people compare: written whole, or not at all."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avrecog.tracking.client import ROWS_EXPERIMENT, tracking_client, tracking_errors
from avrecog.tracking.provenance import origin_tags
from avrecog.tracking.run import begin_run, metric_batches


@dataclass(frozen=True)
class ComparableRow:
    """One run that people compare with others."""

    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    metrics: Mapping[str, float | None]  # None where there was nothing to measure
    curves: Sequence[tuple[int, Mapping[str, float]]] = ()  # (step, numbers)
    files: Sequence[Path] = ()


LogRow = Callable[[ComparableRow], str]  # writes a row and returns its id


@contextlib.contextmanager
def comparable_rows(experiment: str = ROWS_EXPERIMENT) -> Iterator[LogRow]:
    """What writes a row of an experiment and returns its id; all that the block writes are there at its end, or none.

    Raises:
        TrackingError: if the store can't be opened or written.
    """
    from avrecog.runtime.device import machine_tags

    client, origin = tracking_client(), origin_tags() | machine_tags()
    begun: list[str] = []

    def log_row(row: ComparableRow) -> str:
        run_id = begin_run(client, experiment, row.name, row.params, origin | dict(row.tags))
        begun.append(run_id)
        with tracking_errors():
            numbers = {key: value for key, value in row.metrics.items() if value is not None}
            for batch in metric_batches([(0, numbers), *row.curves]):
                client.log_batch(run_id, metrics=batch)
            for path in row.files:
                client.log_artifact(run_id, str(path))
        return run_id

    try:
        yield log_row
        with tracking_errors():
            for run_id in begun:
                client.set_terminated(run_id, "FINISHED")
    except BaseException:
        for run_id in begun:
            client.delete_run(run_id)
        raise
