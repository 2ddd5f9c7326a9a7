"""Media files that are wrong or odd, each made from a good one."""

import os
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SAMPLE_RATE = 16_000


def tone(seconds: float = 1.0, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(S,) float32 sine of 440 Hz at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Path:
    """(S,) or (S, C) float32 as a float WAV, byte by byte, so that any value can stand in it."""
    samples = np.atleast_2d(samples.astype("<f4").T).T
    n_channels, data = samples.shape[1], samples.tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, n_channels, sample_rate,
                         sample_rate * n_channels * 4, n_channels * 4, 32)  # fmt: skip
    path.write_bytes(header + struct.pack("<4sI", b"data", len(data)) + data)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut(path: Path, part: float) -> Path:
    """Keep the first part of a file."""
    return written(path, path.read_bytes()[: round(path.stat().st_size * part)])


def moov_first(path: Path) -> Path:
    """The same MP4 with its index before the media, so that a cut-off one can still be opened."""
    other = path.with_name(f"copy of {path.name}")
    with av.open(str(path)) as source, av.open(str(other), "w", options={"movflags": "faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    other.replace(path)
    return path


def without_packets(path: Path, start_s: float, stop_s: float) -> Path:
    """The same file, of whose packets those of a stretch are lost."""
    other = path.with_name(f"copy of {path.name}")
    with av.open(str(path)) as source, av.open(str(other), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and not start_s <= packet.pts * packet.time_base < stop_s:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    other.replace(path)
    return path


def corrupted(path: Path, begin: float, end: float) -> Path:
    """Overwrite a stretch of the media data of an MP4, in parts of its length."""
    content = bytearray(path.read_bytes())
    first = content.index(b"mdat") + 4
    last = content.index(b"moov") - 4
    start, stop = (round(first + part * (last - first)) for part in (begin, end))
    content[start:stop] = np.random.default_rng(0).bytes(stop - start)
    return written(path, bytes(content))


def longer_wav(path: Path) -> Path:
    """A WAV whose header says ten times its data."""
    content = bytearray(write_wav(path, tone()).read_bytes())
    struct.pack_into("<I", content, 40, 10 * struct.unpack_from("<I", content, 40)[0])
    return written(path, bytes(content))


def longer_in_the_header(path: Path) -> Path:
    """An MP4 whose headers say ten times its duration."""
    content = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = -1
        while (at := content.find(box, at + 1)) >= 0:
            place = at + offset
            (duration,) = struct.unpack_from(">I", content, place)
            struct.pack_into(">I", content, place, 10 * duration)
    at = content.find(b"stts")
    entries = struct.unpack_from(">I", content, at + 8)[0]
    assert entries == 1
    return written(path, bytes(content))


def rate_changes(path: Path) -> Path:
    """Frames at 25 a second for 0.4 s, then one every 0.2 s: 1.2 s in all."""
    times = [index / 25 for index in range(10)] + [0.4 + index / 5 for index in range(4)]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def odd_sizes(path: Path, width: int, height: int, n_frames: int = 12) -> Path:
    """A video of a size that H.264 in 4:2:0 does not allow (PNG frames in a MOV file)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=12)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        for index in range(n_frames):
            picture = np.full((height, width, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def larger_in_the_header(path: Path, times: int) -> Path:
    """A MOV of PNG frames whose headers say sides so many times as long."""
    content = bytearray(path.read_bytes())
    box = content.index(b"png ", content.index(b"stsd"))
    for place in (box + 28, box + 30):
        struct.pack_into(">H", content, place, times * struct.unpack_from(">H", content, place)[0])
    at = -1
    while (at := content.find(b"IHDR", at + 1)) >= 0:
        for place in (at + 4, at + 8):
            struct.pack_into(">I", content, place, times * struct.unpack_from(">I", content, place)[0])
    return written(path, bytes(content))


def with_cover(path: Path) -> Path:
    """An MP3 with a picture of its album."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8), format="rgb24")
        for packet in (*cover.encode(picture.reformat(format="yuvj420p")), *cover.encode(None)):
            container.mux(packet)
        wave = tone(1.0, 44_100)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def zipped(path: Path, content: bytes) -> Path:
    """An archive that holds a file as it is."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mp3", content)
    return path


def link_loop(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path
