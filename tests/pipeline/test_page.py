"""MLflow's page in a real browser: `make test-slow` installs Debian's chromium for it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
from mlflow import MlflowClient

from waiting import HANGS_S, wait_until

BROWSER = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="chromium is not installed; `make test-slow` installs it"),
]


@pytest.fixture
def address(finished_project):
    """A bare `mlflow ui` in the project's root, answering."""
    (finished_project / "mlflow.db").symlink_to("mlruns/mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    with (finished_project / "ui.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=finished_project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    found = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return urllib.request.urlopen(f"{found}/health", timeout=HANGS_S)
        except OSError:
            return None

    wait_until(answers, lambda: server.poll() is None)
    yield found
    os.killpg(server.pid, 15)
    server.wait(HANGS_S)
    (finished_project / "mlflow.db").unlink()


def test_the_compare_page_names_both_models(finished_project, address, tmp_path):
    client = MlflowClient(f"sqlite:///{finished_project}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("avrecog").experiment_id
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    query = urllib.parse.urlencode(
        {"runs": json.dumps([runs["audio"], runs["rgb"]]), "experiments": json.dumps([experiment])},
        quote_via=urllib.parse.quote,
    )
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=30000", "--dump-dom"),
        f"{address}/#/compare-runs?{query}",
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=True).stdout
    assert "test.top1" in page
    for name in ("audio", "rgb"):
        assert f">{name}<" in page, page[-3000:]
