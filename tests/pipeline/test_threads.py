"""Small linear algebra has one thread, whatever the environment says: threads that wait for each other cost most."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from avrecog.evaluation import probe
from avrecog.fusion.selection import fit_methods
from avrecog.fusion.settings import FuseConfig


@pytest.fixture
def threads_of_fits(monkeypatch):
    """How many threads each pool had in every fit of a logistic regression, where they had two before."""
    found = []
    fit = LogisticRegression.fit

    def watched(self, *args):
        found.extend(each["num_threads"] for each in threadpool_info())
        return fit(self, *args)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(2):
        yield found
        assert {each["num_threads"] for each in threadpool_info()} == {2}, "not put back"


def clips(n_clips: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n_clips) % n_classes
    scores = rng.random((2, n_clips, n_classes)).astype(np.float32)
    return scores / scores.sum(2, keepdims=True), labels


def test_stacking_is_fitted_by_one_thread(threads_of_fits):
    scores, labels = clips(30, 3)
    fit_methods(scores, labels, [f"{n:02}" for n in range(30)], ["a", "b"], FuseConfig(methods=["stacking"]))
    assert set(threads_of_fits) == {1}


def test_a_linear_probe_is_fitted_by_one_thread(threads_of_fits):
    (features, _), labels = clips(30, 3)
    probe._fitted(dict.fromkeys(("train", "val", "test"), features), dict.fromkeys(("train", "val"), labels))
    assert set(threads_of_fits) == {1}


def test_linear_algebra_has_one_thread_though_the_environment_says_more():
    code = """
import avrecog.fusion.selection, avrecog.fusion.weight_search, avrecog.inference.synchrony, avrecog.metrics
import avrecog.plots, numpy, torch
from threadpoolctl import threadpool_info
print(sorted({(each["internal_api"], each["num_threads"]) for each in threadpool_info()}), torch.get_num_threads())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if "openblas" not in done.stdout:
        pytest.skip("NumPy's linear algebra is not OpenBLAS here")
    assert "('openblas', 1)" in done.stdout
    assert "('openblas', 2)" not in done.stdout
    assert done.stdout.endswith(" 2\n"), "PyTorch's own threads"
