"""The training loop: it knows batches, a model and a recipe, and is handed what to do at the end of an epoch.

Under torchrun every process runs it: each takes its share of every batch, the gradients are averaged, and batch norm
sees the whole batch, so that the number of processes changes no more than the last digits (and which units a dropout
leaves out, which every process draws for itself).
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from tqdm import tqdm

from avrecog.datasets.augment import draw_mixup
from avrecog.datasets.base import ClipDataset, epoch_generator
from avrecog.datasets.view_scores import predict_scores
from avrecog.errors import ConfigError, DivergedError
from avrecog.metrics import log_loss, top_k_accuracy
from avrecog.runtime.device import (
    lacking_to_compile,
    on_device,
    oom_advice,
    pick_device,
    resolve_precision,
)
from avrecog.runtime.distributed import Processes
from avrecog.tracking.history import EpochMetrics
from avrecog.training.batches import Batch, check_single_clip, cut, made_ahead, make_batch
from avrecog.training.optim import WeightAverage, learning_rate, make_optimizer
from avrecog.training.settings import TrainConfig
from avrecog.training.sync_batch_norm import synchronise_batch_norm

CHANCES = 1000  # a loss so many times that of guessing has exploded
GPU_CHECKS_EVERY = 20  # steps; looking at a loss waits for the GPU

OUT_OF_MEMORY = (
    "lower train.batch_size (the learning rate follows by linear scaling), the model's input (mel_frames, n_segments, "
    "crop_height, crop_width) or its width and depth, or set train.precision: bf16-mixed"
)


class Control:
    """What may be asked of a training between two steps; this one asks for nothing."""

    def should_stop(self) -> bool:
        """Whether to end here."""
        return False

    def should_save(self) -> bool:
        """Whether to save the state here and go on."""
        return False

    def save(self) -> None:
        """Save the state; every process is told, the first one writes."""


def check_a_gpu_each(processes: Processes) -> None:
    """Refuse more processes than there are GPUs, unless they compute on the CPU.

    Raises:
        ConfigError: with what to do.
    """
    n_gpus = torch.cuda.device_count() if pick_device().type == "cuda" else None
    if n_gpus is not None and processes.n_on_this_machine > n_gpus:
        raise ConfigError(
            f"torchrun: expected at most {n_gpus} processes, one for each GPU of this machine, got "
            f"{processes.n_on_this_machine}; lower --nproc-per-node, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )


class Trainer:
    """Trains a model epoch by epoch; `state` and `load_state` hold all that going on needs.

    Between two steps the state is whole, and a training that goes on from it ends on the same numbers.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, processes: Processes) -> None:
        """Put the model on the device and make its optimiser.

        Raises:
            ConfigError: if the batch norm of the model can't see the whole batch with several processes, if a
                process would have no GPU, or if the network can't be compiled here.
        """
        self.config, self.processes = config, processes
        check_a_gpu_each(processes)
        self.fabric = Fabric(
            accelerator=pick_device().type,
            devices=processes.n_on_this_machine,
            num_nodes=processes.n // processes.n_on_this_machine,
            strategy="auto" if processes.n == 1 else "ddp",
            precision=cast(Any, resolve_precision(config.precision)),
        )
        self.fabric.launch()
        torch.use_deterministic_algorithms(config.deterministic)
        torch.backends.cudnn.benchmark = not config.deterministic
        self.device = self.fabric.device
        self.reads_ahead = self.device.type == "cuda"  # on a CPU, reading would take cores from computing
        if processes.n > 1:
            model = synchronise_batch_norm(model, self.device)
        self.bare_model = on_device(model, self.device)
        optimizer = make_optimizer(self.bare_model, config)
        if config.compile and (lacking := lacking_to_compile(self.device)):
            raise ConfigError(f"train.compile: can't be done here: {lacking}, or set it to false")
        run_model = torch.compile(self.bare_model) if config.compile else self.bare_model
        self.model, self.optimizer = self.fabric.setup(run_model, optimizer)
        self.average = WeightAverage(self.bare_model, config.ema_decay) if config.ema_decay is not None else None
        self.history: list[EpochMetrics] = []
        self._begin_epoch()

    @property
    def epochs_done(self) -> int:
        """How many epochs are behind."""
        return len(self.history)

    def fit(
        self,
        train: ClipDataset[Any],
        val: ClipDataset[Any],
        after_epoch: Callable[[EpochMetrics], None],
        progress: tqdm,  # type: ignore[type-arg]
        control: Control | None = None,
    ) -> bool:
        """Train the epochs that are left; whether all are done.

        Args:
            train: clips to learn from.
            val: clips to validate on.
            after_epoch: called with the newest row of the history after each epoch.
            progress: a bar, in epochs.
            control: asked between steps whether to stop, and whether to save. Where it says stop the training ends, and
                `state` holds the epoch that is under way.

        Raises:
            DivergedError: if the loss explodes or stops being a number.
            ConfigError: if a batch has fewer clips than there are processes, or one clip, which isn't enough for the
                model's batch norms.
            KeyboardInterrupt: as it came, where `control` does not ask for it.
        """
        control = control or Control()
        if self.processes.n == 1 and min(len(train), self.config.batch_size) == 1:
            self._check_single_clip(train)
        while self.epochs_done < self.config.epochs:
            if not self._epoch(train, progress, control):
                return False
            row = self._row(len(train))
            last = self.epochs_done + 1 == self.config.epochs
            if last or (self.epochs_done + 1) % self.config.val_interval == 0:
                try:
                    row |= self.validate(val)
                except KeyboardInterrupt:
                    if self.processes.n == 1 and control.should_stop():
                        return False
                    raise
            self.history.append(row)
            self._begin_epoch()
            after_epoch(row)
            shown = {"loss": f"{row['train_loss']:.3f}", "val": f"{row['val_top1']:.3f}" if "val_top1" in row else "-"}
            progress.set_postfix(shown)
            progress.update()
        return True

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
            "scaler": self.fabric.strategy.precision.state_dict(),  # of 16-mixed
            "steps_done": self.steps_done,
            "sums": self._sums,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.bare_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.history = list(state["history"])
        self.steps_done = int(state["steps_done"])
        self._sums.copy_(state["sums"])
        if not self.processes.is_main:
            self._sums.zero_()  # the first carries what all had summed

    def validate(self, val: ClipDataset[Any]) -> EpochMetrics:
        """Loss and top-1 of the evaluated weights on the middle view of each clip."""
        weights = self.average.weights if self.average is not None else {}  # in place of the model's own, for this call
        self.bare_model.eval()
        try:
            with self.fabric.autocast(), oom_advice(OUT_OF_MEMORY):
                probabilities = predict_scores(
                    lambda *inputs: functional_call(self.bare_model, weights, inputs),
                    val,
                    n_views=1,
                    batch_size=self.config.batch_size,
                    device=self.device,
                    average="prob",
                    processes=self.processes,
                )
        finally:
            self.bare_model.train()
        return {
            "val_loss": log_loss(probabilities, val.labels),
            "val_top1": top_k_accuracy(probabilities, val.labels, 1),
        }

    def _check_single_clip(self, train: ClipDataset[Any]) -> None:
        inputs = train.training_batch(np.zeros(1, np.int64), train.draw(self.config.seed, 0), self.device)
        with self.fabric.autocast():
            check_single_clip(self.bare_model, inputs, len(train))

    def _begin_epoch(self) -> None:
        self.steps_done = 0
        self._sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # of the losses and of the right answers

    def _row(self, n_clips: int) -> EpochMetrics:
        """What the epoch under way has come to, all its steps done."""
        loss_sum, n_right = (sum(each) for each in zip(*self.processes.all_gather(self._sums.tolist()), strict=True))
        n_steps, epoch = self.steps_done, self.epochs_done
        return {
            "epoch": epoch + 1,
            "lr": learning_rate(epoch + (n_steps - 0.5) / n_steps, self.config),
            "train_loss": loss_sum / n_clips,
            "train_top1": n_right / n_clips,
        }

    def _epoch(
        self,
        train: ClipDataset[Any],
        progress: tqdm,  # type: ignore[type-arg]
        control: Control,
    ) -> bool:
        """Train the steps of an epoch that are left; False if told to stop before the last.

        Raises:
            ConfigError: if a batch has fewer clips than there are processes.
        """
        epoch, processes = self.epochs_done, self.processes
        batches = self._cut(train)
        make = self._batch_maker(train, batches)
        losses = torch.zeros(len(batches), device=self.device)
        checked = self.steps_done
        checks_every = 1 if self.device.type == "cpu" else GPU_CHECKS_EVERY
        self.model.train()
        with made_ahead(make, len(batches), self.device) if self.reads_ahead else contextlib.nullcontext(make) as take:
            for step in range(self.steps_done, len(batches)):
                if processes.n == 1 or step % checks_every == 0:
                    stop, save = self._agreed(control)
                    if stop:
                        return False
                    if save:
                        control.save()
                lr = learning_rate(epoch + (step + 0.5) / len(batches), self.config)
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                n = len(self._share(batches[step]))
                with oom_advice(OUT_OF_MEMORY):
                    batch = take(step)
                    # for dropout; the same after a restart
                    torch.manual_seed(_step_seed(self.config.seed, epoch, step, processes.rank))
                    loss, n_right = self._loss(batch)
                    losses[step] = loss.detach()
                    if (step + 1) % checks_every == 0 or step + 1 == len(batches):
                        self._check(losses[checked : step + 1], checked, batches, train)
                        checked = step + 1
                    self._update(loss * (n * processes.n / len(batches[step])))
                self._sums += torch.stack((loss.detach().double() * n, n_right.double()))
                self.steps_done = step + 1
                progress.set_postfix_str(f"batch {step + 1}/{len(batches)}", refresh=False)
        return True

    def _cut(self, train: ClipDataset[Any]) -> list[np.ndarray]:
        """The batches of the epoch under way, those of all processes.

        Raises:
            ConfigError: if one has fewer clips than there are processes.
        """
        order = epoch_generator(self.config.seed, self.epochs_done, 0).permutation(len(train))
        batches = cut(order, self.config.batch_size)
        fewest = min(len(batch) for batch in batches)
        if fewest < self.processes.n:
            raise ConfigError(
                f"params.yaml: a batch has {fewest} clips, fewer than the {self.processes.n} processes; raise "
                f"train.batch_size or start fewer"
            )
        return batches

    def _share(self, batch: np.ndarray) -> np.ndarray:
        """The clips of a batch that are for the process here."""
        return np.array_split(batch, self.processes.n)[self.processes.rank]

    def _batch_maker(self, train: ClipDataset[Any], batches: list[np.ndarray]) -> Callable[[int], Batch]:
        """What makes this process's share of the batch of a step."""
        seed, epoch, alpha = self.config.seed, self.epochs_done, self.config.augment.mixup_alpha
        draw = train.draw(seed, epoch)
        mixup = draw_mixup(epoch_generator(seed, epoch, 2), len(train), alpha) if alpha > 0 else None

        def make(step: int) -> Batch:
            return make_batch(train, self._share(batches[step]), draw, mixup, self.device)

        return make

    def _update(self, loss: Tensor) -> None:
        """One step of the optimiser, and of the average of the weights."""
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.config.clip_grad_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.clip_grad_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.bare_model)

    def _agreed(self, control: Control) -> tuple[bool, bool]:
        """Whether any process wants to stop, and to save; if so the first one holds the sums of all."""
        wishes = self.processes.all_gather((control.should_stop(), control.should_save()))
        stop, save = (any(each) for each in zip(*wishes, strict=True))
        if (stop or save) and self.processes.n > 1:
            total = torch.tensor(self.processes.all_gather(self._sums.tolist()), dtype=torch.float64).sum(dim=0)
            self._sums = total.to(self.device) if self.processes.is_main else torch.zeros_like(self._sums)
        return stop, save

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss over a batch, and for how many of its clips the model was right."""
        smoothing = self.config.label_smoothing
        logits = self.model(*batch.inputs)
        if batch.weight is None or batch.other_labels is None:
            own_loss: Tensor | float = 0.0
            if isinstance(logits, tuple):  # a model may add a loss of its own
                logits, own_loss = logits
            loss = own_loss + functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        else:
            own = functional.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing)
            theirs = functional.cross_entropy(logits, batch.other_labels, reduction="none", label_smoothing=smoothing)
            loss = (batch.weight * own + (1 - batch.weight) * theirs).mean()
        return loss, (logits.detach().argmax(dim=1) == batch.labels).sum()

    def _check(self, losses: Tensor, first_step: int, batches: list[np.ndarray], train: ClipDataset[Any]) -> None:
        """Stop where a loss is not finite or has exploded, on any process.

        Raises:
            DivergedError: naming the step and the clips of its batch.
        """
        guessing = max(1.0, math.log(int(train.labels.max()) + 1))
        for rank, values in enumerate(self.processes.all_gather(losses.tolist())):
            for step, value in enumerate(values, start=first_step):
                if not value <= CHANCES * guessing:  # NaN is not either
                    share = np.array_split(batches[step], self.processes.n)[rank]
                    ids = ", ".join(train.clip_ids[index] for index in share[:64])
                    more = f" and {len(share) - 64} more" if len(share) > 64 else ""
                    raise DivergedError(
                        f"the training loss is {value:g} at step {step + 1} of {len(batches)} of epoch "
                        f"{self.epochs_done + 1}; lower train.lr (in force: {self.config.scaled_lr:g}), raise "
                        f"train.warmup_epochs, or look at the clips of that batch: {ids}{more}"
                    )


def _step_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
