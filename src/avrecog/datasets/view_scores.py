"""Views of clips -> one score vector a clip."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from avrecog.datasets.base import ClipDataset
from avrecog.datasets.numbers import Values
from avrecog.runtime.distributed import Processes

if TYPE_CHECKING:
    import torch


ALONE = Processes()


def predict_scores(
    model: Callable[..., Values],
    dataset: ClipDataset[Any],
    *,
    n_views: int | None,
    batch_size: int,
    device: "torch.device | None",
    average: Literal["prob", "score"],
    processes: Processes = ALONE,
    progress: bool = False,
) -> np.ndarray:
    """Scores of every clip: the mean over its views.

    Args:
        model: in evaluation mode, on `device`.
        dataset: the clips.
        n_views: of each clip; None: as many as cover it.
        batch_size: views in a batch.
        device: where the model is; None: it takes and gives NumPy's arrays.
        average: `prob`: softmax first, which gives probabilities; `score`: logits.
        processes: that share the work; each gets all the scores.
        progress: whether to show a bar.

    Returns: (N, K) float32, rows in the order of `dataset.clip_ids`.
    """
    views = dataset.views(n_views)
    share = np.array_split(views, processes.n)[processes.rank]
    batches = [share[begin : begin + batch_size] for begin in range(0, len(share), batch_size)]
    shown = tqdm(batches, unit="batch", desc="test", disable=not progress, mininterval=1)
    if device is None:
        logits = [model(*dataset.view_batch(batch, None)) for batch in shown]
        own = [_softmax(values) if average == "prob" else values for values in logits]
    else:
        own = _on_device(model, dataset, shown, device, average)
    shares = processes.all_gather(np.concatenate(own) if own else None)
    each = np.concatenate([part for part in shares if part is not None]).astype(np.float64)
    total = np.zeros((len(dataset), each.shape[1]))
    np.add.at(total, views[:, 0], each)
    count = np.bincount(views[:, 0], minlength=len(dataset))
    return (total / count[:, None]).astype(np.float32)


def _on_device(
    model: Callable[..., Values],
    dataset: ClipDataset[Any],
    batches: Iterable[np.ndarray],
    device: "torch.device",
    average: Literal["prob", "score"],
) -> list[np.ndarray]:
    """The scores of each batch of views, moved once all are computed."""
    import torch  # late: it takes seconds, and ONNX Runtime needs none of it

    scores = []
    with torch.inference_mode():
        for batch in batches:
            logits = model(*dataset.view_batch(batch, device)).float()
            scores.append(logits.softmax(dim=1) if average == "prob" else logits)
    return [torch.cat(scores).cpu().numpy()] if scores else []


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
