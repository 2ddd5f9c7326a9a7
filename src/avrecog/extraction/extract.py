"""Stage extract: decode every clip of the manifest once and store its log-mel and its frames."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from avrecog.config import plain
from avrecog.errors import ConfigError, MediaError
from avrecog.extraction.clip_tables import ClipTable, shorter_tracks, write_table
from avrecog.extraction.pool import extracted
from avrecog.extraction.store_writer import StoreWriter
from avrecog.extraction.worker import Extractor, Rows, Spooled, log_mel_rows, long_log_mel
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import FRONT_ENDS, AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import Clip, clips_digest, media_path
from avrecog.media.audio import Heard
from avrecog.media.mmaction2_features import ENDING as FEATURES
from avrecog.media.read_files import check_unchanged
from avrecog.runtime.device import pick_device
from avrecog.runtime.files import sole_writer
from avrecog.tracking.outcome import Outcome, format_skipped


def extract_all(
    clips: Sequence[Clip], out: Path, audio: AudioConfig | None, video: VideoConfig | None, max_skipped: float
) -> Outcome:
    """Fill `out/audio` (log-mel, float16) and `out/video` (RGB, uint8) with all clips.

    All processors decode; where there is a GPU, it makes the log-mel. Feature files of MMAction2 (.npy) are stored as
    they are. Clips that a kill left stored are kept. What can't be decoded of a clip is listed in `out/skipped.csv`,
    what lasts less than the manifest says in `out/shorter.csv`, silence in place of sound that is missing in
    `out/gaps.csv`, and channels that cancel each other out in `out/cancelled.csv`. Memory doesn't grow with the number
    of clips or their length: rows of more than `MAX_HELD` bytes go by way of a file in `out`.

    Raises:
        ConfigError: if there are feature files, and the front end in force is not the one they were made by.
        MediaError: if files have changed since stage prepare read them, or more than the fraction `max_skipped` of the
            clips can't be decoded.
        LockError: if another process is writing `out`.
    """
    began = time.perf_counter()
    _check_features(clips, audio)
    check_unchanged({clip.path: (media_path(clip.path), clip.digest) for clip in clips if clip.digest})
    with sole_writer(out), contextlib.ExitStack() as stack:
        stores = _Stores.begin(clips, out, audio, video, stack)
        n_new, skipped = _fill(clips, stores)
        for writer in stores.writers.values():
            writer.finish()
        write_table(out / "skipped.csv", "reason", skipped)
        shorter = shorter_tracks(clips, {name: each.stored for name, each in stores.writers.items()}, stores.rates)
        write_table(out / "shorter.csv", "stored", shorter)
        gap_rows, cancelled_rows = stores.gaps.finish(clips), stores.cancelled.finish(clips)
        for writer in stores.writers.values():
            writer.seal()
        n_bytes = sum(writer.n_bytes for writer in stores.writers.values())
    seconds = time.perf_counter() - began
    n_skipped = len({clip.clip_id for clip, _ in skipped})
    if n_skipped > max_skipped * len(clips):
        first = "\n  ".join(f"{clip.clip_id}: {problem}" for clip, problem in skipped[:20])
        raise MediaError(
            f"{format_skipped(n_skipped, len(clips), max_skipped, 'decoded')}; all are in {out}/skipped.csv:\n  {first}"
        )
    hours = sum(clip.duration_s for clip in clips) / 3600
    metrics: dict[str, float | None] = {
        "n_clips": len(clips),
        "n_new_clips": n_new,
        "n_skipped": n_skipped,
        "n_shorter": len(shorter),
        "n_gaps": len(gap_rows),
        "gap_s": sum(float(row[4]) - float(row[3]) for row in gap_rows if row[2] == "silence"),
        "n_cancelled": len(cancelled_rows),
        "clips_per_s": n_new / seconds,
        "hours_per_min": hours / (seconds / 60) if n_new == len(clips) else None,
        "ms_per_clip": 1000 * seconds / n_new if n_new else None,
        "store_mib": n_bytes / 2**20,
    }
    head = f"{metrics['n_clips']:,} clips -> {out} ({n_bytes / 1e6:,.1f} MB) in {seconds:.0f} s"
    return Outcome(
        f"{head}; {_summary(metrics, len({row[0] for row in gap_rows}), out)}",
        metrics,
        files=[out / name for name in ("skipped.csv", "shorter.csv", "gaps.csv", "cancelled.csv")],
    )


def _summary(metrics: Mapping[str, float | None], n_with_gaps: int, out: Path) -> str:
    """What isn't as the manifest says, and the table that lists it."""
    parts = [f"{metrics['n_skipped']} skipped" + (f", see {out}/skipped.csv" if metrics["n_skipped"] else "")]
    if metrics["n_shorter"]:
        parts.append(f"{metrics['n_shorter']} tracks are shorter than the manifest says, see {out}/shorter.csv")
    if metrics["n_gaps"]:
        gaps = f"{n_with_gaps} clips with gaps in their sound, {metrics['gap_s']:.1f} s in all"
        parts.append(f"{gaps}, see {out}/gaps.csv")
    if metrics["n_cancelled"]:
        parts.append(f"{metrics['n_cancelled']} clips whose channels cancel each other out, see {out}/cancelled.csv")
    return "; ".join(parts)


@dataclass(frozen=True)
class _Stores:
    """What is being written."""

    folder: Path
    audio: AudioConfig | None
    video: VideoConfig | None
    writers: dict[str, StoreWriter]  # by modality
    gaps: ClipTable
    cancelled: ClipTable

    @classmethod
    def begin(
        cls,
        clips: Sequence[Clip],
        folder: Path,
        audio: AudioConfig | None,
        video: VideoConfig | None,
        stack: contextlib.ExitStack,
    ) -> "_Stores":
        """The stores, begun or taken up; `stack` closes them."""
        digest = clips_digest(clips)
        writers: dict[str, StoreWriter] = {}
        if audio is not None:
            settings = {"front_end": plain(audio.logmel), "clips": digest}
            writers["audio"] = StoreWriter(folder / "audio", settings, (audio.logmel.n_mels,), "float16")
        if video is not None:
            settings = {"front_end": plain(video), "clips": digest}
            writers["video"] = StoreWriter(folder / "video", settings, (video.height, video.width, 3), "uint8")
        for writer in writers.values():
            stack.callback(writer.close)
        stored = writers["audio"].stored if "audio" in writers else {}
        gaps = ClipTable(folder / "gaps.csv", ["gap", "start_s", "stop_s"], stored)
        return cls(folder, audio, video, writers, gaps, ClipTable(folder / "cancelled.csv", ["sound"], stored))

    @property
    def rates(self) -> dict[str, float]:
        """Rows a second, by modality."""
        audio, video = self.audio, self.video
        return {"audio": audio.logmel.frames_per_s if audio else 0.0, "video": video.fps if video else 0.0}

    def lacks(self, clip: Clip, modality: str, has: bool) -> bool:
        """Whether a modality is wanted of a clip that has it, and isn't stored."""
        return modality in self.writers and has and clip.clip_id not in self.writers[modality].stored


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


def _fill(clips: Sequence[Clip], stores: _Stores) -> tuple[int, list[tuple[Clip, str]]]:
    """Decode the clips that the stores lack; how many that were, and what failed."""
    audio, writers = stores.audio, stores.writers
    wanted = [
        (clip, stores.lacks(clip, "audio", clip.has_audio), stores.lacks(clip, "video", clip.has_video))
        for clip in clips
    ]
    jobs = [job for job in wanted if job[1] or job[2]]
    skipped = []
    device = pick_device()
    # where there is a GPU the workers only decode
    on_gpu = LogMel(audio.logmel).to(device) if audio is not None and device.type == "cuda" else None
    progress = tqdm(total=len(clips), initial=len(clips) - len(jobs), unit="clip", desc="extract", mininterval=1)
    for clip, result in extracted(jobs, Extractor(audio, stores.video, stores.folder, makes_log_mel=on_gpu is None)):
        progress.update()
        skipped += [(clip, problem) for problem in result.problems]
        stores.gaps.add(clip, *_gap_rows(result.sound))
        stores.cancelled.add(clip, *([("stereo in opposite phase",)] if result.sound.cancels else []))
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
        writer.append_pieces(clip_id, long_log_mel(front_end.config, waveform.pieces, device))
        waveform.path.unlink()
    else:
        writer.append(clip_id, log_mel_rows(front_end, waveform, device))


def _gap_rows(sound: Heard) -> list[tuple[str, str, str]]:
    """Where silence stands for sound that is missing, and where doubled sound was cut, in seconds of the file."""
    kinds = {"silence": sound.gaps, "doubled": sound.overlaps}
    return [(kind, f"{begin:.3f}", f"{end:.3f}") for kind, spans in kinds.items() for begin, end in spans]
