"""Packets of one track -> frames."""

import itertools
from typing import Any

import av
import av.packet


class Decoder:
    """Decodes the packets of one track, and forgives what can't be decoded for want of what came before."""

    def __init__(self, stream: av.AudioStream | av.VideoStream, needed_s: float | None = None) -> None:
        """Of a track from its beginning, or after a seek, where sounds before the stamp `needed_s` only lead up."""
        self.needed_s, self.is_video, self.begun = needed_s, isinstance(stream, av.VideoStream), False
        if isinstance(stream, av.VideoStream) and not stream.codec_context.is_open:
            stream.thread_type = "NONE"  # one process a core already

    def __call__(self, packet: av.packet.Packet) -> list[Any]:
        """The frames that a packet gives.

        After a seek nothing counts before the first frame that needs no other, and sounds that lead up may be cut off
        at their beginning; at a file's beginning, packets that need others which aren't there may fail.

        Raises:
            FFmpegError: if it can't be decoded.
        """
        if is_empty(packet):
            return []
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            if is_tag(packet):
                return []
            leads_up = self.needed_s is not None and not self.is_video and comes_before(packet, self.needed_s)
            if not (leads_up if self.begun else self.needed_s is not None or not packet.is_keyframe):
                raise
            self.begun = False  # with what follows all begins anew
            return []
        if not self.begun:
            if self.needed_s is not None and self.is_video:
                frames = list(itertools.dropwhile(lambda frame: not frame.key_frame, frames))
            self.begun = bool(frames)
        return frames


def comes_before(packet: av.packet.Packet, stamp_s: float) -> bool:
    """Whether a packet may hold what comes before a time stamp in seconds."""
    return packet.dts is None or bool(packet.dts * packet.time_base <= stamp_s)


def is_empty(packet: av.packet.Packet) -> bool:
    """Whether a packet says that nothing changes, as Theora's may; decoders don't take it."""
    return not packet.size and packet.dts is not None


def is_tag(packet: av.packet.Packet) -> bool:
    """Whether a packet that can't be decoded says who sings, as between MP3 files that were put together."""
    return bytes(packet).startswith((b"ID3", b"TAG", b"APETAGEX"))
