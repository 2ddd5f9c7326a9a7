"""Does training wait for its data? Crops a second from the store, and the training loop against the bare step.

The peer reads one .npy file a clip, as MMAction2's LoadAudioFeature does, and cuts one crop from it. The bare step trains the
same network with the same optimiser on one batch that lies in memory; the loop is the one that stage train runs, with its
shuffling, crops, augmentation and checks, on the settings of params.yaml.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from comparing import Row, Times, at_least, in_turns, show
from torch.nn import functional
from tqdm import tqdm

from avrecog.config import read_yaml, validate
from avrecog.datasets.augment import AudioAugmentConfig
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.datasets.log_mel import AudioClips
from avrecog.extraction.store_writer import StoreWriter
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.features.video_settings import VideoConfig
from avrecog.models.base import ModelConfig
from avrecog.models.registry import build_model, model_section
from avrecog.runtime.device import on_device, pick_device, reduced_precision, resolve_precision, synchronise
from avrecog.runtime.distributed import processes
from avrecog.training.loop import Trainer
from avrecog.training.optim import make_optimizer
from avrecog.training.settings import TrainConfig

N_CLIPS, N_ROWS, N_MELS, MEL_FRAMES, BATCH = 1000, 600, 80, 128, 32
CROPS = 6400


def crops() -> list[Row]:
    """From the store, and from a file a clip."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder) / "audio", {}, (N_MELS,), "float16")
        for number in range(N_CLIPS):
            rows = rng.standard_normal((N_ROWS, N_MELS)).astype(np.float16)
            writer.append(f"c{number}", rows)
            np.save(Path(folder) / f"{number}.npy", rows.astype(np.float32))
        writer.finish()
        store = Store(Path(folder) / "audio")
        clips = AudioClips(store, store.clip_ids, np.zeros(N_CLIPS, np.int64), mel_frames=MEL_FRAMES, front_end=LogMelConfig(), augment=AudioAugmentConfig())
        chosen = rng.integers(0, N_CLIPS, CROPS).reshape(-1, BATCH)
        starts = rng.integers(0, N_ROWS - MEL_FRAMES + 1, CROPS).reshape(-1, BATCH)
        device = torch.device("cpu")

        def ours() -> None:
            for indices, begin in zip(chosen, starts, strict=True):
                clips.view_batch(np.stack((indices, begin), axis=1), device)

        def theirs() -> None:
            for indices, begin in zip(chosen, starts, strict=True):
                batch = [np.load(Path(folder) / f"{i}.npy")[b : b + MEL_FRAMES] for i, b in zip(indices, begin, strict=True)]
                torch.from_numpy(np.stack(batch))[:, None]

        times = in_turns({"ours": ours, "theirs": theirs})
    per_s = {name: CROPS / value.median for name, value in times.items()}
    return [
        at_least(
            "crops of 128 x 80 in batches of 32, one core: the store / one .npy a clip",
            *(f"{per_s[name]:,.0f} crops/s" for name in ("theirs", "ours")),
            per_s["ours"] / per_s["theirs"],
            10,
        ),
        at_least("the same, crops a second", "", f"{per_s['ours']:,.0f}", per_s["ours"], 100_000),
    ]


class Timed:
    """A dataset of which it is counted how long it takes."""

    def __init__(self, inner: object) -> None:
        self.inner, self.seconds = inner, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def training_batch(self, *args: object) -> object:
        began = time.perf_counter()
        batch = self.inner.training_batch(*args)  # type: ignore[attr-defined]
        self.seconds += time.perf_counter() - began
        return batch


def loop(name: str, config: ModelConfig, front_end: FrontEnd, train: TrainConfig, n_clips: int) -> Row:
    """The training loop's clips a second against the bare step's."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        if name == "audio":
            writer = StoreWriter(Path(folder) / "audio", {}, (N_MELS,), "float16")
            shape, kind = (150, N_MELS), np.float16
        else:
            assert front_end.video is not None
            writer = StoreWriter(Path(folder) / "video", {}, (front_end.video.height, front_end.video.width, 3), "uint8")
            shape, kind = (20, front_end.video.height, front_end.video.width, 3), np.uint8
        for number in range(n_clips):
            writer.append(f"c{number}", (60 * rng.random(shape)).astype(kind))
        writer.finish()
        store = Store(writer.folder)
        rows[writer.folder.name] = store
        labels = rng.integers(0, 12, n_clips)
        clips = Timed(make_dataset(config.input(), StoredClips(front_end, rows, store.clip_ids, labels, augment=train.augment, training=True)))
        device = pick_device()
        torch.manual_seed(0)
        trainer = Trainer(build_model(config, 12), train, processes())
        bare = on_device(build_model(config, 12), device).train()
        optimizer = make_optimizer(bare, train)
        draw = clips.draw(0, 0)  # type: ignore[operator]
        batch = clips.training_batch(np.arange(train.batch_size), draw, device)
        answers = torch.from_numpy(labels[: train.batch_size]).to(device)

        def step() -> None:
            for _ in range(n_clips // train.batch_size):
                optimizer.zero_grad()
                with reduced_precision(device, resolve_precision(train.precision)):
                    loss = functional.cross_entropy(bare(*batch), answers)  # type: ignore[misc]
                loss.backward()
                optimizer.step()
            synchronise(device)

        val = make_dataset(config.input(), StoredClips(front_end, rows, store.clip_ids[:1], labels[:1]))
        bar = tqdm(disable=True)
        ends: list[float] = []
        step()
        seconds: dict[str, list[float]] = {"bare": [], "loop": []}

        def between(_: object) -> None:  # an epoch of the loop, then as many bare steps, in turns
            now = time.perf_counter()
            seconds["loop"].append(now - ends[-1])
            step()
            ends.append(time.perf_counter())
            seconds["bare"].append(ends[-1] - now)

        clips.seconds = 0.0
        ends.append(time.perf_counter())
        trainer.fit(clips, val, between, bar)  # type: ignore[arg-type]
    bare_times, loop_times = Times(seconds["bare"][1:-1]), Times(seconds["loop"][1:-1])
    waiting = clips.seconds / sum(seconds["loop"])
    n = n_clips // train.batch_size * train.batch_size
    return at_least(
        f"training {name} as in params.yaml, batch {train.batch_size}: the loop / the bare step "
        f"({100 * waiting:.1f} % of the loop is the data's)",
        f"{n / bare_times.median:.1f} clips/s",
        f"{n / loop_times.median:.1f} clips/s",
        bare_times.median / loop_times.median,
        0.95,
    )


def main() -> None:
    params = read_yaml(Path("recipes/default.yaml"))
    rows = crops()
    front_end = FrontEnd(AudioConfig(LogMelConfig()), validate(VideoConfig, params["video"], "video"))
    for name, n_clips in (("audio", 320), ("rgb", 320)):
        config = validate(model_section(), params["models"][name], f"models.{name}")
        recipe = {**params["train"], **params["models"][name]["train"], "epochs": 8, "val_interval": 100}
        train = validate(TrainConfig, recipe, "train")
        rows.append(loop(name, config, front_end, train, n_clips))
    show("Data for training", rows, ["torch", "numpy"], ["The store's file is in the page cache, as are the .npy files."])


if __name__ == "__main__":
    main()
