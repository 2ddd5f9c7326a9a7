"""What a worker does with a group of clips: decode, make log-mels, hand over."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from avrecog.errors import AvrecogError
from avrecog.features.log_mel import LogMel, log_mel_blocks
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import Clip, media_path
from avrecog.media.audio import Heard
from avrecog.media.clip_sound import clip_sound
from avrecog.media.mmaction2_features import ENDING as FEATURES
from avrecog.media.mmaction2_features import read_features
from avrecog.media.video import video_frames
from avrecog.runtime.device import to_device
from avrecog.runtime.files import PARTIAL, naming

MAX_HELD = 8 * 2**20  # bytes of a clip that a worker holds and sends; what is longer goes through a file

Job = tuple[Clip, bool, bool]  # the clip, whether its sound is wanted, whether its picture is


@dataclass(frozen=True)
class Spooled:
    """Rows of a long clip in a file, which who takes them removes."""

    path: Path
    row_shape: tuple[int, ...]
    dtype: str

    def pieces(self) -> Iterator[np.ndarray]:
        """The rows, in pieces that are easily held."""
        n_values = math.prod(self.row_shape)
        n_rows = max(1, MAX_HELD // (n_values * np.dtype(self.dtype).itemsize))
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


def long_log_mel(
    config: LogMelConfig, blocks: Callable[[], Iterable[np.ndarray]], device: torch.device
) -> Iterator[np.ndarray]:
    """The log-mel of a waveform that is too long to be held: pieces (n, n_mels) float16."""
    with torch.inference_mode():
        for rows in log_mel_blocks(config, blocks, device):
            yield rows.half().cpu().numpy()


def log_mel_rows(front_end: LogMel, waveform: np.ndarray, device: torch.device) -> np.ndarray:
    """The log-mel of a waveform (n_samples,): (mel_frames, n_mels) float16."""
    with torch.inference_mode():
        return front_end(to_device(waveform, device)).half().cpu().numpy()


class Extractor:
    """Decodes some clips, then makes their log-mels: a processor is faster while it keeps to one kind of work."""

    def __init__(self, audio: AudioConfig | None, video: VideoConfig | None, folder: Path, makes_log_mel: bool) -> None:
        """Long clips go by way of files in `folder`."""
        self.audio, self.video, self.folder = audio, video, folder
        self.log_mel = LogMel(audio.logmel) if audio is not None and makes_log_mel else None

    def __call__(self, jobs: Sequence[Job]) -> list[Extracted]:
        """What came of each clip, in the order of the jobs."""
        decoded = [self._decoded(job) for job in jobs]
        return [self._add_log_mel(clip, each) for (clip, _, _), each in zip(jobs, decoded, strict=True)]

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
                    blocks = clip_sound(path, rate, clip.start_s, clip.stop_s, lasts_s=lasts_s, heard=sound)
                    waveform = self._held(blocks, "waveform")
            except (AvrecogError, MemoryError) as error:
                problems.append(_format_problem(clip, error))
        if wants_video and self.video is not None:
            try:
                pictures = video_frames(media_path(clip.path), self.video, clip.start_s, clip.stop_s)
                frames = self._held((picture[None] for picture in pictures), "frames")
            except (AvrecogError, MemoryError) as error:
                problems.append(_format_problem(clip, error))
        return Extracted(waveform, log_mel, frames, tuple(dict.fromkeys(problems)), sound)

    def _add_log_mel(self, clip: Clip, decoded: Extracted) -> Extracted:
        """With the log-mel of its waveform, where it is made here."""
        waveform = decoded.waveform
        if waveform is None or self.log_mel is None:
            return decoded
        cpu = torch.device("cpu")
        try:
            if isinstance(waveform, Spooled):
                log_mel = self._held(long_log_mel(self.log_mel.config, waveform.pieces, cpu), "log_mel")
            else:
                log_mel = log_mel_rows(self.log_mel, waveform, cpu)
        except (AvrecogError, MemoryError) as error:
            return replace(decoded, waveform=None, problems=(*decoded.problems, _format_problem(clip, error)))
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
            if n_bytes > MAX_HELD:
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


_worker: Extractor


def start_worker(extractor: Extractor) -> None:
    """Make a process ready to `work`."""
    global _worker
    torch.set_num_threads(1)
    _worker = extractor


def work(jobs: Sequence[Job]) -> list[Extracted]:
    """What came of each clip, in a worker process."""
    return _worker(jobs)


def _format_problem(clip: Clip, error: Exception) -> str:
    return str(error) or f"{clip.path}: too large for this machine's memory"
