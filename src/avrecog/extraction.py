"""Stage extract: decode every clip of the manifest once and store its log-mel and its frames."""

import contextlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from avrecog.atomic import PARTIAL, naming, sole_writer
from avrecog.clip_tables import ClipTable, shorter_tracks, write_table
from avrecog.config import plain
from avrecog.errors import AvrecogError, ConfigError, MediaError
from avrecog.hardware import pick_device, to_device
from avrecog.logmel import FRONT_ENDS, AudioConfig, LogMel, LogMelConfig, log_mel_blocks
from avrecog.manifests.clip import Clip, clips_digest, media_path
from avrecog.manifests.media_files import check_unchanged
from avrecog.media.audio import Heard
from avrecog.media.clip_sound import clip_sound
from avrecog.media.features import ENDING as FEATURES
from avrecog.media.features import read_features
from avrecog.media.settings import VideoConfig
from avrecog.media.video import video_frames
from avrecog.outcome import Outcome, said_skipped
from avrecog.store import StoreWriter
from avrecog.workers import n_processors, worker_pool

log = logging.getLogger(__name__)

MOST_HELD = 8 * 2**20  # bytes of a clip that a worker holds and sends; what is longer goes through a file
CLIPS_PER_WORKER = 32  # fewer than this don't pay for starting one more process
MOST_TOGETHER = 8  # clips of sound alone that a worker decodes one after another before it makes their log-mels
MOST_TOGETHER_S = 60.0


@dataclass(frozen=True)
class Spooled:
    """Rows of a long clip in a file, which who takes them removes."""

    path: Path
    row_shape: tuple[int, ...]
    dtype: str

    def pieces(self) -> Iterator[np.ndarray]:
        """The rows, in pieces that are easily held."""
        n_values = math.prod(self.row_shape)
        n_rows = max(1, MOST_HELD // (n_values * np.dtype(self.dtype).itemsize))
        with self.path.open("rb") as file:
            while len(values := np.fromfile(file, self.dtype, n_rows * n_values)):
                yield values.reshape(-1, *self.row_shape)


Rows = np.ndarray | Spooled


@dataclass(frozen=True)
class Extracted:
    """What came of one clip; a modality that the clip lacks, or that isn't asked for, is None."""

    waveform: Rows | None = None  # (n_samples,) float32, where the log-mel is not made yet
    log_mel: Rows | None = None  # (mel_frames, n_mels) float16
    frames: Rows | None = None  # (n_frames, height, width, 3) uint8
    problems: tuple[str, ...] = ()  # why a modality is missing that was asked for
    sound: Heard = field(default_factory=Heard)  # what is to be told of the sound


def extract_all(
    clips: Sequence[Clip], out: Path, audio: AudioConfig | None, video: VideoConfig | None, max_skipped: float
) -> Outcome:
    """Fill `out/audio` (log-mel, float16) and `out/video` (RGB, uint8) with all clips.

    All processors decode; where there is a GPU, it makes the log-mel. Feature files of MMAction2 (.npy) are stored as
    they are. Clips that a kill left stored are kept. What can't be decoded of a clip is listed in `out/skipped.csv`,
    what lasts less than the manifest says in `out/shorter.csv`, silence in place of sound that is missing in
    `out/gaps.csv`, and channels that cancel each other out in `out/cancelled.csv`. Memory doesn't grow with the number
    of clips or their length: rows of more than `MOST_HELD` bytes go by way of a file in `out`.

    Raises:
        ConfigError: if there are feature files, and the front end in force is not the one they were made by.
        MediaError: if files have changed since stage prepare read them, or more than the fraction `max_skipped` of the
            clips can't be decoded.
        LockError: if another process is writing `out`.
    """
    began = time.perf_counter()
    _check_features(clips, audio)
    check_unchanged(clips)
    with sole_writer(out), contextlib.ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        if audio is not None:
            settings = {"front_end": plain(audio.logmel), "clips": clips_digest(clips)}
            writers["audio"] = StoreWriter(out / "audio", settings, (audio.logmel.n_mels,), "float16")
        if video is not None:
            settings = {"front_end": plain(video), "clips": clips_digest(clips)}
            writers["video"] = StoreWriter(out / "video", settings, (video.height, video.width, 3), "uint8")
        for writer in writers.values():
            stack.callback(writer.close)
        stored = writers["audio"].stored if "audio" in writers else {}
        gaps = ClipTable(out / "gaps.csv", ["gap", "start_s", "stop_s"], stored)
        cancelled = ClipTable(out / "cancelled.csv", ["sound"], stored)
        n_new, skipped = _fill(clips, writers, audio, video, out, gaps, cancelled)
        for writer in writers.values():
            writer.finish()
        write_table(out / "skipped.csv", "reason", skipped)
        rates = {"audio": audio.logmel.sample_rate / audio.logmel.hop_length if audio is not None else 0.0}
        rates["video"] = video.fps if video is not None else 0.0
        shorter = shorter_tracks(clips, {name: writer.stored for name, writer in writers.items()}, rates)
        write_table(out / "shorter.csv", "stored", shorter)
        gap_rows, n_cancelled = gaps.finish(clips), len(cancelled.finish(clips))
        for writer in writers.values():
            writer.seal()
        n_bytes = sum(writer.n_bytes for writer in writers.values())
    seconds = time.perf_counter() - began
    n_skipped = len({clip.clip_id for clip, _ in skipped})
    if n_skipped > max_skipped * len(clips):
        first = "\n  ".join(f"{clip.clip_id}: {problem}" for clip, problem in skipped[:20])
        raise MediaError(
            f"{said_skipped(n_skipped, len(clips), max_skipped, 'decoded')}; all are in {out}/skipped.csv:\n  {first}"
        )
    hours = sum(clip.duration_s for clip in clips) / 3600
    summary = f"{len(clips):,} clips -> {out} ({n_bytes / 1e6:,.1f} MB) in {seconds:.0f} s; {n_skipped} skipped"
    if skipped:
        summary += f", see {out}/skipped.csv"
    if shorter:
        summary += f"; {len(shorter)} tracks are shorter than the manifest says, see {out}/shorter.csv"
    gap_s = sum(float(row[4]) - float(row[3]) for row in gap_rows if row[2] == "silence")
    if gap_rows:
        n_clips = len({row[0] for row in gap_rows})
        summary += f"; {n_clips} clips with gaps in their sound, {gap_s:.1f} s in all, see {out}/gaps.csv"
    if n_cancelled:
        summary += f"; {n_cancelled} clips whose channels cancel each other out, see {out}/cancelled.csv"
    return Outcome(
        summary=summary,
        metrics={
            "n_clips": len(clips),
            "n_new_clips": n_new,
            "n_skipped": n_skipped,
            "n_shorter": len(shorter),
            "n_gaps": len(gap_rows),
            "gap_s": gap_s,
            "n_cancelled": n_cancelled,
            "clips_per_s": n_new / seconds,
            "hours_per_min": hours / (seconds / 60) if n_new == len(clips) else None,
            "ms_per_clip": 1000 * seconds / n_new if n_new else None,
            "store_mib": n_bytes / 2**20,
        },
        files=[out / name for name in ("skipped.csv", "shorter.csv", "gaps.csv", "cancelled.csv")],
    )


def _check_features(clips: Sequence[Clip], audio: AudioConfig | None) -> None:
    """Refuse to store feature files under settings that they were not made by.

    Raises:
        ConfigError: naming the first one.
    """
    first = next((clip.path for clip in clips if clip.path.endswith(FEATURES)), None)
    if first is not None and audio is not None and audio.logmel != FRONT_ENDS["mmaction2"]:
        raise ConfigError(
            f"params.yaml: {first} holds features that MMAction2 made, which only its own front end describes; set "
            f"audio.logmel: mmaction2"
        )


def _fill(
    clips: Sequence[Clip],
    writers: dict[str, StoreWriter],
    audio: AudioConfig | None,
    video: VideoConfig | None,
    folder: Path,
    gaps: ClipTable,
    cancelled: ClipTable,
) -> tuple[int, list[tuple[Clip, str]]]:
    """Decode the clips that the writers lack, long ones by way of `folder`; how many that were, and what failed."""

    def wanted(clip: Clip, modality: str, has: bool) -> bool:
        return modality in writers and has and clip.clip_id not in writers[modality].stored

    jobs = [
        (clip, wanted(clip, "audio", clip.has_audio), wanted(clip, "video", clip.has_video))
        for clip in clips
        if wanted(clip, "audio", clip.has_audio) or wanted(clip, "video", clip.has_video)
    ]
    skipped = []
    device = pick_device()
    # where there is a GPU the workers only decode
    on_gpu = LogMel(audio.logmel).to(device) if audio is not None and device.type == "cuda" else None
    progress = tqdm(total=len(clips), initial=len(clips) - len(jobs), unit="clip", desc="extract", mininterval=1)
    for clip, result in _extracted(jobs, _Extractor(audio, video, folder, makes_log_mel=on_gpu is None)):
        progress.update()
        skipped += [(clip, problem) for problem in result.problems]
        gaps.add(clip, *_said_gaps(result.sound))
        cancelled.add(clip, *([("stereo in opposite phase",)] if result.sound.cancels else []))
        if on_gpu is not None and result.waveform is not None:
            _store_waveform(writers["audio"], clip.clip_id, result.waveform, on_gpu, device)
        if result.log_mel is not None:
            _store(writers["audio"], clip.clip_id, result.log_mel)
        if result.frames is not None:
            _store(writers["video"], clip.clip_id, result.frames)
    progress.close()
    return len(jobs), skipped


def _store(writer: StoreWriter, clip_id: str, rows: Rows) -> None:
    if isinstance(rows, Spooled):
        writer.append_pieces(clip_id, rows.pieces())
        rows.path.unlink()
    else:
        writer.append(clip_id, rows)


def _store_waveform(writer: StoreWriter, clip_id: str, waveform: Rows, front_end: LogMel, device: torch.device) -> None:
    """Store the log-mel of a waveform."""
    if isinstance(waveform, Spooled):
        writer.append_pieces(clip_id, _long_log_mel(front_end.config, waveform.pieces, device))
        waveform.path.unlink()
    else:
        writer.append(clip_id, _log_mel(front_end, waveform, device))


def _long_log_mel(
    config: LogMelConfig, blocks: Callable[[], Iterable[np.ndarray]], device: torch.device
) -> Iterator[np.ndarray]:
    with torch.inference_mode():
        for rows in log_mel_blocks(config, blocks, device):
            yield rows.half().cpu().numpy()


def _log_mel(front_end: LogMel, waveform: np.ndarray, device: torch.device) -> np.ndarray:
    with torch.inference_mode():
        return front_end(to_device(waveform, device)).half().cpu().numpy()


Job = tuple[Clip, bool, bool]  # the clip, whether its sound is wanted, whether its picture is


def _extracted(jobs: Sequence[Job], extractor: "_Extractor") -> Iterator[tuple[Clip, Extracted]]:
    """Every job's result, in the order of the jobs, worked on by all processors."""
    n_workers = min(n_processors(), math.ceil(len(jobs) / CLIPS_PER_WORKER))
    with worker_pool(__name__, n_workers, _start_worker, (extractor,)) as pool:
        if pool is None:
            for group in _together(jobs):
                yield from zip((clip for clip, _, _ in group), extractor(group), strict=True)
            return
        waiting: deque[tuple[Sequence[Job], Future[list[Extracted]]]] = deque()
        for group in _together(jobs):
            waiting.append((group, pool.submit(_work, group)))
            if len(waiting) > 4 * n_workers:  # enough to keep all busy, few enough to keep memory flat
                yield from _results(*waiting.popleft())
        for group, future in waiting:
            yield from _results(group, future)


def _together(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """The jobs in groups, in their order; a clip whose picture is wanted is a group by itself."""
    begin, seconds = 0, 0.0
    for number, (clip, _, wants_picture) in enumerate(jobs):
        seconds += clip.duration_s
        full = number - begin == MOST_TOGETHER or seconds > MOST_TOGETHER_S
        if number > begin and (full or wants_picture or jobs[begin][2]):
            yield jobs[begin:number]
            begin, seconds = number, clip.duration_s
    if begin < len(jobs):
        yield jobs[begin:]


def _results(group: Sequence[Job], future: "Future[list[Extracted]]") -> Iterator[tuple[Clip, Extracted]]:
    """What came of the clips of a group.

    Raises:
        MediaError: if a worker process has died, as FFmpeg can over a broken file, or for want of memory.
    """
    clips = [clip for clip, _, _ in group]
    try:
        yield from zip(clips, future.result(), strict=True)
    except BrokenProcessPool:
        raise MediaError(
            f"{clips[0].path}: a process that was decoding this clip, or one of the few after it, has died (a file "
            f"that crashes the decoder, or no memory left); drop the row, or run the same command again, which goes on "
            f"here"
        ) from None


class _Extractor:
    """Decodes some clips, then makes their log-mels: a processor is faster while it keeps to one kind of work."""

    def __init__(self, audio: AudioConfig | None, video: VideoConfig | None, folder: Path, makes_log_mel: bool) -> None:
        """Long clips go by way of files in `folder`."""
        self.audio, self.video, self.folder = audio, video, folder
        self.log_mel = LogMel(audio.logmel) if audio is not None and makes_log_mel else None

    def __call__(self, jobs: Sequence[Job]) -> list[Extracted]:
        decoded = [self._decoded(job) for job in jobs]
        return [self._heard(clip, each) for (clip, _, _), each in zip(jobs, decoded, strict=True)]

    def _decoded(self, job: Job) -> Extracted:
        clip, wants_audio, wants_video = job
        waveform = log_mel = frames = None
        problems, sound = [], Heard()
        if wants_audio and self.audio is not None:
            path, rate = media_path(clip.path), self.audio.logmel.sample_rate
            try:
                if path.suffix == FEATURES:
                    log_mel = read_features(path, clip.start_s, clip.stop_s)
                else:
                    lasts_s = None if clip.duration_estimated else clip.duration_s
                    blocks = clip_sound(path, rate, clip.start_s, clip.stop_s, lasts_s, sound)
                    waveform = self._held(blocks, "waveform")
            except (AvrecogError, MemoryError) as error:
                problems.append(_said(clip, error))
        if wants_video and self.video is not None:
            try:
                pictures = video_frames(media_path(clip.path), self.video, clip.start_s, clip.stop_s)
                frames = self._held((picture[None] for picture in pictures), "frames")
            except (AvrecogError, MemoryError) as error:
                problems.append(_said(clip, error))
        return Extracted(waveform, log_mel, frames, tuple(dict.fromkeys(problems)), sound)

    def _heard(self, clip: Clip, decoded: Extracted) -> Extracted:
        """With the log-mel of its waveform, where it is made here."""
        waveform = decoded.waveform
        if waveform is None or self.log_mel is None:
            return decoded
        cpu = torch.device("cpu")
        try:
            if isinstance(waveform, Spooled):
                log_mel = self._held(_long_log_mel(self.log_mel.config, waveform.pieces, cpu), "log_mel")
            else:
                log_mel = _log_mel(self.log_mel, waveform, cpu)
        except (AvrecogError, MemoryError) as error:
            return replace(decoded, waveform=None, problems=(*decoded.problems, _said(clip, error)))
        finally:
            if isinstance(waveform, Spooled):
                waveform.path.unlink()
        return replace(decoded, waveform=None, log_mel=log_mel)

    def _held(self, pieces: Iterable[np.ndarray], name: str) -> Rows:
        """All pieces as one array, or in a file where they are too many."""
        held: list[np.ndarray] = []
        pieces, n_bytes = iter(pieces), 0
        for piece in pieces:
            held.append(piece)
            n_bytes += piece.nbytes
            if n_bytes > MOST_HELD:
                break
        else:
            return held[0] if len(held) == 1 else np.concatenate(held)
        path = self.folder / f"{PARTIAL}{os.getpid()}-{name}-{time.monotonic_ns()}"
        try:
            with naming(path), path.open("xb") as file:
                file.writelines(each.tobytes() for each in held)
                held.clear()
                for piece in pieces:
                    file.write(piece.tobytes())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spooled(path, piece.shape[1:], piece.dtype.str)


_worker: _Extractor


def _start_worker(extractor: _Extractor) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = extractor


def _work(jobs: Sequence[Job]) -> list[Extracted]:
    return _worker(jobs)


def _said(clip: Clip, error: Exception) -> str:
    return str(error) or f"{clip.path}: too large for this machine's memory"


def _said_gaps(sound: Heard) -> list[tuple[str, str, str]]:
    """Where silence stands for sound that is missing, and where doubled sound was cut, in seconds of the file."""
    kinds = {"silence": sound.gaps, "doubled": sound.overlaps}
    return [(kind, f"{begin:.3f}", f"{end:.3f}") for kind, spans in kinds.items() for begin, end in spans]
