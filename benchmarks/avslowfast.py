"""What each part of AVSlowFast gives, and what is left of it in noise or without one modality.

avrecog recipe demo_avslowfast && dvc repro extract
PYTHONPATH=src python benchmarks/avslowfast.py --out FOLDER [--seeds 0 1 2] [--jobs 2]

Trains the audio and the rgb model of params.yaml and its avslowfast in three forms, with each seed; fuses audio and rgb
late by what val says; prints two tables in Markdown and draws robustness.png. Everything is chosen on val. What was
trained is kept in FOLDER, and not trained again.
"""

import argparse
import functools
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from avrecog.config import load_params
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.datasets.open import open_features
from avrecog.datasets.view_scores import predict_scores
from avrecog.evaluation.test import evaluate_model
from avrecog.features.front_end import FrontEnd
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import AudioConfig
from avrecog.features.store import MemoryStore
from avrecog.features.video_settings import VideoConfig
from avrecog.fusion.file import read_fusion
from avrecog.fusion.fuse import fuse_models
from avrecog.fusion.settings import FuseConfig
from avrecog.inference.settings import TestConfig
from avrecog.inference.trained_model import load_model
from avrecog.manifest import LabelledClips
from avrecog.media.audio import decode_audio
from avrecog.metrics import bootstrap_difference, bootstrap_gain, bootstrap_interval
from avrecog.models.folding import fold_batch_norms
from avrecog.models.registry import model_section
from avrecog.plots import BLUE, GREEN, GREY, ORANGE, drawing
from avrecog.scores.npz import read_scores
from avrecog.scores.table import probabilities
from avrecog.training.settings import TrainConfig
from avrecog.training.train import TrainingTask, train_model

DATA = Path("data")
FORMS = {
    "avslowfast": {},
    "avslowfast_no_drop": {"drop_pathway": 0.0},
    "avslowfast_sync": {"sync_weight": 1.0},
}
NAMES = {
    "audio": "audio",
    "rgb": "rgb",
    "late": "late fusion of audio and rgb",
    "avslowfast_no_drop": "avslowfast without DropPathway",
    "avslowfast": "avslowfast, DropPathway",
    "avslowfast_sync": "avslowfast, DropPathway and synchronisation",
    "all": "late fusion of audio, rgb and avslowfast",
}
CONDITIONS = {"as it is": None, "10 dB": 10.0, "0 dB": 0.0, "-10 dB": -10.0, "-20 dB": -20.0}  # sound over noise


def read_params():
    """What params.yaml says."""
    return load_params(
        audio=AudioConfig | None,
        video=VideoConfig | None,
        train=TrainConfig,
        models=dict[str, model_section()],
        test=TestConfig,
        fuse=FuseConfig,
    )


def train_and_test(job: tuple[str, int, Path]) -> None:
    """One model with one seed, unless that is done."""
    name, seed, out = job
    folder = out / str(seed)
    metrics = folder / "metrics" / f"{name}.json"
    if metrics.exists():
        return
    torch.set_num_threads(1)
    params = read_params()
    config = params.models["avslowfast" if name in FORMS else name]
    config = replace(config, **FORMS.get(name, {}))
    train = replace(params.train, seed=seed)
    models = folder / "models" / name
    trained = models / "trained"
    if not trained.exists():
        task = TrainingTask(name, config, train, FrontEnd(params.audio, params.video), DATA, models)
        train_model(task, lambda *_: None)
        trained.touch()
    metrics.parent.mkdir(parents=True, exist_ok=True)
    outs = (folder / "scores" / name, metrics, folder / "plots" / name, folder / "plots" / f"{name}.csv")
    evaluate_model(name, models, DATA, params.test, *outs)


def right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) whether the best class is the true one."""
    return scores.argmax(axis=1) == labels


def fuse(folder: Path, models: Sequence[str], name: str) -> np.ndarray:
    """(N,) whether the late fusion, chosen and fitted on val, is right about each test clip."""
    out = folder / name
    metrics = folder / "metrics" / f"{name}.json"
    fuse_models(
        models, folder / "scores", read_params().fuse, metrics_path=metrics, fusion_dir=out, plots_dir=out
    )
    tables = [read_scores(folder / "scores" / model / "test.npz") for model in models]
    fusion = read_fusion(out / "fusion.npz", tables[0].classes)
    return right(fusion(np.stack([probabilities(table) for table in tables])), tables[0].labels)


def ablation(out: Path, seeds: Sequence[int]) -> None:
    """Print what each model gets, and what it gains."""
    correct: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        folder = out / str(seed)
        for name in ("audio", "rgb", *FORMS):
            table = read_scores(folder / "scores" / name / "test.npz")
            correct.setdefault(name, []).append(right(table.scores, table.labels))
        correct.setdefault("late", []).append(fuse(folder, ["audio", "rgb"], "late"))
        correct.setdefault("all", []).append(fuse(folder, ["audio", "rgb", "avslowfast"], "all"))
    each = " | ".join(f"seed {seed}" for seed in seeds)
    print(f"\n| model | test top-1 | {each} | over audio | over rgb | over late fusion |")
    print("| --- " * (5 + len(seeds)) + "|")

    def over(name: str, other: str) -> str:
        if name == other:
            return ""
        a, b = np.mean(correct[name], axis=0), np.mean(correct[other], axis=0)
        low, high = bootstrap_difference(a, b)
        return f"{100 * (a.mean() - b.mean()):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"

    for name, said in NAMES.items():
        runs = " | ".join(said_interval(run) for run in correct[name])
        mean = 100 * np.mean(correct[name])
        gains = " | ".join(over(name, other) for other in ("audio", "rgb", "late"))
        print(f"| {said} | {mean:.1f} | {runs} | {gains} |")
    for seed, *runs in zip(seeds, *(correct[name] for name in ("avslowfast", "audio", "rgb")), strict=True):
        for other, run in zip(("audio", "rgb"), runs[1:], strict=True):
            low, high = bootstrap_gain(runs[0], run)
            print(f"\nseed {seed}: avslowfast over {other} {100 * low:+.1f} to {100 * high:+.1f}", end="")
    print()
    for name in ("audio", "rgb", *FORMS):
        hours = [json.loads((out / str(seed) / "metrics" / f"{name}.json").read_text()) for seed in seeds]
        print(f"{name}: {hours[0]['inference_ms_per_clip']:.1f} ms a clip at test", end="; ")
    print()


def said_interval(correct: np.ndarray) -> str:
    """`61.0 (55.3 to 66.7)`."""
    low, high = bootstrap_interval(correct)
    return f"{100 * correct.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def noisy_log_mel(tables: LabelledClips, audio: AudioConfig, snr_db: float | None) -> MemoryStore:
    """The test clips' log-mel, white noise added to their sound, its level measured on each whole clip."""
    log_mel, rows = LogMel(audio.logmel), {}
    clips = [clip for clip in tables.clips if tables.splits[clip.clip_id] == "test"]
    for number, clip in enumerate(clips):
        waveform = decode_audio(Path(clip.path), audio.logmel.sample_rate, clip.start_s, clip.stop_s)
        if snr_db is not None:
            noise = np.random.default_rng([7, number]).standard_normal(len(waveform)).astype(np.float32)
            waveform = waveform + noise * np.sqrt(np.mean(waveform**2)) * 10 ** (-snr_db / 20)
        with torch.inference_mode():
            rows[clip.clip_id] = log_mel(torch.from_numpy(waveform)).numpy().astype(np.float16)
    return MemoryStore(rows)


def scores_of(checkpoint: Path, tables: LabelledClips, sound: MemoryStore | None, picture: bool) -> np.ndarray:
    """(N, K) probabilities of the test clips, with that sound or none, with their pictures or none."""
    model = load_model(checkpoint)
    params = read_params()
    clip_ids = [clip.clip_id for clip in tables.clips if tables.splits[clip.clip_id] == "test"]
    index = {label: position for position, label in enumerate(tables.classes)}
    label_of = {clip.clip_id: index[clip.label] for clip in tables.clips}
    labels = np.array([label_of[clip_id] for clip_id in clip_ids])
    rows = open_features(model.input, model.front_end, DATA / "features", tables).rows
    if "audio" in model.input.modalities:
        silence = MemoryStore({}, np.zeros((0, model.front_end.audio.logmel.n_mels), np.float16))
        rows["audio"] = silence if sound is None else sound
    if "video" in model.input.modalities and not picture:
        rows["video"] = MemoryStore({}, np.zeros((0, *rows["video"].values.shape[1:]), np.uint8))
    dataset = make_dataset(model.input, StoredClips(model.front_end, rows, clip_ids, labels))
    network, test = fold_batch_norms(model.network, model.example(2, torch.device("cpu"))), params.test
    return predict_scores(
        network, dataset, n_views=test.n_clips, batch_size=test.batch_size, device=torch.device("cpu"), average="prob"
    )


def robustness(out: Path, seeds: Sequence[int]) -> None:
    """Print and draw the accuracy as the sound gets noisier, and as either modality is taken away."""
    tables = LabelledClips.read(DATA)
    params = read_params()
    first = read_scores(out / str(seeds[0]) / "scores/audio/test.npz")
    found: dict[str, dict[str, list[float]]] = {}
    for condition in (*CONDITIONS, "no sound", "no picture"):
        sound = None
        if condition != "no sound":
            sound = noisy_log_mel(tables, params.audio, CONDITIONS.get(condition))
        picture = condition != "no picture"
        for seed in seeds:
            folder = out / str(seed)
            checkpoint = functools.partial(lambda root, name: root / "models" / name / "best.ckpt", folder)
            available = {"rgb": 1} if sound is None else {"audio": 0} if not picture else {"audio": 0, "rgb": 1}
            single = {name: scores_of(checkpoint(name), tables, sound, picture) for name in available}
            fusion = read_fusion(folder / "late/fusion.npz", first.classes)
            results = {**single, "late": fusion.with_available(list(available.values()), np.stack(list(single.values())))}
            for name in ("avslowfast_no_drop", "avslowfast"):
                results[name] = scores_of(checkpoint(name), tables, sound, picture)
            for name, scores in results.items():
                place = found.setdefault(name, {}).setdefault(condition, [])
                place.append(float(right(scores, first.labels).mean()))
    conditions = [*CONDITIONS, "no sound", "no picture"]
    shown = [name for name in NAMES if name in found]
    print(f"\n| model | {' | '.join(conditions)} |")
    print("| --- " * (1 + len(conditions)) + "|")
    for name in shown:
        cells = [f"{100 * np.mean(found[name][key]):.1f}" if key in found[name] else "" for key in conditions]
        print(f"| {NAMES[name]} | {' | '.join(cells)} |")
    colours = dict(zip(shown, (ORANGE, GREY, BLUE, "#b7791f", GREEN, "#9f7aea"), strict=False))
    with drawing(out / "robustness.png", (7.2, 4.2)) as figure:
        axes = figure.subplots()
        for name in shown:
            places = [i for i, key in enumerate(conditions) if key in found[name]]
            values = [100 * np.mean(found[name][conditions[i]]) for i in places]
            axes.plot(places, values, marker="o", color=colours[name], label=NAMES[name].replace("`", ""))
        axes.set_xticks(range(len(conditions)), conditions)
        axes.set(ylabel="test top-1, %", ylim=(0, 102), title="White noise in the sound; one modality gone")
        axes.legend(fontsize=8)


def main() -> None:
    """Train what is missing, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    args = parser.parse_args()
    jobs = [(name, seed, args.out) for seed in args.seeds for name in (*FORMS, "audio", "rgb")]
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        list(pool.map(train_and_test, jobs))
    ablation(args.out, args.seeds)
    robustness(args.out, args.seeds)


if __name__ == "__main__":
    main()
