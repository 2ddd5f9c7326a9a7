"""The training loop: it knows batches, a model and a recipe, and is handed what to do at the end of an epoch."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from avrecog.datasets.augment import draw_mixup
from avrecog.datasets.clips import ClipDataset, epoch_generator
from avrecog.errors import TrainingError
from avrecog.hardware import on_device, precision_in_force
from avrecog.metrics import log_loss, top_k_accuracy
from avrecog.predict import predict_scores
from avrecog.training.optim import WeightAverage, learning_rate, make_optimizer
from avrecog.training.settings import TrainConfig

Row = dict[str, float]


class Trainer:
    """Trains a model epoch by epoch; `state` and `load_state` hold all that going on needs."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Put the model on the device and make its optimiser."""
        self.config = config
        self.fabric = Fabric(accelerator="auto", devices=1, precision=cast(Any, precision_in_force(config.precision)))
        torch.use_deterministic_algorithms(config.deterministic)
        torch.backends.cudnn.benchmark = not config.deterministic
        self.device = self.fabric.device
        self.bare_model = on_device(model, self.device)
        optimizer = make_optimizer(self.bare_model, config)
        run_model = torch.compile(self.bare_model) if config.compile else self.bare_model
        self.model, self.optimizer = self.fabric.setup(run_model, optimizer)
        self.average = WeightAverage(self.bare_model, config.ema_decay) if config.ema_decay is not None else None
        self.history: list[Row] = []

    @property
    def epochs_done(self) -> int:
        """How many epochs are behind."""
        return len(self.history)

    def fit(
        self,
        train: ClipDataset[Any],
        val: ClipDataset[Any],
        after_epoch: Callable[[Row], None],
        progress: tqdm,  # type: ignore[type-arg]
    ) -> None:
        """Train the epochs that are left; `after_epoch` is called with the newest row of the history after each.

        Raises:
            TrainingError: if the loss stops being a finite number.
        """
        while self.epochs_done < self.config.epochs:
            row = self._epoch(train, progress)
            last = self.epochs_done + 1 == self.config.epochs
            if last or (self.epochs_done + 1) % self.config.val_interval == 0:
                row |= self.validate(val)
            self.history.append(row)
            after_epoch(row)
            shown = {"loss": f"{row['train_loss']:.3f}", "val": f"{row['val_top1']:.3f}" if "val_top1" in row else "-"}
            progress.set_postfix(shown)
            progress.update()

    def evaluated_weights(self) -> dict[str, Tensor]:
        """The weights that are tested: the average where one is kept, on the CPU, in plain memory order."""
        weights = self.average.weights if self.average is not None else self.bare_model.state_dict()
        return {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}

    def state(self) -> dict[str, Any]:
        """All that going on needs, beside the datasets and the configuration."""
        return {
            "model": self.bare_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.bare_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.history = list(state["history"])

    def validate(self, val: ClipDataset[Any]) -> Row:
        """Loss and top-1 of the evaluated weights on the middle view of each clip."""
        current = {name: value.clone() for name, value in self.bare_model.state_dict().items()} if self.average else {}
        if self.average is not None:
            self.bare_model.load_state_dict(self.average.weights)
        self.bare_model.eval()
        with self.fabric.autocast():
            probabilities = predict_scores(self.bare_model, val, 1, self.config.batch_size, self.device, "prob")
        self.bare_model.train()
        if self.average is not None:
            self.bare_model.load_state_dict(current)
        return {
            "val_loss": log_loss(probabilities, val.labels),
            "val_top1": top_k_accuracy(probabilities, val.labels, 1),
        }

    def _epoch(self, train: ClipDataset[Any], progress: tqdm) -> Row:  # type: ignore[type-arg]
        config, epoch = self.config, self.epochs_done
        order = epoch_generator(config.seed, epoch, 0).permutation(len(train))
        batches = np.array_split(order, math.ceil(len(train) / config.batch_size))
        draw = train.draw(config.seed, epoch)
        alpha = config.augment.mixup_alpha
        mixup = draw_mixup(epoch_generator(config.seed, epoch, 2), len(train), alpha) if alpha > 0 else None
        torch.manual_seed(config.seed * 1_000_003 + epoch)  # dropout; a restart draws the same
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        n_right = torch.zeros((), device=self.device)
        for number, indices in enumerate(batches):
            lr = learning_rate(epoch + (number + 0.5) / len(batches), config)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            inputs = train.training_batch(indices, draw, self.device)
            labels = torch.from_numpy(train.labels[indices]).to(self.device)
            if mixup is None:
                logits = self.model(*inputs)
                loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            else:
                partner = mixup.partner[indices]
                weight = torch.from_numpy(mixup.weight[indices]).to(self.device)
                others = train.training_batch(partner, draw, self.device)
                logits = self.model(*(_mixed(mine, other, weight) for mine, other in zip(inputs, others, strict=True)))
                other_labels = torch.from_numpy(train.labels[partner]).to(self.device)
                smoothing = config.label_smoothing
                own = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
                theirs = functional.cross_entropy(logits, other_labels, reduction="none", label_smoothing=smoothing)
                loss = (weight * own + (1 - weight) * theirs).mean()
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            if config.clip_grad_norm is not None:
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=config.clip_grad_norm, error_if_nonfinite=False
                )
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.bare_model)
            loss_sum += loss.detach() * len(indices)
            n_right += (logits.detach().argmax(dim=1) == labels).sum()
            progress.set_postfix_str(f"batch {number + 1}/{len(batches)}", refresh=False)
        train_loss = float(loss_sum) / len(train)
        if not math.isfinite(train_loss):
            raise TrainingError(
                f"the training loss of epoch {epoch + 1} is {train_loss}; lower train.lr (in force: "
                f"{config.scaled_lr:g}) or raise train.warmup_epochs"
            )
        return {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, "train_top1": float(n_right) / len(train)}


def _mixed(mine: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    weight = weight.reshape(-1, *[1] * (mine.ndim - 1))
    return weight * mine + (1 - weight) * other
