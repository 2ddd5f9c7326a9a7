"""What a network eats, as data: which sections of the front end, which clips, batches of which shapes.

A model's section gives one of these (`models/base.py`), `datasets/build.py` has the dataset that feeds each, and an
export keeps it, so that a clip can be predicted without the network's code. PyTorch is not needed.

T frames, H W height and width, S mel frames, M mel bands. A row is what a store holds: a mel frame, or a picture.
"""

import abc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from avrecog.config import Count, Fraction, WholeNumber, plain, section, validate
from avrecog.errors import ConfigError
from avrecog.features.front_end import FrontEnd


@dataclass(frozen=True)
class InputTensor:
    """One tensor of a batch."""

    name: str  # of the input in an ONNX model
    shape: tuple[int, ...]  # of one view: the batch's first axis comes before it
    flags: bool = False  # it holds ones and zeros


class ModelInput(abc.ABC):
    """What a network takes; a dataclass of the sizes that its batches have."""

    modalities: ClassVar[tuple[str, ...]]  # the sections of the front end that it reads
    classes: ClassVar[tuple[str, ...] | None] = None  # what it tells apart; None: the classes of the data

    def check(self, front_end: FrontEnd) -> None:
        """Refuse a front end that gives the network nothing, or too little.

        Raises:
            ConfigError: if a section is null, or what is stored is smaller than what the network sees.
        """
        for modality in self.modalities:
            if getattr(front_end, modality) is None:
                raise ConfigError(f"params.yaml: this model needs section `{modality}`, which is null")

    def usable(self, stored: Collection[str]) -> bool:
        """Whether it can take a clip of which these modalities are stored."""
        return any(modality in stored for modality in self.modalities)

    @abc.abstractmethod
    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """How many views a clip of `n_rows` store rows has at test time.

        Args:
            n_rows: of the clip; of a model of two modalities, pictures.
            n_clips: `test.n_clips`; None: as many as cover it.
        """

    @abc.abstractmethod
    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """The tensors of a batch, in the order of the network's arguments."""


@section
class LogMelInput(ModelInput):
    """A crop of log-mel: (1, S, M)."""

    modalities: ClassVar = ("audio",)

    mel_frames: Count
    sampling: Literal["time", "mmaction2-0.x", "mmaction2-1.x"] = "time"  # where crops lie; else by video frame numbers
    min_mels: Count = 1  # mel bands

    def check(self, front_end: FrontEnd) -> None:
        """As above; the bands must be enough for the network.

        Raises:
            ConfigError: likewise.
        """
        super().check(front_end)
        assert front_end.audio is not None
        if front_end.audio.logmel.n_mels < self.min_mels:
            raise ConfigError(
                f"params.yaml: this network needs {self.min_mels} mel bands at least, got audio.logmel.n_mels "
                f"{front_end.audio.logmel.n_mels}"
            )

    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """By frame numbers as many as are asked for; by time at most one for each place."""
        if n_clips is None:
            return _covering(n_rows, self.mel_frames)
        return n_clips if self.sampling != "time" else max(1, min(n_clips, n_rows - self.mel_frames + 1))

    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """`log_mel`."""
        return (_log_mel(self.mel_frames, front_end),)


@section
class SegmentInput(ModelInput):
    """Snippets of a video's equal segments: (N, 3 for each frame of a snippet, H, W)."""

    modalities: ClassVar = ("video",)

    n_segments: Count
    snippet: Count  # consecutive frames
    height: Count  # pixels, cut from the stored frames
    width: Count

    def check(self, front_end: FrontEnd) -> None:
        """As above; the stored frames must be as large as what the network sees.

        Raises:
            ConfigError: likewise.
        """
        super().check(front_end)
        _check_size(self.height, self.width, front_end)

    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """At most as many as show every frame."""
        covering = _covering(n_rows, self.n_segments * self.snippet)
        return covering if n_clips is None else max(1, min(n_clips, covering))

    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """`frames`."""
        return (InputTensor("frames", (self.n_segments, 3 * self.snippet, self.height, self.width)),)


@section
class SpanInput(ModelInput):
    """Frames of one span, evenly spaced: (T, 3, H, W)."""

    modalities: ClassVar = ("video",)

    frames: Count
    frame_stride: Count  # stored frames from one to the next
    height: Count  # pixels, cut from the stored frames
    width: Count
    n_crops: Literal[1, 3] = 1  # of a view at test time: the middle, or three along the longer side

    def check(self, front_end: FrontEnd) -> None:
        """As above; the stored frames must be as large as what the network sees.

        Raises:
            ConfigError: likewise.
        """
        super().check(front_end)
        _check_size(self.height, self.width, front_end)

    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """At most one for each place, times the crops."""
        window = self.frames * self.frame_stride
        covering = _covering(n_rows, window)
        return (covering if n_clips is None else max(1, min(n_clips, n_rows - window + 1))) * self.n_crops

    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """`frames`."""
        return (InputTensor("frames", (self.frames, 3, self.height, self.width)),)


@section
class MisalignedSounds:
    """How sounds that are not in time with a picture are found in training."""

    hard_from_epoch: WholeNumber = 0  # counted from 0: before it, all are other clips' (easy)
    hard_share: Fraction = 1.0  # of the clips, from then on, whose misaligned sound is their own at another time (hard)


@section
class AudioVisualInput(ModelInput):
    """A span of frames and the log-mel of the same time; a clip may lack one of them: (T, 3, H, W), (1, S, M), (2,)."""

    modalities: ClassVar = ("video", "audio")

    span: SpanInput
    mel_frames: Count  # of the log-mel of a span
    misaligned: MisalignedSounds | None = None  # of the sounds behind them in training; None: there are none

    def check(self, front_end: FrontEnd) -> None:
        """As above; the stored frames must be as large as what the network sees.

        Raises:
            ConfigError: likewise.
        """
        super().check(front_end)
        self.span.check(front_end)

    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """Those of the frames."""
        return self.span.n_views(n_rows, n_clips)

    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """`frames`, `log_mel`, and `present`: 1 where the clip has a picture, and a sound."""
        present = InputTensor("present", (2,), flags=True)
        return (*self.span.tensors(front_end), _log_mel(self.mel_frames, front_end), present)


@section
class SyncPairInput(ModelInput):
    """A span of frames and two sounds, of which one is its own: (T, 3, H, W), (1, S, M), (1, S, M)."""

    modalities: ClassVar = ("video", "audio")
    classes: ClassVar = ("first sound", "second sound")  # which is the picture's own

    span: SpanInput
    mel_frames: Count  # of the log-mel of a span
    misaligned: MisalignedSounds  # in training; in tests all are the clip's own, at another time

    def check(self, front_end: FrontEnd) -> None:
        """As above; the stored frames must be as large as what the network sees.

        Raises:
            ConfigError: likewise.
        """
        super().check(front_end)
        self.span.check(front_end)

    def usable(self, stored: Collection[str]) -> bool:
        """Only with both: there is nothing to compare where one is missing."""
        return all(modality in stored for modality in self.modalities)

    def n_views(self, n_rows: int, n_clips: int | None) -> int:
        """Those of the frames."""
        return self.span.n_views(n_rows, n_clips)

    def tensors(self, front_end: FrontEnd) -> tuple[InputTensor, ...]:
        """`frames`, `first` and `second`, the two sounds."""
        sounds = [_log_mel(self.mel_frames, front_end, name) for name in ("first", "second")]
        return (*self.span.tensors(front_end), *sounds)

    @property
    def audiovisual(self) -> AudioVisualInput:
        """The same clips with their own sound alone."""
        return AudioVisualInput(span=self.span, mel_frames=self.mel_frames)


def check_names_classes(model_input: ModelInput, checkpoint: Path) -> None:
    """Refuse a model that says only whether sound and picture fit.

    Raises:
        ConfigError: naming what uses it.
    """
    if model_input.classes is not None:
        raise ConfigError(
            f"{checkpoint}: this model compares sound and picture and names no classes; `avrecog sync` uses it"
        )


INPUTS: dict[str, type[ModelInput]] = {
    kind.__name__: kind for kind in (LogMelInput, SegmentInput, SpanInput, AudioVisualInput, SyncPairInput)
}


def plain_input(model_input: ModelInput) -> dict[str, Any]:
    """An input as plain values, which `read_input` makes it of again."""
    return {"kind": type(model_input).__name__, **plain(model_input)}


def read_input(values: Any) -> ModelInput:
    """The input that plain values describe.

    Raises:
        ConfigError: if they describe none.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in INPUTS:
        raise ConfigError(f"input.kind: expected one of {', '.join(INPUTS)}, got {kind!r}")
    read: ModelInput = validate(INPUTS[kind], {key: value for key, value in values.items() if key != "kind"}, "input")
    return read


def _covering(n_rows: int, window: int) -> int:
    """How many views of `window` rows, evenly spaced, it takes to cover a clip."""
    return max(1, -(-n_rows // window))


def _log_mel(mel_frames: int, front_end: FrontEnd, name: str = "log_mel") -> InputTensor:
    assert front_end.audio is not None
    return InputTensor(name, (1, mel_frames, front_end.audio.logmel.n_mels))


def _check_size(height: int, width: int, front_end: FrontEnd) -> None:
    assert front_end.video is not None
    stored = front_end.video
    if height > stored.height or width > stored.width:
        raise ConfigError(
            f"params.yaml: the model sees {height} x {width}, but frames of {stored.height} x {stored.width} are "
            f"stored; raise video.height and video.width"
        )
