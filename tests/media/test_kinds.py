"""What is media: sound and moving pictures, whatever the files are called; nothing else, whatever FFmpeg opens."""

import contextlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from avrecog.errors import MediaError, NotMediaError
from avrecog.media.audio import decode_audio
from avrecog.media.container import probe
from avrecog.media.opening import open_media
from bad_input.media import cut, written, zipped
from clips import make_tone, make_video
from telling import Kind, make

SUBTITLES = {
    "a.srt": "1\n00:00:00,000 --> 00:00:01,000\nHi\n",
    "a.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nHi\n",
    "a.ass": "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
    "Dialogue: 0,0:00:00.00,0:00:01.00,Default,Hi\n",
    "a.smi": "<SAMI><BODY><SYNC Start=0>Hi</BODY></SAMI>",
}
PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nt.wav\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile 't.wav'\n",
    "b.ffconcat": "ffconcat version 1.0\nfile '/t.wav'\n",
    "a.pls": "[playlist]\nFile1=t.wav\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
}
TEXTS = {
    "a.txt": "hello\n" * 50,
    "a.nfo": "hello\n" * 50,
    "README.md": "# Hello\n" * 80,
    "a.csv": "a,b\n1,2\n" * 50,
    "a": "hello world\n" * 30,
    "a.ffmeta": ";FFMETADATA1\ntitle=x\n",
    "a.json": '{"a": 1}',
    "a.lrc": "[00:01.00]hi\n",
    "a.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
}


def picture(path: Path, codec: str, pix_fmt: str, n_frames: int = 1, container: str = "image2") -> Path:
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pix_fmt
        for index in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * index, np.uint8), format="rgb24")
            target.mux(stream.encode(frame.reformat(format=pix_fmt)))
        target.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", [*SUBTITLES, *PLAYLISTS, *TEXTS])
def test_text_of_any_sort_is_no_media(tmp_path, name):
    make_tone(tmp_path / "t.wav")
    content = {**SUBTITLES, **PLAYLISTS, **TEXTS}[name]
    with pytest.raises(NotMediaError, match=f"{tmp_path}/{name}: "):
        probe(written(tmp_path / name, content.encode()))


def test_a_playlist_is_not_played(tmp_path):
    make_tone(tmp_path / "t.wav")
    with pytest.raises(NotMediaError, match="a.ffconcat: a playlist, no sound and no moving picture"):
        decode_audio(written(tmp_path / "a.ffconcat", PLAYLISTS["a.ffconcat"].encode()), 16_000)


STILLS = [
    ("a.png", "png", "rgb24", "image2"),
    ("a.jpg", "mjpeg", "yuvj420p", "image2"),
    ("a", "mjpeg", "yuvj420p", "image2"),
    ("photo", "png", "rgb24", "image2"),
    ("a.bmp", "bmp", "bgr24", "image2"),
    ("a.tiff", "tiff", "rgb24", "image2"),
    ("a.webp", "libwebp", "yuv420p", "image2"),
    ("a.gif", "gif", "rgb8", "gif"),
    ("a.apng", "apng", "rgb24", "apng"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "container"), STILLS, ids=[case[0] for case in STILLS])
def test_a_still_picture_is_no_media(tmp_path, name, codec, pix_fmt, container):
    path = picture(tmp_path / name, codec, pix_fmt, container=container)
    with pytest.raises(NotMediaError, match="a still picture, no sound and no moving picture"):
        probe(path)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.gif", "gif", "rgb8"), ("a.apng", "apng", "rgb24")])
def test_an_animation_is_a_moving_picture(tmp_path, name, codec, pix_fmt):
    found = probe(picture(tmp_path / name, codec, pix_fmt, n_frames=10, container=codec))
    assert found.has_video
    assert found.duration_s == pytest.approx(1.0, abs=0.15)


def test_photographs_in_mp4s_container_are_no_media(tmp_path):
    content = bytearray(make_video(tmp_path / "a.mp4", n_frames=1, with_audio=False).path.read_bytes())
    content[8:12] = b"heic"
    with pytest.raises(NotMediaError, match="a still picture"):
        probe(written(tmp_path / "photo.heic", bytes(content)))


@pytest.mark.parametrize("name", ["x.wav", "x.MP4", "x.amr", "x.MTS", "x.w64"])
@pytest.mark.parametrize("content", [b"", b"this is no film\n" * 99, bytes(range(256)) * 20])
def test_what_is_named_as_media_and_is_none_is_an_error(tmp_path, name, content):
    with pytest.raises(MediaError) as told:
        probe(written(tmp_path / name, content))
    assert type(told.value) is MediaError


@pytest.mark.parametrize("name", ["x", "x.bin", "x.pdf", "x.zip", "x.npz", "x.mid"])
@pytest.mark.parametrize(
    "content", [b"", np.random.default_rng(0).bytes(50_000), b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\0"]
)
def test_what_nothing_knows_and_no_name_claims_is_no_media(tmp_path, name, content):
    with pytest.raises(NotMediaError):
        probe(written(tmp_path / name, content))


def test_a_still_picture_or_subtitles_named_as_a_film_are_an_error(tmp_path):
    picture(tmp_path / "a.png", "png", "rgb24").rename(tmp_path / "a.mp4")
    written(tmp_path / "b.mp4", SUBTITLES["a.srt"].encode())
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(MediaError, match="no sound and no moving picture") as told:
            probe(tmp_path / name)
        assert type(told.value) is MediaError


@pytest.mark.parametrize(
    "make", [lambda path: cut(make_video(path).path, 0.5), lambda path: cut(make_tone(path).path, 0.005)]
)
def test_media_of_any_name_that_is_broken_is_an_error(tmp_path, make):
    ending = ".mp4" if "video" in make.__code__.co_names[1] else ".flac"
    path = make(tmp_path / f"a{ending}").rename(tmp_path / "a.dat")
    with pytest.raises(MediaError) as told:
        probe(path)
    assert type(told.value) is MediaError


def test_media_of_any_name_is_media(tmp_path):
    make_tone(tmp_path / "a.flac").path.rename(tmp_path / "a.txt")
    assert probe(tmp_path / "a.txt").has_audio


def test_a_missing_file_is_an_error_whatever_its_name(tmp_path):
    with pytest.raises(MediaError, match="no such file") as told:
        probe(tmp_path / "a.txt")
    assert type(told.value) is MediaError


NAMED_IN_LISTS = [
    *PLAYLISTS,
    *("b.m3u8", "a.txt", "b.mpd", "cpl.xml"),
]
OTHER_LISTS = {
    "b.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nt.ts\n#EXT-X-ENDLIST\n",
    "a.txt": "\n#EXTM3U\n#EXTINF:1,\nt.ts\n",
    "b.mpd": '\ufeff<?xml version="1.0"?>\n<!-- a -->\n<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" '
    'type="static"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>t.ts'
    "</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>",
    "cpl.xml": '<?xml version="1.0"?><CompositionPlaylist></CompositionPlaylist>',
}


@pytest.mark.parametrize("name", NAMED_IN_LISTS)
def test_nothing_that_a_playlist_names_is_opened(tmp_path, name):
    content = {**PLAYLISTS, **OTHER_LISTS}[name]
    with unopened_pipe(tmp_path / "t.ts"), unopened_pipe(tmp_path / "t.wav"):
        path = written(tmp_path / name, content.encode())
        with pytest.raises(NotMediaError, match=r"a playlist|can't be decoded"):
            probe(path)
        for reading in (decode_audio, lambda path, _: list(demuxed(path))):
            with pytest.raises(MediaError):
                reading(path, 16_000)


@contextlib.contextmanager
def unopened_pipe(path: Path) -> Iterator[None]:
    """A pipe: opening it for writing fails as long as nobody has it open for reading."""
    os.mkfifo(path)
    found: list[bool] = []
    stop = threading.Event()

    def watch() -> None:  # what waits for a writer is let go, and told
        while not stop.wait(0.05):
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                found.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        path.unlink()
    assert not found, f"{path} was opened"


def demuxed(path: Path) -> Iterator[int]:
    with open_media(path) as container:
        for packet in container.demux():
            yield packet.size


def tarred(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a.mp3")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


def behind(begin: bytes) -> Callable[[Path, bytes], Path]:
    return lambda path, content: written(path, begin + bytes(2048 - len(begin)) + content)


def iso(path: Path, content: bytes) -> Path:
    return written(path, bytes(32_768) + b"\1CD001\1" + bytes(2041) + content)


ARCHIVES = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.pdf": behind(b"%PDF-1.7\n"),
    "a.gz": behind(b"\x1f\x8b\x08\0"),
    "a.7z": behind(b"7z\xbc\xaf\x27\x1c"),
    "a.rar": behind(b"Rar!\x1a\x07\1\0"),
    "a.iso": iso,
    "a.exe": behind(b"\x7fELF\2\1\1"),
    "a.dat": behind(b"\x01\x02\x03"),
    "a": behind(b"\x80\x04\x95"),
}
INNER = [Kind(".mp3", None, "libmp3lame"), Kind(".ts", None, "aac"), Kind(".mpg", "mpeg2video", "mp2")]


@pytest.mark.parametrize("kind", INNER, ids=str)
@pytest.mark.parametrize("name", ARCHIVES)
def test_media_in_something_else_are_no_media(tmp_path, name, kind):
    content = make(tmp_path / f"source{kind.ending}", kind, seconds=range(12)).read_bytes()
    path = ARCHIVES[name](tmp_path / name, content)
    with pytest.raises(NotMediaError):
        probe(path)


def test_an_archive_named_as_a_film_is_an_error(tmp_path):
    content = make(tmp_path / "a.mp3", INNER[0], seconds=range(5)).read_bytes()
    with pytest.raises(MediaError, match=r"an archive \(ZIP\), no sound and no moving picture") as told:
        probe(zipped(tmp_path / "b.mp3", content))
    assert type(told.value) is MediaError


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_no_media(tmp_path, seed):
    generator = np.random.default_rng(seed)
    content = bytearray(generator.bytes(300_000))
    for at in generator.integers(1, len(content) - 4, 3000):  # what a scan looks for
        content[at : at + 4] = [b"\xff\xfb\x90\x44", b"\0\0\1\xb3", b"\x0bw\x12\x34", b"\0\0\1\x65"][at % 4]
    with pytest.raises(NotMediaError):
        probe(written(tmp_path / "x.dat", bytes(content)))


STREAMS = [
    *INNER,
    Kind(".aac", None, "aac"),
    Kind(".ac3", None, "ac3"),
    Kind(".m2ts", "libx264", "aac"),
    Kind(".h264", "libx264", None),
    Kind(".m2v", "mpeg2video", None),
    Kind(".mjpeg", "mjpeg", None),
    Kind(".dts", None, "dca"),
]


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_streams_without_a_header_are_media_whatever_they_are_called(tmp_path, kind):
    if kind.missing():
        pytest.skip(f"this build of FFmpeg has no encoder {kind.missing()[0]}")
    try:
        source = make(tmp_path / f"source{kind.ending}", kind, seconds=range(3))
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this build of FFmpeg can't write it: {error}")
    found = probe(source.rename(tmp_path / "x.dat"))
    assert found.has_audio == (kind.audio is not None)
    assert found.has_video == (kind.video is not None)
