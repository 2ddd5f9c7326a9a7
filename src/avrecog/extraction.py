"""Stage extract: decode every clip of the manifest once and store its log-mel and its frames."""

import contextlib
import csv
import hashlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from avrecog.atomic import atomic_path, sole_writer
from avrecog.config import plain
from avrecog.errors import AvrecogError, MediaError
from avrecog.logmel import AudioConfig, LogMel
from avrecog.manifests.clip import Clip, media_path
from avrecog.media.audio import decode_audio
from avrecog.media.settings import VideoConfig
from avrecog.media.video import decode_video
from avrecog.outcome import Outcome
from avrecog.store import StoreWriter

log = logging.getLogger(__name__)

CLIPS_PER_WORKER = 32  # fewer than this don't pay for starting one more process


@dataclass(frozen=True)
class Extracted:
    """What came of one clip; a modality that the clip lacks, or that isn't asked for, is None."""

    log_mel: np.ndarray | None = None  # (mel_frames, n_mels) float16
    frames: np.ndarray | None = None  # (n_frames, height, width, 3) uint8
    problem: str | None = None


def extract_all(
    clips: Sequence[Clip], out: Path, audio: AudioConfig | None, video: VideoConfig | None, max_skipped: float
) -> Outcome:
    """Fill `out/audio` (log-mel, float16) and `out/video` (RGB, uint8) with all clips, on all processors.

    Clips that a kill left stored are kept. A clip that can't be decoded is listed in `out/skipped.csv`.

    Raises:
        MediaError: if more than the fraction `max_skipped` of the clips can't be decoded.
        LockError: if another process is writing `out`.
    """
    began = time.perf_counter()
    source = _source(clips)
    with sole_writer(out), contextlib.ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        if audio is not None:
            settings = {"front_end": plain(audio.logmel), "clips": _digest(clips)}
            writers["audio"] = StoreWriter(out / "audio", settings, (audio.logmel.n_mels,), "float16", source)
        if video is not None:
            settings = {"front_end": plain(video), "clips": _digest(clips)}
            writers["video"] = StoreWriter(out / "video", settings, (video.height, video.width, 3), "uint8", source)
        for writer in writers.values():
            stack.callback(writer.close)
        n_new, skipped = _fill(clips, writers, audio, video)
        for writer in writers.values():
            writer.finish()
        _write_skipped(out / "skipped.csv", skipped)
        n_bytes = sum(writer.n_bytes for writer in writers.values())
    seconds = time.perf_counter() - began
    if len(skipped) > max_skipped * len(clips):
        first = "\n  ".join(f"{clip.clip_id}: {problem}" for clip, problem in skipped[:20])
        raise MediaError(
            f"{len(skipped)} of {len(clips)} clips can't be decoded, more than data.max_skipped ({max_skipped:g}) "
            f"allows; all are in {out}/skipped.csv:\n  {first}"
        )
    hours = sum(clip.duration_s for clip in clips) / 3600
    summary = f"{len(clips):,} clips -> {out} ({n_bytes / 1e6:,.1f} MB) in {seconds:.0f} s; {len(skipped)} skipped"
    if skipped:
        summary += f", see {out}/skipped.csv"
    return Outcome(
        summary=summary,
        metrics={
            "n_clips": len(clips),
            "n_new_clips": n_new,
            "n_skipped": len(skipped),
            "clips_per_s": n_new / seconds,
            "hours_per_min": hours / (seconds / 60) if n_new == len(clips) else None,
            "store_mib": n_bytes / 2**20,
        },
        files=[out / "skipped.csv"],
    )


def _digest(clips: Sequence[Clip]) -> str:
    """Of the rows of the manifest."""
    return hashlib.sha256(repr(list(clips)).encode()).hexdigest()


def _source(clips: Sequence[Clip]) -> str:
    """Of the size and the time of change of every media file: other files must not go on with a store of these."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(clip.path for clip in clips):
        with contextlib.suppress(OSError):  # a missing file is listed as skipped when it is its turn
            status = media_path(path).stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _fill(
    clips: Sequence[Clip], writers: dict[str, StoreWriter], audio: AudioConfig | None, video: VideoConfig | None
) -> tuple[int, list[tuple[Clip, str]]]:
    """Decode the clips that the writers lack; how many that were, and the clips that failed."""

    def wanted(clip: Clip, modality: str, has: bool) -> bool:
        return modality in writers and has and clip.clip_id not in writers[modality].stored

    jobs = [
        (clip, wanted(clip, "audio", clip.has_audio), wanted(clip, "video", clip.has_video))
        for clip in clips
        if wanted(clip, "audio", clip.has_audio) or wanted(clip, "video", clip.has_video)
    ]
    skipped = []
    progress = tqdm(total=len(clips), initial=len(clips) - len(jobs), unit="clip", desc="extract", mininterval=1)
    for clip, result in _extracted(jobs, audio, video):
        progress.update()
        if result.problem is not None:
            skipped.append((clip, result.problem))
            continue
        if result.log_mel is not None:
            writers["audio"].append(clip.clip_id, result.log_mel)
        if result.frames is not None:
            writers["video"].append(clip.clip_id, result.frames)
    progress.close()
    return len(jobs), skipped


Job = tuple[Clip, bool, bool]  # the clip, whether its sound is wanted, whether its picture is


def _extracted(
    jobs: Sequence[Job], audio: AudioConfig | None, video: VideoConfig | None
) -> Iterator[tuple[Clip, Extracted]]:
    """Every job's result, in the order of the jobs, worked on by all processors."""
    n_workers = min(len(os.sched_getaffinity(0)), math.ceil(len(jobs) / CLIPS_PER_WORKER))
    if n_workers < 2:
        worker = _Extractor(audio, video)
        for job in jobs:
            yield job[0], worker(job)
        return
    with ProcessPoolExecutor(n_workers, get_context("spawn"), _start_worker, (audio, video)) as pool:
        waiting: deque[tuple[Clip, Future[Extracted]]] = deque()
        for job in jobs:
            waiting.append((job[0], pool.submit(_work, job)))
            if len(waiting) > 8 * n_workers:  # enough to keep all busy, few enough to keep memory flat
                clip, future = waiting.popleft()
                yield clip, future.result()
        for clip, future in waiting:
            yield clip, future.result()


class _Extractor:
    """Decodes one clip after the other."""

    def __init__(self, audio: AudioConfig | None, video: VideoConfig | None) -> None:
        self.audio, self.video = audio, video
        self.log_mel = LogMel(audio.logmel) if audio is not None else None

    def __call__(self, job: Job) -> Extracted:
        clip, wants_audio, wants_video = job
        log_mel = frames = None
        path = media_path(clip.path)
        try:
            if wants_audio and self.audio is not None and self.log_mel is not None:
                waveform = decode_audio(path, self.audio.logmel.sample_rate, clip.start_s, clip.stop_s)
                with torch.inference_mode():
                    log_mel = self.log_mel(torch.from_numpy(waveform)).numpy().astype(np.float16)
            if wants_video and self.video is not None:
                frames = decode_video(path, self.video, clip.start_s, clip.stop_s)
        except AvrecogError as error:
            return Extracted(problem=str(error))
        return Extracted(log_mel, frames)


_worker: _Extractor


def _start_worker(audio: AudioConfig | None, video: VideoConfig | None) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Extractor(audio, video)


def _work(job: Job) -> Extracted:
    return _worker(job)


def _write_skipped(path: Path, skipped: Sequence[tuple[Clip, str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip_id", "path", "reason"])
        writer.writerows((clip.clip_id, clip.path, problem) for clip, problem in skipped)
