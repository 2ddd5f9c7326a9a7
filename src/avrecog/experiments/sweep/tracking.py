"""A sweep in the tracking store: the curves of its trials, and one run for the study; an importer of mlflow."""

import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avrecog.errors import TrackingError
from avrecog.runtime.files import atomic_path
from avrecog.tracking.client import STAGES_EXPERIMENT, experiment_id, tracking_client, tracking_errors
from avrecog.tracking.rows import ComparableRow, comparable_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

STUDY_TAG = "sweep"


@functools.cache
def _client(folder: Path) -> "MlflowClient":
    """Of the store of the project in `folder`, opened once: a curve is asked for every second."""
    return tracking_client()


def validation_curve(experiment: str, metric: str) -> list[tuple[int, float]]:
    """Epoch and value of each validation of the training that a dvc experiment runs; none before it has begun.

    Args:
        experiment: dvc's name for it.
        metric: `val_top1` or `val_loss`.
    """
    try:
        client = _client(Path.cwd())
        with tracking_errors():
            stages = experiment_id(client, STAGES_EXPERIMENT)
            if stages is None:
                return []
            runs = client.search_runs(
                [stages],
                f"tags.`dvc.exp_name` = '{experiment}' and tags.stage = 'train'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            points = client.get_metric_history(runs[0].info.run_id, metric) if runs else []
    except TrackingError as error:  # a store that is away for a while ends no trial
        log.warning("%s: its curve can't be read now: %s", experiment, error)
        return []
    return sorted((point.step, point.value) for point in points)


def log_study(
    study: str,
    objective: str,
    trials: Sequence[dict[str, Any]],
    best: dict[str, Any] | None,
    table: Path,
) -> None:
    """Write the study as one run of `avrecog-stages` in place of the one it had before.

    Args:
        study: its name, which becomes the run's name and its tag `sweep`.
        objective: what the trials were tried for.
        trials: by number: number, state, value, values, experiment, error.
        best: the best of them.
        table: the JSON file of the trials to write, kept beside the run.
    """
    with atomic_path(table) as temporary:
        temporary.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
    client = tracking_client()
    with tracking_errors():
        stages = experiment_id(client, STAGES_EXPERIMENT)
        before = client.search_runs([stages], f"tags.{STUDY_TAG} = '{study}'") if stages else []
    values = {f"best.{key}": value for key, value in best["values"].items()} if best else {}
    numbers: dict[str, float | None] = {"n_complete": sum(trial["state"] == "COMPLETE" for trial in trials)}
    if best:
        numbers |= {"best_value": best["value"], "best_trial": best["number"]}
    curve = [
        (trial["number"], {"trial_value": trial["value"]})
        for trial in trials
        if trial["state"] == "COMPLETE" and trial["value"] is not None
    ]
    tags = {"stage": "sweep", STUDY_TAG: study, "objective": objective}
    with comparable_rows(STAGES_EXPERIMENT) as log_run:
        log_run(ComparableRow(study, {"objective": objective, **values}, tags, numbers, curve, [table]))
    with tracking_errors():
        for run in before:
            client.delete_run(run.info.run_id)
