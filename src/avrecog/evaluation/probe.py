"""Stage probe: a linear classifier on what a network learned without labels, and on what it was before."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from avrecog.datasets.base import ClipDataset
from avrecog.datasets.open import open_features, open_split
from avrecog.datasets.view_scores import predict_scores
from avrecog.inference.synchrony import load_sync
from avrecog.inputs import SyncPairInput
from avrecog.manifest import LabelledClips
from avrecog.metrics import bootstrap_gain, bootstrap_interval, log_loss, mcnemar_exact
from avrecog.models.avsync import AVSync
from avrecog.models.checkpoint import load_weights
from avrecog.models.registry import build_model
from avrecog.runtime.device import on_device, pick_device
from avrecog.runtime.files import atomic_path
from avrecog.tracking.outcome import Outcome

STRENGTHS = tuple(10.0**power for power in range(-5, 2))  # C of the logistic regression, chosen on val
BATCH = 64


def probe_model(checkpoint: Path, data: Path, seed: int, metrics_path: Path) -> Outcome:
    """Fit a logistic regression on frozen features, with the weights of the checkpoint and with random ones.

    The features are the means of Slow, Fast and Audio over the views that cover a clip. The regression's strength is
    chosen on val, by log loss. The random network's batch norms have seen the training clips.

    Args:
        checkpoint: of architecture avsync.
        data: the folder of the manifest, the splits, the labels and `features`.
        seed: of the random weights.
        metrics_path: the JSON file to write.

    Raises:
        CheckpointError: if the checkpoint is of another architecture.
    """
    began = time.perf_counter()
    model, tables = load_sync(checkpoint), LabelledClips.read(data)
    pairs = model.input
    assert isinstance(pairs, SyncPairInput)
    features = open_features(pairs.audiovisual, model.front_end, data / "features", tables)
    splits = {split: open_split(pairs.audiovisual, features, split).clips for split in ("train", "val", "test")}
    torch.manual_seed(seed)
    untrained = build_model(model.config, 1)
    statistics = {key: value for key, value in model.network.state_dict().items() if key.startswith("standardise")}
    load_weights(untrained, {**untrained.state_dict(), **statistics}, "random weights")
    on_device(untrained, pick_device())
    _recalibrate_batch_norms(untrained, splits["train"])
    labels = splits["test"].labels
    right, on_val = {}, {}
    for name, network in {"pretrained": model.network, "random": untrained}.items():
        assert isinstance(network, AVSync)
        pooled = {split: _features(network, clips) for split, clips in splits.items()}
        probabilities, on_val[name] = _fitted(pooled, {split: clips.labels for split, clips in splits.items()})
        right[name] = probabilities.argmax(axis=1) == labels
    low, high = bootstrap_interval(right["pretrained"])
    gain_low, gain_high = bootstrap_gain(right["pretrained"], right["random"])
    metrics = {
        "top1": float(right["pretrained"].mean()),
        "top1_low": low,
        "top1_high": high,
        "random_top1": float(right["random"].mean()),
        "gain": float(right["pretrained"].mean() - right["random"].mean()),
        "gain_low": gain_low,
        "gain_high": gain_high,
        "p": mcnemar_exact(right["pretrained"], right["random"]),
        "val_top1": on_val["pretrained"],
        "n_clips": len(labels),
    }
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    summary = (
        f"linear probe of {len(labels)} test clips in {time.perf_counter() - began:.0f} s: top-1 {metrics['top1']:.3f} "
        f"on what was learned without labels, {metrics['random_top1']:.3f} on random weights: "
        f"{100 * metrics['gain']:+.1f} points ({100 * gain_low:+.1f} to {100 * gain_high:+.1f})"
    )
    return Outcome(summary, {f"probe.{key}": float(value) for key, value in metrics.items()})


def _recalibrate_batch_norms(network: torch.nn.Module, clips: ClipDataset[Any]) -> None:
    """Give the batch norms the statistics of the clips."""
    network.train()
    assert isinstance(network, AVSync)
    views = clips.views(1)
    with torch.no_grad():
        for batch in np.split(
            views, range(BATCH, len(views) - 1, BATCH)
        ):  # a batch norm can't learn from a rest of one
            frames, log_mel, _ = clips.view_batch(batch, pick_device())
            network.features(frames, log_mel)
    network.eval()


def _features(network: AVSync, clips: ClipDataset[Any]) -> np.ndarray:
    """(N, D), means over views."""
    return predict_scores(
        lambda frames, log_mel, _: network.features(frames, log_mel),
        clips,
        n_views=None,
        batch_size=BATCH,
        device=pick_device(),
        average="score",
    )


def _fitted(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """Probabilities (N, K) of test, and the top-1 on val, by which nothing was fitted but the strength chosen."""
    with threadpool_limits(1):
        candidates: Sequence = [
            make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(
                features["train"], labels["train"]
            )
            for strength in STRENGTHS
        ]
    best = min(candidates, key=lambda fitted: log_loss(fitted.predict_proba(features["val"]), labels["val"]))
    on_val = float((best.predict(features["val"]) == labels["val"]).mean())
    return np.asarray(best.predict_proba(features["test"])), on_val
