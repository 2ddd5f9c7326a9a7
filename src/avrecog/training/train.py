"""Stage train: one model of the matrix, from stores to checkpoints."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import Tensor, nn
from tqdm import tqdm

from avrecog.config import plain
from avrecog.datasets.base import ClipDataset, HasLogMel
from avrecog.datasets.open import OpenSplit, open_features, open_split
from avrecog.errors import DivergedError, TrainingError
from avrecog.features.front_end import FrontEnd
from avrecog.manifest import LabelledClips
from avrecog.models.base import ModelConfig
from avrecog.models.example import example_batch
from avrecog.runtime.device import oom_advice, pick_device, resolve_precision
from avrecog.runtime.distributed import processes
from avrecog.runtime.files import atomic_path, sole_writer
from avrecog.tracking.history import EpochMetrics, ranking_key
from avrecog.tracking.outcome import Outcome
from avrecog.training.loop import Trainer, check_a_gpu_each
from avrecog.training.rehearsal import SMALLER, rehearse, say_missing_engines
from avrecog.training.resume import Session
from avrecog.training.settings import TrainConfig, resolve_train_config
from avrecog.training.signals import StopSignals
from avrecog.training.warm_start import initial_model, set_input_norm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTask:
    """A model to train: what, on what, and where to."""

    name: str
    config: ModelConfig  # its section below `models`
    train: TrainConfig  # section `train`, before the model's own overrides
    front_end: FrontEnd  # sections `audio` and `video`
    data: Path  # folder of the manifest, the splits, the labels and `features`
    out: Path  # folder of the checkpoints


@dataclass(frozen=True)
class _Prepared:
    """A model at its beginning, and the clips that it learns from and is validated on."""

    model: nn.Module
    fresh: list[str]  # its tensors that did not come from `init_from`
    train: OpenSplit
    val: OpenSplit
    description: dict[str, Any]  # what every checkpoint says of the model
    digest: str  # of all that the training hangs on


def train_model(task: TrainingTask, log_epoch: Callable[[int, EpochMetrics], None]) -> Outcome:
    """Train a model and write `best.ckpt`, `last.ckpt`, `history.csv` and `config.yaml` into `task.out`.

    A training that was stopped by a signal goes on from its last step, one that was killed from its last epoch or, in
    long epochs, from what was saved at most ten minutes before; one that ended at `train.max_hours` from there once
    that is raised. A finished one, or one of other parameters or data, is begun anew.

    Under torchrun all processes call this, and the first one writes.

    Args:
        task: the model, its data and its folder.
        log_epoch: called with the step and the numbers of each epoch.

    Raises:
        ConfigError: if an override is wrong or the front end doesn't suit the model.
        LockError: if another process is training into `task.out`.
        TrainingError: if the loss explodes, or `train.max_hours` ends before the first validation.
        OutOfMemoryError: if the device can't hold the batch.
    """
    in_force, overridden = resolve_train_config(task.train, task.config.train, task.name)
    _say_what_is_in_force(task.name, in_force, overridden)
    task = replace(task, train=in_force)
    tables = LabelledClips.read(task.data)
    here = processes()
    lock = sole_writer(task.out) if here.is_main else contextlib.nullcontext()
    with lock, StopSignals(alone=here.n == 1) as signals:
        return _train(task, tables, log_epoch, signals)


def _train(
    task: TrainingTask, tables: LabelledClips, log_epoch: Callable[[int, EpochMetrics], None], signals: StopSignals
) -> Outcome:
    """Train; on a signal, save the state and do what it asks for.

    Raises:
        TrainingError: if the loss explodes, or the time ends before the first validation.
    """
    began = time.perf_counter()
    here = processes()
    check_a_gpu_each(here)
    ready = _prepare(task, tables)
    trainer = Trainer(ready.model, task.train, here)
    session = Session(
        trainer,
        task.train,
        task.out,
        description=ready.description,
        digest=ready.digest,
        signals=signals,
        log_epoch=log_epoch,
    )
    if here.is_main:
        _write_config(task)
    bar = tqdm(
        total=task.train.epochs,
        initial=session.first_epoch,
        unit="epoch",
        desc=f"train {task.name}",
        mininterval=1,
        disable=not here.is_main,
    )
    with bar:
        try:
            finished = trainer.fit(ready.train.clips, ready.val.clips, session.after_epoch, bar, session)
        except DivergedError as error:
            raise session.diverged(error) from None
    if not finished:
        session.stopped()
    return _outcome(task, ready, trainer, session, time.perf_counter() - began)


def _prepare(task: TrainingTask, tables: LabelledClips) -> _Prepared:
    """The model at its beginning and its clips, after one batch has been tried."""
    config, train, front_end = task.config, task.train, task.front_end
    model_input = config.input()
    features = open_features(model_input, front_end, task.data / "features", tables)
    splits = (open_split(model_input, features, "train", train.augment), open_split(model_input, features, "val"))
    clips = splits[0].clips
    torch.manual_seed(train.seed)
    classes = list(model_input.classes or tables.classes)
    model, fresh = initial_model(config, front_end, len(classes))
    begins_anew = config.init_from in (None, "imagenet") or "standardise.mean" in fresh
    if begins_anew and isinstance(clips, HasLogMel):  # frames are standardised by constants
        set_input_norm(model, clips)
    example = example_batch(model_input.tensors(front_end), 2, torch.device("cpu"))
    _rehearse(task, model, clips, example, len(classes))
    if processes().is_main and not config.exports:
        section = {key: value for key, value in plain(config).items() if key not in ("init_from", "train")}
        shapes = [list(value.shape) for value in example]
        say_missing_engines(task.name, model, example, [section, shapes, len(classes)])
    description = {
        "model": task.name,
        "config": plain(config),
        "classes": classes,
        "front_end": plain({"audio": front_end.audio, "video": front_end.video}),
        # the median: what the benchmark takes for a clip
        "typical_rows": int(np.median(features.stored.lengths(clips.clip_ids))),
    }
    digest = _digest(description, plain(train), config.init_from, splits)
    return _Prepared(model, fresh, *splits, description, digest)


def _outcome(task: TrainingTask, ready: _Prepared, trainer: Trainer, session: Session, seconds: float) -> Outcome:
    """What the stage has to say.

    Raises:
        TrainingError: if no epoch was validated.
    """
    train, clips = task.train, ready.train.clips
    validated = [row for row in trainer.history if "val_top1" in row]
    if not validated:
        raise TrainingError(
            f"train.max_hours ({train.max_hours:g}) ended before the first validation; raise it, and the training goes "
            f"on, or lower train.val_interval"
        )
    best = max(validated, key=ranking_key)
    metrics: dict[str, float | None] = {
        "val.top1": best["val_top1"],
        "val.loss": best["val_loss"],
        "best_epoch": best["epoch"],
        "n_train": len(clips),
        "n_val": len(ready.val.clips),
        "n_left_out": len(ready.train.left_out) + len(ready.val.left_out),
        "n_shorter_than_window": int(getattr(clips, "n_shorter", 0)),
        "n_one_sided": int(getattr(clips, "n_one_sided", 0)),
        "parameters": sum(parameter.numel() for parameter in ready.model.parameters()),
        "samples_per_s": len(clips) * (trainer.epochs_done - session.first_epoch) / seconds,
    }
    finished = trainer.epochs_done == train.epochs
    done = f"{train.epochs} epochs" if finished else f"{trainer.epochs_done} of {train.epochs} epochs"
    summary = (
        f"{task.name}, {done} of {metrics['n_train']:,} clips in {seconds:.0f} s: val top-1 "
        f"{metrics['val.top1']:.3f} at epoch {metrics['best_epoch']:.0f} -> {task.out}; "
        f"{len(ready.train.left_out)} training clips lack what the model needs, "
        f"{metrics['n_shorter_than_window']} are padded to its window"
    )
    here = processes()
    facts = {"precision": str(resolve_precision(train.precision)), "seed": str(train.seed), "processes": str(here.n)}
    if session.code_changed:
        facts["code_changed"] = "true"
    if not finished:
        facts["stopped_by"] = "train.max_hours"
    if ready.fresh:
        facts["fresh_weights"] = ", ".join(ready.fresh)[:500]
    return Outcome(summary, metrics, files=[task.out / "history.csv", task.out / "config.yaml"], facts=facts)


def _rehearse(
    task: TrainingTask, model: nn.Module, clips: ClipDataset[Any], example: Sequence[Tensor], n_classes: int
) -> None:
    """Try a step on the first two clips, or twice the one there is, which fit refuses where that isn't enough.

    Raises:
        ConfigError: if the model fails.
        OutOfMemoryError: if the device can't hold it.
    """
    device, train = pick_device(), task.train
    torch.use_deterministic_algorithms(train.deterministic)  # which not every layer has on a GPU
    with oom_advice(SMALLER):
        batch = clips.training_batch(np.arange(2) % len(clips), clips.draw(train.seed, 0), device)
    rehearse(
        model,
        batch,
        example,
        n_classes=n_classes,
        device=device,
        precision=resolve_precision(train.precision),
        what=f"models.{task.name}: backbone {task.config.describe()}",
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()  # which PyTorch would keep for tensors of these sizes


def _say_what_is_in_force(name: str, train: TrainConfig, overridden: Sequence[str]) -> None:
    log.info(
        "train %s: lr %g = %g x %d / %d (linear scaling), %s, %d epochs, precision %s%s",
        name,
        train.scaled_lr,
        train.lr,
        train.batch_size,
        train.base_batch_size,
        train.optimizer,
        train.epochs,
        resolve_precision(train.precision),
        "; overridden: " + ", ".join(overridden) if overridden else "",
    )


def _digest(
    description: Mapping[str, Any], train: Mapping[str, Any], init_from: str | None, splits: Sequence[OpenSplit]
) -> str:
    """What a training hangs on: parameters, clips, labels and stored rows. Another digest means another training."""
    train = {key: value for key, value in train.items() if key != "max_hours"}  # raising it goes on
    clips = [[list(split.clips.clip_ids), split.clips.labels.tolist(), split.fingerprint] for split in splits]
    begun_from = None
    if init_from not in (None, "imagenet"):
        begun_from = hashlib.sha256(Path(init_from).read_bytes()).hexdigest()
    text = json.dumps([description, train, clips, begun_from], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_config(task: TrainingTask) -> None:
    """The resolved configuration, for people and for the rows that are compared, and what model it makes."""
    config = task.config
    resolved = {
        "backbone": config.describe(),
        "inputs": list(config.input().modalities),
        "models": {task.name: {key: value for key, value in plain(config).items() if key != "train"}},
        "train": plain(task.train),
        "audio": plain(task.front_end.audio),
        "video": plain(task.front_end.video),
    }
    yaml = YAML()
    with atomic_path(task.out / "config.yaml") as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(resolved, file)
