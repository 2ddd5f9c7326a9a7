"""Stage train: one model of the matrix, from stores to checkpoints."""

import contextlib
import csv
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import nn
from tqdm import tqdm

from avrecog.atomic import atomic_path, sole_writer
from avrecog.checkpoints import load_checkpoint, save_checkpoint, transfer_weights
from avrecog.config import plain
from avrecog.datasets.augment import AugmentConfig
from avrecog.errors import CheckpointError, DivergedError, TrainingError
from avrecog.hardware import precision_in_force
from avrecog.inputs import FrontEnd, LabelledClips, OpenSplit, open_split, open_store, standardise_inputs
from avrecog.models.build import ModelConfig, build_model
from avrecog.outcome import Outcome
from avrecog.processes import processes
from avrecog.training.loop import Control, Row, Trainer
from avrecog.training.settings import TrainConfig, settings_in_force
from avrecog.training.stopping import StopSignals

log = logging.getLogger(__name__)

STATE = {"digest", "code", "best", "seconds", "ended", "steps_done", "sums"}  # what goes with the trainer's own state

SAVE_EVERY_S = 600  # within an epoch

HISTORY_COLUMNS = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1")


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
    train_split = open_split(config, front_end, features, tables, "train", train.augment)
    val_split = open_split(config, front_end, features, tables, "val", AugmentConfig())
    train_clips, val_clips = train_split.clips, val_split.clips
    torch.manual_seed(train.seed)
    model, fresh = _initial_model(config, front_end, len(tables.classes))
    if config.init_from in (None, "imagenet"):
        standardise_inputs(model, config, train_clips)
    here = processes()
    trainer = Trainer(model, train, here)
    description = {
        "model": name,
        "config": plain(config),
        "classes": list(tables.classes),
        "front_end": plain({"audio": front_end.audio, "video": front_end.video}),
        "typical_rows": _typical_rows(config, front_end, features, train_clips.clip_ids),
    }
    digest = _digest(description, plain(train), config.init_from, (train_split, val_split))
    limit_s = math.inf if train.max_hours is None else train.max_hours * 3600
    progress = _take_up(trainer, out, digest, limit_s)
    if here.is_first:
        _write_config(out / "config.yaml", name, config, train, front_end)

    def seconds_so_far() -> float:
        return progress.seconds + time.perf_counter() - began

    def checkpoint(finished: bool, ended: bool = False) -> dict[str, Any]:
        content = {
            **description,
            "weights": trainer.evaluated_weights(),
            "epoch": trainer.epochs_done,
            "metrics": dict(trainer.history[-1]) if trainer.history else {},
        }
        if not finished:
            content["state"] = {
                **trainer.state(),
                "digest": digest,
                "code": _code_digest(),
                "best": list(progress.best),
                "seconds": seconds_so_far(),
                "ended": ended,  # at max_hours
            }
        return content

    def after_epoch(row: Row) -> None:
        if not here.is_first:
            return
        if "val_top1" in row and (row["val_top1"], -row["val_loss"]) > progress.best:
            progress.best = (row["val_top1"], -row["val_loss"])
            save_checkpoint(out / "best.ckpt", checkpoint(finished=True))
        _write_history(out / "history.csv", trainer.history)
        save_checkpoint(out / "last.ckpt", checkpoint(finished=trainer.epochs_done == train.epochs))
        log_epoch(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})

    class Between(Control):
        saved_at = time.monotonic()

        def should_stop(self) -> bool:
            return signals.received is not None or seconds_so_far() > limit_s

        def should_save(self) -> bool:
            return here.is_first and time.monotonic() - self.saved_at > SAVE_EVERY_S

        def save(self) -> None:
            self.saved_at = time.monotonic()
            if here.is_first:
                save_checkpoint(out / "last.ckpt", checkpoint(finished=False))

    first_epoch = trainer.epochs_done
    bar = tqdm(
        total=train.epochs,
        initial=first_epoch,
        unit="epoch",
        desc=f"train {name}",
        mininterval=1,
        disable=not here.is_first,
    )
    try:
        finished = trainer.fit(train_clips, val_clips, after_epoch, bar, Between())
    except DivergedError as error:
        path = out.with_name(f"{out.name}.diverged.ckpt")
        if here.is_first:
            save_checkpoint(path, checkpoint(finished=False))
        kept = f", that of the last whole epoch in {out}/last.ckpt" if trainer.history else ""
        raise TrainingError(f"{error}; the state at that moment is in {path}{kept}") from None
    finally:
        bar.close()
    if not finished:
        signals.wait()
        received = [number for number in here.gather(signals.received) if number is not None]
        if here.is_first:
            save_checkpoint(out / "last.ckpt", checkpoint(finished=False, ended=not received))
            log.info("%s: stopped after epoch %d, step %d; saved", out, trainer.epochs_done, trainer.steps_done)
        if received:
            signals.act(received[0])
    validated = [row for row in trainer.history if "val_top1" in row]
    if not validated:
        raise TrainingError(
            f"train.max_hours ({train.max_hours:g}) ended before the first validation; raise it, and the training goes "
            f"on, or lower train.val_interval"
        )
    seconds = time.perf_counter() - began
    best_row = max(validated, key=lambda row: (row["val_top1"], -row["val_loss"]))
    n_shorter = int(getattr(train_clips, "n_shorter", 0))
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
        "n_val": len(val_clips),
        "n_left_out": len(train_split.left_out) + len(val_split.left_out),
        "n_shorter_than_window": n_shorter,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "samples_per_s": len(train_clips) * (trainer.epochs_done - first_epoch) / seconds,
    }
    facts = {"precision": str(precision_in_force(train.precision)), "seed": str(train.seed), "processes": str(here.n)}
    if progress.code_changed:
        facts["code_changed"] = "true"
    if not finished:
        facts["stopped_by"] = "train.max_hours"
    if fresh:
        facts["fresh_weights"] = ", ".join(fresh)[:500]
    files = [out / "history.csv", out / "config.yaml"]
    return Outcome(summary, metrics, files=files, facts=facts)


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


def _check_origin(checkpoint: Mapping[str, Any], config: ModelConfig, front_end: FrontEnd, path: Path) -> None:
    """Refuse a checkpoint of another network; warn where it learned from log-mel or frames of other settings.

    Raises:
        CheckpointError: naming what differs.
    """
    own, given = plain(config), checkpoint["config"]
    for key in ("architecture", "backbone", "depth", "width", "snippet", "motion"):
        if key in own and own[key] != given.get(key):
            raise CheckpointError(f"{path}: is of {key} {given.get(key)}, expected {own[key]}, to begin from it")
    name = "audio" if config.architecture == "audio" else "video"
    if checkpoint["front_end"].get(name) != plain(getattr(front_end, name)):
        log.warning("%s: was trained on another section `%s` than params.yaml has", path, name)


def _initial_model(config: ModelConfig, front_end: FrontEnd, n_classes: int) -> tuple[nn.Module, list[str]]:
    """The model before training, and which of its tensors did not come from `init_from`."""
    model = build_model(config, n_classes, pretrained=config.init_from == "imagenet")
    if config.init_from is None:
        return model, []
    if config.init_from == "imagenet":
        log.info(
            "begun from timm's ImageNet weights of %s; the classifier is new, for %d classes",
            config.backbone,
            n_classes,
        )
        return model, ["classifier"]
    path = Path(config.init_from)
    checkpoint = load_checkpoint(path)
    _check_origin(checkpoint, config, front_end, path)
    fresh = transfer_weights(model, checkpoint["weights"], str(path))
    log.info("begun from %s; new: %s", path, ", ".join(fresh) or "nothing, all weights were taken")
    return model, fresh


def _typical_rows(config: ModelConfig, front_end: FrontEnd, features: Path, clip_ids: Sequence[str]) -> int:
    """The median number of store rows of the training clips: what the benchmark takes for a clip."""
    store = open_store(config, front_end, features)
    return int(np.median(store.n_rows[store.positions(clip_ids)]))


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


def _code_digest() -> str:
    """Of the library's own source files."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass
class _Progress:
    """How far a training had come before this process, beside what the trainer knows."""

    best: tuple[float, float] = (-1.0, 0.0)  # the highest val top-1, minus its loss
    seconds: float = 0.0  # spent before
    code_changed: bool = False  # since it began


def _take_up(trainer: Trainer, out: Path, digest: str, limit_s: float) -> _Progress:
    """Bring the trainer to where a stopped training of the same digest was. Anything else in `out` is removed."""
    state = _state_to_go_on_from(out, digest, limit_s) if trainer.processes.is_first else None
    state = trainer.processes.from_first(state)
    if state is None:
        return _Progress()
    trainer.load_state(state)
    log.info("%s: going on after epoch %d, step %d", out, trainer.epochs_done, trainer.steps_done)
    code_changed = state["code"] != _code_digest()
    if code_changed:
        log.warning("%s: the code has changed since this training began", out)
    best_top1, best_loss = state["best"]
    return _Progress((best_top1, best_loss), state["seconds"], code_changed)


def _state_to_go_on_from(out: Path, digest: str, limit_s: float) -> dict[str, Any] | None:
    """The state in `out`, or None and an empty folder; says why."""
    if (out / "last.ckpt").exists():
        reason = ""
        state: dict[str, Any] = {}
        try:
            state = load_checkpoint(out / "last.ckpt").get("state", {})
            if not state:
                reason = "it was finished"
            elif STATE - state.keys():
                reason = "another version of avrecog wrote it"
            elif state["digest"] != digest:
                reason = "its parameters or data were others"
            elif state["ended"] and state["seconds"] >= limit_s:
                reason = "it had ended at train.max_hours"
        except CheckpointError as error:
            reason = str(error)
        if not reason:
            return state
        log.info("%s: the training there is not gone on with: %s; begun anew", out, reason)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return None


def _write_history(path: Path, history: Sequence[Row]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})


def read_history(path: Path) -> list[Row]:
    """The rows of a `history.csv`; an epoch that was not validated lacks the val columns.

    Raises:
        CheckpointError: if the file is missing or not a history.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: no training history ({error}); run `dvc repro train`") from None


def _write_config(path: Path, name: str, config: ModelConfig, train: TrainConfig, front_end: FrontEnd) -> None:
    """The resolved configuration, for people and for the rows that are compared."""
    resolved = {
        "models": {name: {key: value for key, value in plain(config).items() if key != "train"}},
        "train": plain(train),
        "audio": plain(front_end.audio),
        "video": plain(front_end.video),
    }
    yaml = YAML()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(resolved, file)
