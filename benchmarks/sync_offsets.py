"""How often `avrecog sync` finds a planted shift of the sound within 0.1 s, on demo clips that no training has seen.

PYTHONPATH=src python benchmarks/sync_offsets.py [--checkpoint FILE] [--clips 60] [--seconds 2 5]

Clips of each action on each material in turn, written as files, their sound moved by -0.4 to 0.4 s (silence fills the
gap), and read like any other. Actions that strike have moments to compare; scraping and rolling hardly have.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from avrecog.annotations.demo.clip import ClipPlan, _encode, make_clip
from avrecog.annotations.demo.motion import STRIKING
from avrecog.config import read_yaml
from avrecog.extraction.media_file import decode_rows
from avrecog.inference.synchrony import load_sync, synchrony

SHIFTS_S = (-0.4, -0.3, -0.2, 0.0, 0.2, 0.3, 0.4)
CLOSE_S = 0.1


def shifted(waveform: np.ndarray, late_s: float, sample_rate: int) -> np.ndarray:
    """The waveform moved later, cut or filled with silence."""
    n = round(late_s * sample_rate)
    moved = np.zeros_like(waveform)
    if n >= 0:
        moved[n:] = waveform[: len(waveform) - n]
    else:
        moved[:n] = waveform[-n:]
    return moved


def main() -> None:
    """Print a table for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("selfsupervised/models/sync/best.ckpt"))
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 5.0])
    args = parser.parse_args()
    model, demo = load_sync(args.checkpoint), read_yaml(Path("recipes/demo_clips.yaml"))["demo"]
    kinds = [(action, material) for action in demo["actions"] for material in demo["materials"]]
    for seconds in args.seconds:
        print(
            f"\n{args.clips} clips of {seconds:g} s\n\n"
            f"| sound late by | within 0.1 s, actions that strike | others | score |"
        )
        print("| --- | --- | --- | --- |")
        for shift in SHIFTS_S:
            close: dict[bool, list[bool]] = {True: [], False: []}
            scores = []
            for number in range(args.clips):
                action, material = kinds[number % len(kinds)]
                picture, sound = demo["picture"], demo["sound"]
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "clip.mp4"
                    plan = ClipPlan(
                        path,
                        (demo["seed"], 99, number),  # a split that the demo doesn't have
                        action,
                        material,
                        seconds,
                        picture["fps"],
                        picture["size"],
                        picture["noise"],
                        picture["n_distractors"],
                        sound["sample_rate"],
                        tuple(sound["snr_db"]),
                        sound["n_clicks"],
                    )
                    frames, waveform = make_clip(plan)
                    late = shifted(waveform, shift, plan.sample_rate)
                    _encode(path, frames, late, plan.fps, plan.sample_rate)
                    found = synchrony(model, decode_rows(path, model), 0.5)
                close[action in STRIKING].append(abs(found.offset_s - shift) <= CLOSE_S + 1e-6)
                scores.append(found.score)
            strike, other = (100 * np.mean(close[kind]) for kind in (True, False))
            print(f"| {shift:+.1f} s | {strike:.0f} % | {other:.0f} % | {np.mean(scores):.2f} |", flush=True)


if __name__ == "__main__":
    main()
