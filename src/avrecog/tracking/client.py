"""Where MLflow keeps the runs: the project's own store, made, opened and moved along with it, or one that is given.

The store is `mlruns/mlflow.db` of the project (DVC_ROOT, so that experiments in temporary folders write there too), or
wherever MLFLOW_TRACKING_URI points.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avrecog.errors import TrackingError
from avrecog.runtime.files import file_lock
from avrecog.tracking.address import check_address, first_line, given_address, shown_address, sqlite_address
from avrecog.tracking.provenance import PROCESS_TAG, is_gone

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

STAGES_EXPERIMENT = "avrecog-stages"
ROWS_EXPERIMENT = "avrecog"

# Columns of MLflow's tables that say where files are, as absolute URIs or paths.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def project_root() -> Path:
    """The project's folder: DVC_ROOT where dvc runs the stage, the working folder elsewhere."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def database_path() -> Path:
    """The project's own store."""
    return project_root() / "mlruns" / "mlflow.db"


def ensure_store(root: Path) -> str:
    """The address of the tracking store, made if it is not there: once, whole, under a lock, in WAL mode.

    What a project that was moved or copied has in its store follows it.

    Raises:
        TrackingError: if it can't be made or opened.
    """
    given = given_address()
    if given:
        with tracking_errors():
            check_address(given)
        return given
    folder = root / "mlruns"
    database = folder / "mlflow.db"
    address = sqlite_address(database)
    with file_lock(folder / ".init.lock"), tracking_errors():
        if not database.exists() or database.stat().st_size == 0:
            _make_database(database)
        else:
            with _opened(database) as connection:
                _write_ahead(connection)  # it may have been made by `mlflow ui`
                _follow(connection, folder)
    return address


def tracking_client() -> "MlflowClient":
    """A client of the project's tracking store, in which the runs of dead processes are marked.

    Raises:
        TrackingError: if it can't be opened.
    """
    given = given_address()
    address = ensure_store(project_root())
    import mlflow
    from mlflow import MlflowClient

    with tracking_errors():
        mlflow.set_tracking_uri(address)  # the system metrics' monitor reads it
        if not given:  # MLflow has put it there, where it would pass for one that a person gave
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        client = MlflowClient(address)
        _mark_dead_runs(client)
    return client


def experiment_id(client: "MlflowClient", name: str) -> str | None:
    """The id of an experiment, None if there is none; one that was deleted on MLflow's page is restored.

    Raises:
        MlflowException: if the store can't be used.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage == "deleted":
        try:
            client.restore_experiment(found.experiment_id)
        except MlflowException:
            again = client.get_experiment_by_name(name)
            if again is None or again.lifecycle_stage == "deleted":  # else another process was first
                raise
        else:
            log.warning(
                "tracking store: experiment %s had been deleted; it is restored with all of its runs (`mlflow gc` "
                "after deleting it is rid of them for good)",
                name,
            )
    return str(found.experiment_id)


def ensured_experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, which is made or restored where it isn't there.

    Raises:
        MlflowException: if the store can't be used.
    """
    from mlflow.exceptions import MlflowException

    known = experiment_id(client, name)
    if known is not None:
        return known
    location = None if given_address() else (project_root() / "mlruns" / name).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another process was first
        known = experiment_id(client, name)
        if known is None:
            raise
        return known


@contextlib.contextmanager
def tracking_errors() -> Iterator[None]:
    """Within the block, what MLflow and SQLite find wrong becomes a TrackingError that names the store.

    Raises:
        TrackingError: with the reason.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        given = given_address()
        store = shown_address(given) if given else database_path()
        raise TrackingError(
            f"{store}: the tracking store can't be used ({first_line(error)}); see that it is there, whole and has "
            f"room, or set MLFLOW_TRACKING_URI to another"
        ) from None


def store_problems() -> list[str]:
    """What is wrong with the tracking store, in words; nothing in it is changed, and a server is asked but once."""
    given, database = given_address(), database_path()
    problems: list[str] = []
    try:
        address = given or sqlite_address(database)
        if not given and not (database.exists() and database.stat().st_size):
            return []  # the first stage makes it
        from mlflow import MlflowClient

        with tracking_errors(), _impatient():
            check_address(address)
            client = MlflowClient(address)
            found = [client.get_experiment_by_name(name) for name in (STAGES_EXPERIMENT, ROWS_EXPERIMENT)]
        problems += [
            f"tracking store: experiment {each.name} was deleted; the next stage that writes to it restores it with "
            f"its runs, and `mlflow gc` is rid of it for good"
            for each in found
            if each is not None and each.lifecycle_stage == "deleted"
        ]
        if not given:
            with tracking_errors(), _opened(database) as connection:
                old = _old_place(connection, database.parent)
            if old is not None:
                problems.append(
                    f"tracking store: it has its files at {old}, from where the project was moved or copied; the next "
                    f"stage has those that came along follow to {database.parent}, and writes there"
                )
    except TrackingError as error:
        problems.append(str(error))
    link = project_root() / "mlflow.db"
    if not given and link.exists() and not link.samefile(database):
        problems.append(
            "mlflow.db: is not the store that the stages write, so that `mlflow ui` shows another; remove it and run "
            "`ln -s mlruns/mlflow.db mlflow.db`"
        )
    return problems


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Within the block MLflow asks a server once and waits for seconds, where it would try for minutes."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _old_place(connection: sqlite3.Connection, mlruns: Path) -> str | None:
    """The URI of the folder `mlruns` in which a store has its files, where that isn't `mlruns` any more.

    It is what stands before the name of one of avrecog's experiments in the place of its files.
    """
    if not _has_column(connection, "experiments", "artifact_location"):
        return None
    names = (STAGES_EXPERIMENT, ROWS_EXPERIMENT)
    query = "SELECT name, artifact_location FROM experiments WHERE name IN (?, ?) AND artifact_location LIKE 'file:%'"
    for name, location in connection.execute(query, names):
        before, _, last = location.rpartition("/")
        if last == name and before.endswith("/mlruns") and before != mlruns.as_uri() and not _is_at(mlruns, before):
            return str(before)
    return None


def _is_at(folder: Path, uri: str) -> bool:
    """Whether a file URI is another name of a folder: a link, or the same disk mounted twice."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    try:
        return folder.samefile(local_file_uri_to_path(uri))
    except (OSError, ValueError):
        return False


def _follow(connection: sqlite3.Connection, mlruns: Path) -> None:
    """Have the files of a store that was moved or copied with its project at their new place, new runs' at any rate.

    Files that are at the old place and not at the new one are left there: runs that an earlier version wrote into the
    old place after the move, or a store that was copied without its files. Only this copy of the store is changed, and
    only what lies below the old place: the original, where there is one, keeps its own.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path

    uri = _old_place(connection, mlruns)
    if uri is None:
        return
    forms = [(uri, mlruns.as_uri()), (local_file_uri_to_path(uri), str(mlruns))]  # experiment Default has a plain path
    left: set[str] = set()
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, column in PLACES:
            if not _has_column(connection, table, column):
                continue
            for old, new in forms:
                query = f"SELECT rowid, {column} FROM {table} WHERE substr({column}, 1, ?) = ?"
                for row, place in connection.execute(query, (len(old) + 1, f"{old}/")).fetchall():
                    moved = new + place[len(old) :]
                    if table != "experiments" and _has_files(place) and not _has_files(moved):
                        left.add(place)
                    else:
                        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved, row))
    log.warning(
        "tracking store: its files were at %s; the project was moved or copied, and they are kept at %s from now on",
        *forms[1],
    )
    if left:
        log.warning(
            "tracking store: runs and models with files at the old place alone: %d; they stay there, so keep %s",
            len(left),
            forms[1][0],
        )


def _has_files(place: str) -> bool:
    """Whether there is anything at a file URI or a path."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return os.path.exists(local_file_uri_to_path(place))


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return column in [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _mark_dead_runs(client: "MlflowClient") -> None:
    """Mark runs as KILLED whose process on this machine is gone without a word, and delete half rows."""
    for name in (STAGES_EXPERIMENT, ROWS_EXPERIMENT):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            continue
        running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        dead = [run.info.run_id for run in running if is_gone(run.data.tags.get(PROCESS_TAG, ""))]
        for run_id in dead:
            if name == ROWS_EXPERIMENT:
                client.delete_run(run_id)
            else:
                client.set_tag(run_id, "error", "its process has ended without a word: killed, or the machine stopped")
                client.set_terminated(run_id, "KILLED")


def _make_database(database: Path) -> None:
    """Make the tables under another name first: a kill half-way would leave a database that nothing can open."""
    from mlflow import MlflowClient

    for leftover in database.parent.glob(".making-*"):
        leftover.unlink()
    temporary = database.with_name(f".making-{os.getpid()}.db")
    MlflowClient(sqlite_address(temporary)).search_experiments()  # makes the tables
    with _opened(temporary) as connection:
        _write_ahead(connection)
    os.replace(temporary, database)


@contextlib.contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    # Only SQLite may open the file: closing it by other means takes SQLite's locks from this process, and the next one
    # to close the database would remove the log that connections here still read.
    with contextlib.closing(sqlite3.connect(database)) as connection:
        yield connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
