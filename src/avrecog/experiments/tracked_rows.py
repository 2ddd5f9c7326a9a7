"""The rows of MLflow's experiment `avrecog` as plain data, and the parents under which several of them stand."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avrecog.errors import ScoreError, TrackingError
from avrecog.scores.predictions import FILE, Predictions, predictions_text, read_predictions
from avrecog.tracking.address import given_address
from avrecog.tracking.client import ROWS_EXPERIMENT, database_path, experiment_id, tracking_client, tracking_errors
from avrecog.tracking.rows import ComparableRow, LogRow, comparable_rows

PARENT_TAG = "mlflow.parentRunId"  # MLflow's page folds a run with it below that run
GROUP_TAG = "gathered"  # of a parent: which group it stands for
CONTENT_TAG = "gathered.content"  # of a parent: what it was made from
NEEDED = {"test.top1", "test.mean_class_accuracy"}  # a row without them is of no comparison
OF_SEED = "predictions_seed"  # how a parent's files begin; the seed and .csv follow


@dataclass(frozen=True)
class TrackedRun:
    """A finished run of the experiment: a model's row, or a parent (stage `gather`) of several."""

    run_id: str
    model: str
    started_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def is_parent(self) -> bool:
        """Whether it stands for several rows."""
        return self.tags.get("stage") == "gather"


@dataclass(frozen=True)
class Parent:
    """A parent to write."""

    model: str
    params: Mapping[str, str]
    tags: Mapping[str, str]  # GROUP_TAG and CONTENT_TAG among them
    metrics: Mapping[str, float]
    predictions: Mapping[str, Predictions]  # seed -> pooled over the folds; empty where some are missing
    children: Sequence[str]  # run ids


def finished_rows() -> list[TrackedRun]:
    """The finished rows and parents, newest first.

    Raises:
        TrackingError: if there is no store, or it can't be read.
    """
    if not given_address() and not database_path().exists():
        raise TrackingError(f"{database_path()}: there is no tracking store yet; run `dvc repro`")
    client = tracking_client()
    rows: list[TrackedRun] = []
    with tracking_errors():
        experiment = experiment_id(client, ROWS_EXPERIMENT)
        token = None
        while experiment is not None:
            page = client.search_runs(
                [experiment], "attributes.status = 'FINISHED'", max_results=1000, page_token=token
            )
            for run in page:
                of_ours = run.data.tags.get("stage") in ("report", "gather") and "model" in run.data.tags
                if of_ours and run.data.metrics.keys() >= NEEDED:
                    info, data = run.info, run.data
                    rows.append(
                        TrackedRun(
                            info.run_id, data.tags["model"], info.start_time, data.params, data.tags, data.metrics
                        )
                    )
            token = page.token
            if not token:
                break
    return sorted(rows, key=lambda row: (-row.started_ms, row.run_id))


def read_run_predictions(rows: Sequence[TrackedRun]) -> dict[str, dict[str, Predictions]]:
    """What runs said about each test clip: run id -> seed -> table; a model's own row has one, of seed ``""``.

    Returns: for a run that keeps no predictions, no table.

    Raises:
        ScoreError: if a table is damaged.
        TrackingError: if the store can't be read.
    """
    client = tracking_client()
    found: dict[str, dict[str, Predictions]] = {}
    for row in rows:
        tables = found[row.run_id] = {}
        with tempfile.TemporaryDirectory() as folder, tracking_errors():
            for name in [item.path for item in client.list_artifacts(row.run_id)]:
                if name != FILE and not (row.is_parent and name.startswith(OF_SEED)):
                    continue
                path = Path(client.download_artifacts(row.run_id, name, folder))
                try:
                    table = read_predictions(path)
                except ScoreError as error:
                    reason = str(error).replace(str(path), name)
                    raise ScoreError(f"run {row.run_id} ({row.model}): {reason}") from None
                tables["" if name == FILE else name.removeprefix(OF_SEED).removesuffix(".csv")] = table
    return found


def write_parents(parents: Sequence[Parent]) -> list[str]:
    """Write the parents, put their children below them and delete older parents of the same groups.

    A parent that is there already with the same content stays as it is. A kill at any moment leaves what the next
    call mends.

    Returns: the parents' run ids.

    Raises:
        TrackingError: if the store can't be written.
    """
    rows = finished_rows()
    known = {_identity(row.tags, row.model): row.run_id for row in reversed(rows) if row.is_parent}
    with tempfile.TemporaryDirectory() as folder, comparable_rows() as log_row:
        ids = [
            known.get(_identity(parent.tags, parent.model)) or _write(log_row, parent, Path(folder) / str(number))
            for number, parent in enumerate(parents)
        ]
    client = tracking_client()
    groups = {(parent.tags[GROUP_TAG], parent.model) for parent in parents}
    old = [
        row.run_id
        for row in rows
        if row.is_parent and (row.tags.get(GROUP_TAG), row.model) in groups and row.run_id not in ids
    ]
    above = {child: run_id for parent, run_id in zip(parents, ids, strict=True) for child in parent.children}
    with tracking_errors():
        for row in rows:
            now, before = above.get(row.run_id), row.tags.get(PARENT_TAG)
            if now and now != before:
                client.set_tag(row.run_id, PARENT_TAG, now)
            elif not now and before in old:
                client.delete_tag(row.run_id, PARENT_TAG)
        for run_id in old:
            client.delete_run(run_id)
    return ids


def _identity(tags: Mapping[str, str], model: str) -> tuple[str | None, str | None, str]:
    return tags.get(GROUP_TAG), tags.get(CONTENT_TAG), model


def _write(log_row: LogRow, parent: Parent, folder: Path) -> str:
    folder.mkdir()
    files = []
    for seed, table in parent.predictions.items():
        files.append(folder / f"{OF_SEED}{seed}.csv")
        files[-1].write_text(predictions_text(table), encoding="utf-8", newline="")
    return log_row(ComparableRow(f"{parent.model} gathered", parent.params, parent.tags, parent.metrics, files=files))
