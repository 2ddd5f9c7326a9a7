"""Views of clips -> one score vector a clip."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from avrecog.config import Count, Flag, section
from avrecog.datasets.clips import ClipDataset
from avrecog.processes import Processes

ALONE = Processes()
Engine = Literal["torch", "torch-compiled", "onnxruntime", "onnxruntime-int8"]


@section
class TestConfig:
    """Section `test` in params.yaml."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    n_clips: Count | None = None  # views of each clip, evenly spaced (frames: at most); null: as many as cover it
    average_clips: Literal["prob", "score"] = "prob"  # mean of the views' softmax, or of their logits
    batch_size: Count = 64  # views
    checkpoint: Literal["best", "last"] = "best"  # best: of the epoch with the highest val top-1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # of stage benchmark too
    engine: Engine = "torch"  # what runs the network
    result_json: Flag = False  # write the test scores as MMAction2's `--out result.json` too


def predict_scores(
    model: Callable[..., Tensor],
    dataset: ClipDataset[Any],
    n_views: int | None,
    batch_size: int,
    device: torch.device,
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
        device: where the model is.
        average: `prob`: softmax first, which gives probabilities; `score`: logits.
        processes: that share the work; each gets all the scores.
        progress: whether to show a bar.

    Returns: (N, K) float32, rows in the order of `dataset.clip_ids`.
    """
    views = dataset.views(n_views)
    share = np.array_split(views, processes.n)[processes.rank]
    batches = [share[begin : begin + batch_size] for begin in range(0, len(share), batch_size)]
    scores = []
    with torch.inference_mode():
        for batch in tqdm(batches, unit="batch", desc="test", disable=not progress, mininterval=1):
            logits = model(*dataset.view_batch(batch, device)).float()
            scores.append(logits.softmax(dim=1) if average == "prob" else logits)
    shares = processes.gather(torch.cat(scores).cpu().numpy() if scores else None)
    each = np.concatenate([part for part in shares if part is not None]).astype(np.float64)
    total = np.zeros((len(dataset), each.shape[1]))
    np.add.at(total, views[:, 0], each)
    count = np.bincount(views[:, 0], minlength=len(dataset))
    return (total / count[:, None]).astype(np.float32)
