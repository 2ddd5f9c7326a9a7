"""What does a GPU give: memory and waiting in training, latency with a CUDA graph, log-mel on the device?

Audio ResNet-18 of MMAction2's size on views of 128 x 80 with 400 classes; random clips. In training, epochs on clips from the
store and epochs on one batch that lies on the GPU take turns in one training loop: what the first take longer is the data's.
1,897 MiB is the memory that MMAction2's table has for this network at 320 clips a GPU.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from comparing import Row, Times, at_most, in_turns, show
from made import RATE, clip_of, make_ogg
from torch import Tensor
from tqdm import tqdm

from avrecog.config import read_yaml, validate
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.extraction import extract as extraction
from avrecog.extraction.store_writer import StoreWriter
from avrecog.extraction.worker import log_mel_rows
from avrecog.features.front_end import FrontEnd
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.inference.engines import ENGINES
from avrecog.models.folding import fold_batch_norms
from avrecog.models.registry import build_model, model_section
from avrecog.runtime.device import (
    device_name,
    gpu_memory_mib,
    on_device,
    pick_device,
    reset_peak_gpu_memory,
    resolve_precision,
    synchronise,
)
from avrecog.runtime.distributed import processes
from avrecog.training.loop import Trainer
from avrecog.training.settings import TrainConfig
from inference import model_of_depth

BATCH, N_STEPS, N_ROWS, N_MELS, MEL_FRAMES, N_CLASSES = 320, 60, 200, 80, 128, 400
REFERENCE_MIB = 1897


class Switched:
    """A dataset that gives its batches, or the same one from the GPU again and again."""

    def __init__(self, inner: object) -> None:
        self.inner, self.held = inner, None
        self.holds = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def training_batch(self, *args: object) -> object:
        if self.held is None or not self.holds:
            self.held = self.inner.training_batch(*args)  # type: ignore[attr-defined]
        return self.held


def training(precision: str) -> list[Row]:
    """GPU memory, and the share of the time that the GPU waits for clips."""
    rng = np.random.default_rng(0)
    n_clips = BATCH * N_STEPS
    params = read_yaml(Path("recipes/default.yaml"))["train"]
    changed = {"batch_size": BATCH, "epochs": 9, "val_interval": 100, "precision": precision}
    config = validate(TrainConfig, {**params, **changed}, "train")
    model = validate(model_section(), {"architecture": "audio", "depth": 18}, "models.audio")
    front_end = FrontEnd(AudioConfig(LogMelConfig()), None)
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder) / "audio", {}, (N_MELS,), "float16")
        for number in range(n_clips):
            writer.append(f"c{number}", rng.random((N_ROWS, N_MELS)).astype(np.float16))
        writer.finish()
        store = Store(writer.folder)
        labels = rng.integers(0, N_CLASSES, n_clips)
        made = make_dataset(
            model.input(),
            StoredClips(front_end, {"audio": store}, store.clip_ids, labels, augment=config.augment, training=True),
        )
        val = make_dataset(model.input(), StoredClips(front_end, {"audio": store}, store.clip_ids[:1], labels[:1]))
        clips = Switched(made)
        trainer = Trainer(build_model(model, N_CLASSES), config, processes())
        seconds: dict[bool, list[float]] = {True: [], False: []}
        began = [time.perf_counter()]

        def after_epoch(_: object) -> None:
            synchronise(trainer.device)
            now = time.perf_counter()
            seconds[clips.holds].append(now - began[0])
            clips.holds = not clips.holds
            began[0] = time.perf_counter()

        reset_peak_gpu_memory()
        trainer.fit(clips, val, after_epoch, tqdm(disable=True))  # type: ignore[arg-type]
        mib = gpu_memory_mib() or 0.0
    stored, held = Times(seconds[False][1:-1]), Times(seconds[True][1:])
    waiting = 100 * (1 - held.median / stored.median)
    work = f"training ResNet-18, batch {BATCH}, {precision}"
    rate = [f"{n_clips / each.median:,.0f} clips/s" for each in (held, stored)]
    return [
        at_most(f"{work}: GPU memory", f"{REFERENCE_MIB} MiB", f"{mib:,.0f} MiB", mib / REFERENCE_MIB, 1),
        Row(f"{work}: waiting for data, one batch again and again / clips from the store", *rate, waiting, "under 5 %", waiting < 5),
    ]  # fmt: skip


def captured(network: Callable[[Tensor], Tensor], view: Tensor) -> Callable[[Tensor], Tensor]:
    """The network on a CUDA graph."""
    held = view.clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            network(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = network(held)

    def replay(values: Tensor) -> Tensor:
        held.copy_(values)
        graph.replay()
        return out

    return replay


def latency(depth: int) -> list[Row]:
    device = pick_device()
    model = model_of_depth(depth)
    (view,) = model.example(1, device)
    bare = fold_batch_norms(model.network, model.example(2, torch.device("cpu")))
    network, half = on_device(copy.deepcopy(bare), device), on_device(copy.deepcopy(bare), device).to(torch.bfloat16)
    with torch.inference_mode():
        compiled = ENGINES["torch-compiled"].start(model, device)
        overhead = torch.compile(bare.to(device), dynamic=True, mode="reduce-overhead")
        runs: dict[str, Callable[[Tensor], Tensor]] = {
            "eager": on_device(model.network, device),
            "folded": network,
            "torch-compiled": compiled,
            "reduce-overhead": overhead,
            "CUDA graph of folded": captured(network, view),
            "CUDA graph of folded, bf16": captured(lambda values: half(values.bfloat16()).float(), view),
        }

        def timed(run: Callable[[Tensor], Tensor]) -> Callable[[], None]:
            def once() -> None:
                run(view)
                synchronise(device)

            return once

        expected = runs["eager"](view).softmax(dim=1).clone()
        times = in_turns({name: timed(run) for name, run in runs.items()}, rounds=200, warmup=20)
        rows = [
            Row(f"ResNet-{depth}, batch 1: eager / {name}", times["eager"].said(), times[name].said(), times["eager"].median / times[name].median)
            for name in runs
            if name != "eager"
        ]  # fmt: skip
        for name in ("CUDA graph of folded", "torch-compiled", "reduce-overhead"):
            off = float((runs[name](view).softmax(dim=1) - expected).abs().max())
            rows.append(Row(f"ResNet-{depth}: how far any probability of {name} is from eager's", "", f"{off:.1e}", None, "at most 1e-4", off <= 1e-4))  # fmt: skip
    return rows


def extracting() -> list[Row]:
    """Log-mel on the CPU and on the device, alone and in stage extract."""
    device, cpu = pick_device(), torch.device("cpu")
    config = LogMelConfig()
    waveform = np.random.default_rng(0).standard_normal(5 * config.sample_rate).astype(np.float32)
    here, there = LogMel(config), LogMel(config).to(device)
    torch.set_num_threads(1)
    times = in_turns(
        {
            "cpu": lambda: log_mel_rows(here, waveform, cpu),
            "device": lambda: log_mel_rows(there, waveform, device),
        },
        rounds=50,
        warmup=5,
    )
    rows = [Row("log-mel of 5 s, there and back: one core / the device", times["cpu"].said(), times["device"].said(), times["cpu"].median / times["device"].median)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = make_ogg(Path(folder), 40)
        many = [clip_of(path, number) for number in range(100) for path in paths]

        def extract(chosen: torch.device) -> None:
            extraction.pick_device = lambda: chosen
            with tempfile.TemporaryDirectory() as out:
                extraction.extract_all(many, Path(out) / "features", AudioConfig(config), None, 0.0)

        try:
            whole = in_turns({"cpu": lambda: extract(cpu), "device": lambda: extract(device)}, rounds=3)
        finally:
            extraction.pick_device = pick_device
    n = len(many)
    rows.append(Row(f"extract of {n:,} Ogg clips of 5 s and {RATE} Hz, {len(os.sched_getaffinity(0))} cores: log-mel in the workers / on the device", *(whole[name].said(1, 1, "s") for name in ("cpu", "device")), whole["cpu"].median / whole["device"].median))  # fmt: skip
    return rows


def main() -> None:
    device = pick_device()
    if device.type != "cuda":
        print("## GPU\n\nNo GPU here: not run.\n")
        return
    rows = []
    for precision in dict.fromkeys(("32-true", resolve_precision("auto"))):
        rows += training(precision)
    for depth in (18, 50):
        rows += latency(depth)
    rows += extracting()
    show(f"GPU: {device_name(device)}", rows, ["torch", "torchaudio", "numpy"])


if __name__ == "__main__":
    main()
