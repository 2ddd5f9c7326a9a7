"""Stage train: one model of the matrix, from stores to checkpoints."""

import csv
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
from avrecog.errors import CheckpointError
from avrecog.hardware import precision_in_force
from avrecog.inputs import FrontEnd, LabelledClips, open_split, open_store, standardise_inputs
from avrecog.models.build import ModelConfig, build_model
from avrecog.outcome import Outcome
from avrecog.training.loop import Row, Trainer
from avrecog.training.settings import TrainConfig, settings_in_force

log = logging.getLogger(__name__)

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

    A training that was killed goes on from its last epoch; a finished one, or one of other parameters or data, is begun
    anew.

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
    """
    in_force, overridden = settings_in_force(train, config.train, name)
    _say_what_is_in_force(name, in_force, overridden)
    tables = LabelledClips.read(data)
    with sole_writer(out):
        return _train(name, config, in_force, front_end, tables, data / "features", out, log_epoch)


def _train(
    name: str,
    config: ModelConfig,
    train: TrainConfig,
    front_end: FrontEnd,
    tables: LabelledClips,
    features: Path,
    out: Path,
    log_epoch: Callable[[int, Row], None],
) -> Outcome:
    began = time.perf_counter()
    train_clips, n_left_out = open_split(config, front_end, features, tables, "train", train.augment)
    val_clips, n_val_left_out = open_split(config, front_end, features, tables, "val", AugmentConfig())
    torch.manual_seed(train.seed)
    model, fresh = _initial_model(config, len(tables.classes))
    if config.init_from is None:
        standardise_inputs(model, config, train_clips)
    trainer = Trainer(model, train)
    description = {
        "model": name,
        "config": plain(config),
        "classes": list(tables.classes),
        "front_end": plain({"audio": front_end.audio, "video": front_end.video}),
        "typical_rows": _typical_rows(config, front_end, features, train_clips.clip_ids),
    }
    digest = _digest(
        description, plain(train), train_clips, val_clips, open_store(config, front_end, features).settings
    )
    best = _resume(trainer, out, digest)
    _write_config(out / "config.yaml", name, config, train, front_end)

    def after_epoch(row: Row) -> None:
        nonlocal best
        finished = trainer.epochs_done == train.epochs
        checkpoint = {
            **description,
            "weights": trainer.evaluated_weights(),
            "epoch": int(row["epoch"]),
            "metrics": dict(row),
        }
        if "val_top1" in row and (row["val_top1"], -row["val_loss"]) > best:
            best = (row["val_top1"], -row["val_loss"])
            save_checkpoint(out / "best.ckpt", checkpoint)
        if not finished:
            checkpoint["state"] = {**trainer.state(), "digest": digest, "code": _code_digest(), "best": list(best)}
        _write_history(out / "history.csv", trainer.history)
        save_checkpoint(out / "last.ckpt", checkpoint)
        log_epoch(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})

    first_epoch = trainer.epochs_done
    progress = tqdm(total=train.epochs, initial=first_epoch, unit="epoch", desc=f"train {name}", mininterval=1)
    trainer.fit(train_clips, val_clips, after_epoch, progress)
    progress.close()
    seconds = time.perf_counter() - began
    best_row = max(
        (row for row in trainer.history if "val_top1" in row), key=lambda row: (row["val_top1"], -row["val_loss"])
    )
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    n_shorter = int(getattr(train_clips, "n_shorter", 0))
    summary = (
        f"{name}, {train.epochs} epochs of {len(train_clips):,} clips in {seconds:.0f} s: val top-1 "
        f"{best_row['val_top1']:.3f} at epoch {best_row['epoch']:.0f} -> {out}; {n_left_out} training clips lack "
        f"what the model needs, {n_shorter} are shorter than its window"
    )
    metrics: dict[str, float | None] = {
        "val.top1": best_row["val_top1"],
        "val.loss": best_row["val_loss"],
        "best_epoch": best_row["epoch"],
        "n_train": len(train_clips),
        "n_val": len(val_clips),
        "n_left_out": n_left_out + n_val_left_out,
        "n_shorter_than_window": n_shorter,
        "parameters": n_parameters,
        "samples_per_s": len(train_clips) * (train.epochs - first_epoch) / seconds,
    }
    facts = {"precision": str(precision_in_force(train.precision)), "seed": str(train.seed)}
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


def _initial_model(config: ModelConfig, n_classes: int) -> tuple[nn.Module, list[str]]:
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
    fresh = transfer_weights(model, load_checkpoint(path)["weights"], str(path))
    log.info("begun from %s; new: %s", path, ", ".join(fresh) or "nothing, all weights were taken")
    return model, fresh


def _typical_rows(config: ModelConfig, front_end: FrontEnd, features: Path, clip_ids: Sequence[str]) -> int:
    """The median number of store rows of the training clips: what the benchmark takes for a clip."""
    store = open_store(config, front_end, features)
    return int(np.median(store.n_rows[store.positions(clip_ids)]))


def _digest(description: Mapping[str, Any], train: Any, train_clips: Any, val_clips: Any, store_settings: Any) -> str:
    """What a training hangs on: parameters, clips, labels and store. Another digest means another training."""
    clips = [list(map(str, part.clip_ids)) + part.labels.tolist() for part in (train_clips, val_clips)]
    text = json.dumps([description, train, clips, store_settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_digest() -> str:
    """Of the library's own source files."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _resume(trainer: Trainer, out: Path, digest: str) -> tuple[float, float]:
    """Bring the trainer to where a killed training of the same digest was; (best val top-1, minus its loss) so far.

    Anything else in `out` is removed.
    """
    if (out / "last.ckpt").exists():
        reason = ""
        state: dict[str, Any] = {}
        try:
            state = load_checkpoint(out / "last.ckpt").get("state", {})
            if not state:
                reason = "it was finished"
            elif state["digest"] != digest:
                reason = "its parameters or data were others"
        except CheckpointError as error:
            reason = str(error)
        if not reason:
            if state["code"] != _code_digest():
                log.warning("%s: the code has changed since this training began", out)
            trainer.load_state(state)
            log.info("%s: going on after epoch %d", out, trainer.epochs_done)
            best_top1, best_loss = state["best"]
            return best_top1, best_loss
        log.info("%s: the training there is not gone on with: %s; begun anew", out, reason)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return (-1.0, 0.0)


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
