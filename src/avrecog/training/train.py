"""Stage train: one model of the matrix, from stores to checkpoints."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
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
from avrecog.runtime.device import explained_out_of_memory, pick_device, precision_in_force
from avrecog.runtime.distributed import processes
from avrecog.runtime.files import atomic_path, sole_writer
from avrecog.tracking.history import Row, merit
from avrecog.tracking.outcome import Outcome
from avrecog.training.loop import Trainer, check_a_gpu_each
from avrecog.training.rehearsal import SMALLER, rehearse, say_missing_engines
from avrecog.training.resume import Session
from avrecog.training.settings import TrainConfig, settings_in_force
from avrecog.training.signals import StopSignals
from avrecog.training.warm_start import initial_model, standardise_inputs

log = logging.getLogger(__name__)


def train_model(
    name: str,
    config: ModelConfig,
    train: TrainConfig,
    front_end: FrontEnd,
    data: Path,
    out: Path,
    log_epoch: Callable[[int, Row], None],
) -> Outcome:
    """Train model `name` and write `best.ckpt`, `last.ckpt`, `history.csv` and `config.yaml` into `out`.

    A training that was stopped by a signal goes on from its last step, one that was killed from its last epoch or, in
    long epochs, from what was saved at most ten minutes before; one that ended at `train.max_hours` from there once
    that is raised. A finished one, or one of other parameters or data, is begun anew.

    Under torchrun all processes call this, and the first one writes.

    Args:
        name: the model's name.
        config: its section below `models`.
        train: section `train`, before the model's own overrides.
        front_end: sections `audio` and `video`.
        data: the folder of the manifest, the splits, the labels and `features`.
        out: the folder of the checkpoints.
        log_epoch: called with the step and the numbers of each epoch.

    Raises:
        ConfigError: if an override is wrong or the front end doesn't suit the model.
        LockError: if another process is training into `out`.
        TrainingError: if the loss explodes, or `train.max_hours` ends before the first validation.
        OutOfMemoryError: if the device can't hold the batch.
    """
    in_force, overridden = settings_in_force(train, config.train, name)
    _say_what_is_in_force(name, in_force, overridden)
    tables = LabelledClips.read(data)
    here = processes()
    with sole_writer(out) if here.is_first else contextlib.nullcontext(), StopSignals(alone=here.n == 1) as signals:
        return _train(name, config, in_force, front_end, tables, data / "features", out, log_epoch, signals)


def _train(
    name: str,
    config: ModelConfig,
    train: TrainConfig,
    front_end: FrontEnd,
    tables: LabelledClips,
    features: Path,
    out: Path,
    log_epoch: Callable[[int, Row], None],
    signals: StopSignals,
) -> Outcome:
    """Train; on a signal, save the state and do what it asks for.

    Raises:
        TrainingError: if the loss explodes, or the time ends before the first validation.
    """
    began = time.perf_counter()
    here = processes()
    check_a_gpu_each(here)
    model_input = config.input()
    stored = open_features(model_input, front_end, features, tables)
    train_split = open_split(model_input, stored, "train", train.augment)
    val_split = open_split(model_input, stored, "val")
    train_clips = train_split.clips
    torch.manual_seed(train.seed)
    classes = list(model_input.classes or tables.classes)
    model, fresh = initial_model(config, front_end, len(classes))
    begins_anew = config.init_from in (None, "imagenet") or "standardise.mean" in fresh
    if begins_anew and isinstance(train_clips, HasLogMel):  # frames are standardised by constants
        standardise_inputs(model, train_clips)
    example = example_batch(model_input.tensors(front_end), 2, torch.device("cpu"))
    _rehearse(name, config, model, train_clips, example, len(classes), train)
    if here.is_first and not config.exports:
        section = {key: value for key, value in plain(config).items() if key not in ("init_from", "train")}
        say_missing_engines(name, model, example, [section, [list(value.shape) for value in example], len(classes)])
    trainer = Trainer(model, train, here)
    description = {
        "model": name,
        "config": plain(config),
        "classes": classes,
        "front_end": plain({"audio": front_end.audio, "video": front_end.video}),
        # the median: what the benchmark takes for a clip
        "typical_rows": int(np.median(stored.stored.lengths(train_clips.clip_ids))),
    }
    digest = _digest(description, plain(train), config.init_from, (train_split, val_split))
    session = Session(trainer, train, out, description, digest, signals, log_epoch)
    if here.is_first:
        _write_config(out / "config.yaml", name, config, train, front_end)
    bar = tqdm(
        total=train.epochs,
        initial=session.first_epoch,
        unit="epoch",
        desc=f"train {name}",
        mininterval=1,
        disable=not here.is_first,
    )
    with bar:
        try:
            finished = trainer.fit(train_clips, val_split.clips, session.after_epoch, bar, session)
        except DivergedError as error:
            raise session.diverged(error) from None
    if not finished:
        session.stopped()
    validated = [row for row in trainer.history if "val_top1" in row]
    if not validated:
        raise TrainingError(
            f"train.max_hours ({train.max_hours:g}) ended before the first validation; raise it, and the training goes "
            f"on, or lower train.val_interval"
        )
    seconds = time.perf_counter() - began
    best_row = max(validated, key=merit)
    n_shorter = int(getattr(train_clips, "n_shorter", 0))
    n_one_sided = int(getattr(train_clips, "n_one_sided", 0))
    done = f"{train.epochs} epochs" if finished else f"{trainer.epochs_done} of {train.epochs} epochs"
    summary = (
        f"{name}, {done} of {len(train_clips):,} clips in {seconds:.0f} s: val top-1 "
        f"{best_row['val_top1']:.3f} at epoch {best_row['epoch']:.0f} -> {out}; "
        f"{len(train_split.left_out)} training clips lack what the model needs, {n_shorter} are padded to its window"
    )
    metrics: dict[str, float | None] = {
        "val.top1": best_row["val_top1"],
        "val.loss": best_row["val_loss"],
        "best_epoch": best_row["epoch"],
        "n_train": len(train_clips),
        "n_val": len(val_split.clips),
        "n_left_out": len(train_split.left_out) + len(val_split.left_out),
        "n_shorter_than_window": n_shorter,
        "n_one_sided": n_one_sided,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "samples_per_s": len(train_clips) * (trainer.epochs_done - session.first_epoch) / seconds,
    }
    facts = {"precision": str(precision_in_force(train.precision)), "seed": str(train.seed), "processes": str(here.n)}
    if session.code_changed:
        facts["code_changed"] = "true"
    if not finished:
        facts["stopped_by"] = "train.max_hours"
    if fresh:
        facts["fresh_weights"] = ", ".join(fresh)[:500]
    return Outcome(summary, metrics, files=[out / "history.csv", out / "config.yaml"], facts=facts)


def _rehearse(
    name: str,
    config: ModelConfig,
    model: nn.Module,
    clips: ClipDataset[Any],
    example: Sequence[Tensor],
    n_classes: int,
    train: TrainConfig,
) -> None:
    """Try a step on the first two clips, or twice the one there is, which fit refuses where that isn't enough.

    Raises:
        ConfigError: if the model fails.
        OutOfMemoryError: if the device can't hold it.
    """
    device = pick_device()
    torch.use_deterministic_algorithms(train.deterministic)  # which not every layer has on a GPU
    what = f"models.{name}: backbone {config.describe()}"
    with explained_out_of_memory(SMALLER):
        batch = clips.training_batch(np.arange(2) % len(clips), clips.draw(train.seed, 0), device)
    rehearse(model, batch, example, n_classes, device, precision_in_force(train.precision), what)
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
        precision_in_force(train.precision),
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


def _write_config(path: Path, name: str, config: ModelConfig, train: TrainConfig, front_end: FrontEnd) -> None:
    """The resolved configuration, for people and for the rows that are compared, and what model it makes."""
    resolved = {
        "backbone": config.describe(),
        "inputs": list(config.input().modalities),
        "models": {name: {key: value for key, value in plain(config).items() if key != "train"}},
        "train": plain(train),
        "audio": plain(front_end.audio),
        "video": plain(front_end.video),
    }
    yaml = YAML()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(resolved, file)
