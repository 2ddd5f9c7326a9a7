"""How long does it take to turn media into features, against the reference's script and against decoding alone?

Ogg clips of 5 s as ESC-10's and MP4 videos as GRID's: the real ones below AVRECOG_SHARED, or ones that this script makes.
The reference is MMAction2's build_audio_features.py as its description says: librosa.load at 16 kHz, its level set, STFT
512/256 by lws (`make bench` builds it), 80 mel bands of the magnitude, decibels. Where lws is missing, numpy's FFT is in its place.
"""

import os
import tempfile
from pathlib import Path

import av
import librosa
import numpy as np
import soundfile
import torch
from comparing import at_least, at_most, in_turns, shared, show
from made import RATE, clip_of, make_mp4, make_ogg

from avrecog.extraction.extract import extract_all
from avrecog.extraction.pool import _batch_jobs
from avrecog.extraction.worker import Extractor, log_mel_rows
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import Clip
from avrecog.media.audio import decode_audio

try:
    import lws
except ImportError:
    lws = None

N_CLIPS = 40
FRONT_END = LogMelConfig()
VIDEO = VideoConfig(fps=25.0, height=72, width=72)
MEL = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80, fmin=125, fmax=7600)
WINDOW = np.sin(np.pi * (np.arange(512) + 0.5) / 512).astype(np.float32)


def reference(path: Path) -> np.ndarray:
    """A log-mel as MMAction2's script makes it, stored as .npy there."""
    waveform, _ = librosa.load(path, sr=16_000)
    waveform = waveform * (0.1 / max(np.sqrt(np.mean(waveform**2)), 1e-4))
    if lws is not None:
        magnitude = np.abs(lws.lws(512, 256, mode="speech").stft(waveform.astype(np.float64)))
    else:
        padded = np.pad(waveform, (256, -len(waveform) % 256 + 256))
        frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::256] * WINDOW
        magnitude = np.abs(np.fft.rfft(frames, axis=1))
    decibels = 20 * np.log10(np.maximum(1e-5, magnitude @ MEL.T)) - 20
    return np.clip((decibels + 100) / 100, 0, 1).astype(np.float32)


def sound_alone(path: Path) -> None:
    """All of a file's sound decoded by PyAV, and thrown away."""
    with av.open(str(path)) as container:
        for _ in container.decode(audio=0):
            pass


def picture_alone(path: Path) -> None:
    """All of a file's pictures decoded by PyAV on one thread, scaled and thrown away."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            frame.reformat(90, 72, "rgb24", interpolation="AREA")


def extract(clips: list[Clip], audio: AudioConfig | None, video: VideoConfig | None, processors: set[int]) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        with tempfile.TemporaryDirectory() as folder:
            extract_all(clips, Path(folder) / "features", audio, video, 0.0)
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        esc10, grid = shared("data", "esc10", "clips"), shared("data", "grid", "clean")
        sounds = sorted(esc10.rglob("*.ogg"))[:N_CLIPS] if esc10 else make_ogg(Path(folder), N_CLIPS)
        films = sorted(grid.rglob("*.mp4"))[:N_CLIPS] if grid else make_mp4(Path(folder), N_CLIPS)
        audio = AudioConfig(FRONT_END)
        hear = Extractor(audio, None, Path(folder), makes_log_mel=True)
        see = Extractor(None, VIDEO, Path(folder), makes_log_mel=True)
        waveforms = [decode_audio(path, 16_000) for path in sounds]
        sound_jobs = [(clip_of(path), True, False) for path in sounds]
        film_jobs = [(clip_of(path), True, False) for path in films]
        picture_jobs = [(clip_of(path), False, True) for path in films]
        assert hear.log_mel is not None
        times = in_turns(
            {
                "reference": lambda: [reference(path) for path in sounds],
                "ours": lambda: [hear(group) for group in _batch_jobs(sound_jobs)],
                "libsndfile": lambda: [soundfile.read(path, dtype="float32") for path in sounds],
                "PyAV": lambda: [sound_alone(path) for path in sounds],
                "decoded at its rate": lambda: [decode_audio(path, RATE) for path in sounds],
                "decoded and resampled": lambda: [decode_audio(path, 16_000) for path in sounds],
                "log-mel": lambda: [
                    log_mel_rows(hear.log_mel, waveform, torch.device("cpu")) for waveform in waveforms
                ],
                "aac": lambda: [hear(group) for group in _batch_jobs(film_jobs)],
                "aac floor": lambda: [sound_alone(path) for path in films],
                "frames": lambda: [see(group) for group in _batch_jobs(picture_jobs)],
                "frames floor": lambda: [picture_alone(path) for path in films],
            },
            rounds=5,
        )
        many = [clip_of(path, number) for number in range(5000 // len(sounds)) for path in sounds]
        few = many[:1000]
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            two = in_turns(
                {
                    "one": lambda: extract(many, audio, None, set(cores[:1])),
                    "two": lambda: extract(many, audio, None, set(cores[:2])),
                    "one, few": lambda: extract(few, audio, None, set(cores[:1])),
                    "two, few": lambda: extract(few, audio, None, set(cores[:2])),
                },
                rounds=1,
                warmup=0,
            )
    said = {name: value.said(per=N_CLIPS) for name, value in times.items()}
    median = {name: value.median for name, value in times.items()}
    fastest = min("libsndfile", "PyAV", key=median.__getitem__)
    rows = [
        at_least("log-mel of a 5 s Ogg clip, one core: the reference / ours", said["reference"], said["ours"], median["reference"] / median["ours"], 1.7),
        at_most(f"the same: ours / decoding alone by {fastest}", said[fastest], said["ours"], median["ours"] / median[fastest], 1.35),
        at_most("log-mel of a GRID clip (AAC in MP4, 3 s): ours / PyAV's decoding alone", said["aac floor"], said["aac"], median["aac"] / median["aac floor"], 1.25),
        at_most("frames of a GRID clip (75 of 72 x 72): ours / PyAV's decoding and scaling alone", said["frames floor"], said["frames"], median["frames"] / median["frames floor"], 1.25),
    ]  # fmt: skip
    if len(cores) > 1:
        one, both = two["one"], two["two"]
        more_by_one, more_by_two = (two[n].median - two[f"{n}, few"].median for n in ("one", "two"))
        rows.append(at_least(f"{len(many):,} Ogg clips by extract, its start and its disk included: one process / two", one.said(1, 1, "s"), both.said(1, 1, "s"), one.median / both.median, 1.7))  # fmt: skip
        rows.append(at_least(f"the last {len(many) - len(few):,} of them, once it runs", f"{more_by_one:.1f} s", f"{more_by_two:.1f} s", more_by_one / more_by_two, 1.7))  # fmt: skip
    show(
        "Extraction",
        rows,
        ["av", "soundfile", "soxr", "torch", "torchaudio", "librosa", "numpy"],
        [
            f"The reference's STFT: {'lws' if lws else 'numpy'}. Clips: {'ESC-10' if esc10 else 'made here'}, {'GRID' if grid else 'made here'}; {N_CLIPS} of each, 5 rounds.",
            "Where ours goes, a clip: "
            + ", ".join(
                f"{name} {1000 * seconds / N_CLIPS:.2f} ms"
                for name, seconds in (
                    ("decoding", median["decoded at its rate"]),
                    ("resampling", median["decoded and resampled"] - median["decoded at its rate"]),
                    ("log-mel", median["log-mel"]),
                    ("the rest", median["ours"] - median["decoded and resampled"] - median["log-mel"]),
                )
            )
            + f". Decoding alone: libsndfile {said['libsndfile']}, PyAV {said['PyAV']}.",
        ],
    )


if __name__ == "__main__":
    main()
