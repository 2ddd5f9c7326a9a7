"""One media file as the rows that a store would hold."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from avrecog.errors import MediaError
from avrecog.features.front_end import FrontEnd
from avrecog.features.numpy_log_mel import log_mel
from avrecog.features.store import MemoryStore
from avrecog.inputs import ModelInput
from avrecog.media.clip_sound import whole_sound
from avrecog.media.container import Probe, probe
from avrecog.media.video import decode_video

log = logging.getLogger(__name__)


class Described(Protocol):
    """What is known of a model without its network."""

    @property
    def input(self) -> ModelInput:
        """What the network eats."""

    @property
    def front_end(self) -> FrontEnd:
        """How it hears and sees."""


def log_remarks(file: Path, remarks: Sequence[str]) -> None:
    """Log what is to be told of a file, in one line, each thing once."""
    if remarks:
        log.warning("%s: %s", file, "; ".join(dict.fromkeys(remarks)))


def decode_rows(file: Path, model: Described, remarks: list[str] | None = None) -> dict[str, MemoryStore]:
    """The whole file as the rows that the model's stores would hold; of two, one may be empty.

    Args:
        file: any file FFmpeg reads.
        model: whose front end and needs count.
        remarks: takes what is to be told: tracks that were passed over, sound that is missing.

    Raises:
        MediaError: if the file has nothing that the model needs.
    """
    remarks = [] if remarks is None else remarks
    found, lacking = {}, []
    probed = probe(file)
    remarks += probed.notes
    for section in model.input.modalities:
        try:
            found[section] = MemoryStore({"clip": _decode_section(file, model, section, probed, remarks)})
        except MediaError as error:
            lacking.append(error)
    if not found:
        raise lacking[0]
    for section in model.input.modalities:
        if section not in found:
            found[section] = MemoryStore({}, _no_rows(model, section))
    return found


def _decode_section(file: Path, model: Described, section: str, probed: Probe, remarks: list[str]) -> np.ndarray:
    if section == "audio":
        assert model.front_end.audio is not None
        front_end = model.front_end.audio.logmel
        waveform, told = whole_sound(file, front_end.sample_rate, probed)
        remarks += told
        return log_mel(waveform, front_end).astype(np.float16)
    assert model.front_end.video is not None
    return decode_video(file, model.front_end.video)


def _no_rows(model: Described, section: str) -> np.ndarray:
    if section == "audio":
        assert model.front_end.audio is not None
        return np.zeros((0, model.front_end.audio.logmel.n_mels), np.float16)
    assert model.front_end.video is not None
    return np.zeros((0, model.front_end.video.height, model.front_end.video.width, 3), np.uint8)
