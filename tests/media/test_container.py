import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avrecog.errors import MediaError
from avrecog.media.container import Probe, probe
from avrecog.media.opening import open_media
from bad_input.media import cut, written
from clips import make_tone, make_video


def test_a_file_with_sound_and_picture(tmp_path):
    video = make_video(tmp_path / "a.mp4", n_frames=10, fps=12.5, sample_rate=22_050)
    assert probe(video.path) == Probe(duration_s=0.8, sample_rate=22_050, fps=12.5)
    assert probe(video.path).has_audio
    assert probe(video.path).has_video


def test_sound_without_picture(tmp_path):
    found = probe(make_tone(tmp_path / "a.flac", duration_s=0.5).path)
    assert found == Probe(duration_s=0.5, sample_rate=16_000, fps=0.0)
    assert found.has_audio
    assert not found.has_video


def test_picture_without_sound(tmp_path):
    found = probe(make_video(tmp_path / "a.mp4", with_audio=False).path)
    assert found == Probe(duration_s=1.0, sample_rate=0, fps=25.0)
    assert not found.has_audio


def test_a_video_of_one_frame_lasts_one_frame(tmp_path):
    found = probe(make_video(tmp_path / "a.mp4", n_frames=1, with_audio=False).path)
    assert found == Probe(duration_s=0.04, sample_rate=0, fps=25.0)


def test_a_name_may_hold_spaces_and_letters_of_any_script(tmp_path):
    assert probe(make_tone(tmp_path / "Ä b #1%20 ☂:x.wav").path).sample_rate == 16_000


def test_cover_art_is_no_picture(tmp_path):
    path = tmp_path / "song.flac"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("flac", rate=16_000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video, "the file has no cover: nothing is tested"
    assert not probe(path).has_video


def test_a_file_whose_header_has_no_duration_is_measured(tmp_path):
    path = tmp_path / "raw.aac"  # ADTS: packets and nothing else
    with av.open(str(make_tone(tmp_path / "a.m4a", duration_s=1.0).path)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert probe(path).duration_s == pytest.approx(1.0, abs=0.15)


def test_a_live_recording_without_a_duration_is_measured(tmp_path):
    path = tmp_path / "live.mkv"
    with path.open("wb") as file, av.open(_Pipe(file), "w", format="matroska") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 24_000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is None, "the header has a duration: nothing is tested"
    assert probe(path).duration_s == pytest.approx(1.5, abs=0.01)


class _Pipe:
    """A file that can't be sought: the muxer can't go back to write the duration into its header."""

    def __init__(self, file):
        self.write = file.write


def _header_only(path: Path) -> Path:
    content = path.read_bytes()
    return written(path, content[: content.index(b"data") + 8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "a.mp4", "no such file; correct the path, or drop the row of the annotation"),
        (lambda folder: folder, "is a folder, expected a media file"),
        (lambda folder: written(folder / "a.mp4", b"this is no film\n" * 100), "can't be decoded"),
        (lambda folder: written(folder / "a.wav", b""), "can't be decoded"),
        (lambda folder: cut(make_video(folder / "a.mp4").path, 0.5), "can't be decoded"),
        (lambda folder: written(folder / "a.srt", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n"), "no sound and no"),
        (lambda folder: _header_only(make_tone(folder / "a.wav").path), "audio stream has nothing in it|can't be"),
    ],
    ids=["missing", "folder", "text", "empty", "truncated video", "subtitles", "header only"],
)
def test_what_is_no_media_is_refused_with_the_files_name(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(MediaError, match=message) as told:
        probe(path)
    assert str(path) in str(told.value)


def test_a_damaged_beginning_is_found_out(tmp_path):
    path = make_video(tmp_path / "a.mp4", with_audio=False).path
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin : content.index(b"moov") - 4] = b"\xff" * (content.index(b"moov") - 4 - begin)
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a.mp4: (can't be decoded|video stream has nothing in it)"):
        probe(path)


def test_what_goes_wrong_while_reading_names_the_file(tmp_path):
    path = make_tone(tmp_path / "a.wav").path
    with pytest.raises(MediaError, match=r"a.wav: can't be decoded \(half-way\)"), open_media(path):
        raise av.FFmpegError(1, "half-way", str(path))


def test_a_path_is_never_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tone(tmp_path / "tone.wav")
    with pytest.raises(MediaError, match="no such file"):
        probe(Path("concat:tone.wav"))
    make_tone(tmp_path / "concat:other.wav")
    assert probe(Path("concat:other.wav")).has_audio


def test_a_playlist_fetches_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        with pytest.raises(MediaError, match="a playlist"):
            probe(written(tmp_path / "a.m3u8", playlist.encode()))
        with pytest.raises(BlockingIOError):
            server.accept()
