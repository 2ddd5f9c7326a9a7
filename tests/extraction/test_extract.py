import csv
import dataclasses
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from avrecog.errors import ConfigError, LockError, MediaError
from avrecog.extraction import pool, worker
from avrecog.extraction.extract import extract_all
from avrecog.extraction.store_writer import StoreWriter
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import FRONT_ENDS, AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import Clip
from avrecog.media.audio import decode_audio
from avrecog.media.container import probe
from avrecog.media.video import decode_video
from avrecog.runtime import worker_pool
from avrecog.runtime.device import pick_device
from clips import make_tone, make_video
from other_writer import other_writer

AUDIO = AudioConfig(logmel=LogMelConfig(n_mels=16))
VIDEO = VideoConfig(fps=5.0, height=16, width=16)


def clip(path: Path, clip_id: str, start_s: float = 0.0, stop_s: float | None = None) -> Clip:
    found = probe(path)
    stop_s = stop_s or found.duration_s
    n_frames = round((stop_s - start_s) * found.fps)
    return Clip(
        clip_id, str(path), "x", clip_id, None, start_s, stop_s, stop_s - start_s, n_frames, *_probed(path, found)
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _probed(path: Path, found) -> tuple[float, int, bool, bool]:
    return found.fps, found.sample_rate, found.has_audio, found.has_video


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clips(media) -> list[Clip]:
    """Two halves of a video with sound, a silent one, and sound alone."""
    both = make_video(media / "both.mp4", n_frames=25).path
    silent = make_video(media / "silent.mp4", n_frames=10, with_audio=False).path
    sound = make_tone(media / "sound.wav", duration_s=0.5).path
    return [
        clip(both, "both 1", 0.0, 0.5),
        clip(both, "both 2", 0.5, 1.0),
        clip(silent, "silent"),
        clip(sound, "sound"),
    ]


@pytest.fixture(scope="module")
def broken(media, clips) -> Clip:
    """A clip whose file was lost after it was probed."""
    return dataclasses.replace(clips[0], clip_id="lost", path=str(media / "lost.mp4"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Which files were decoded for sound and picture, as it happens."""
    seen: list[str] = []

    def watch(name: str) -> None:
        function = getattr(worker, name)

        def watched(path, *args, **options):
            seen.append(f"{name} {path.name}")
            return function(path, *args, **options)

        monkeypatch.setattr(worker, name, watched)

    watch("clip_sound")
    watch("video_frames")
    return seen


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What the stores hold; lock files stand beside `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def skipped(out: Path) -> list[dict[str, str]]:
    with (out / "skipped.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_stores_hold_what_decoding_gives(clips, tmp_path):
    outcome = extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    audio, video = Store(tmp_path / "out/audio"), Store(tmp_path / "out/video")
    log_mel = LogMel(AUDIO.logmel)
    for each in clips:
        if each.has_audio:
            waveform = decode_audio(Path(each.path), 16_000, each.start_s, each.stop_s)
            expected = log_mel(torch.from_numpy(waveform)).numpy().astype(np.float16)
            np.testing.assert_array_equal(audio[each.clip_id], expected)
        if each.has_video:
            frames = decode_video(Path(each.path), VIDEO, each.start_s, each.stop_s)
            np.testing.assert_array_equal(video[each.clip_id], frames)
    audio.verify()
    video.verify()
    assert outcome.metrics["n_clips"] == outcome.metrics["n_new_clips"] == 4
    n_bytes = audio.values.nbytes + video.values.nbytes
    assert outcome.metrics["store_mib"] == n_bytes / 2**20
    assert outcome.summary.startswith(f"4 clips -> {tmp_path}/out ({n_bytes / 1e6:.1f} MB) in ")
    assert outcome.summary.endswith("; 0 skipped")


def test_what_a_clip_lacks_is_left_out_and_not_counted_as_skipped(clips, tmp_path):
    outcome = extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    assert Store(tmp_path / "out/audio").clip_ids == ["both 1", "both 2", "sound"]
    assert Store(tmp_path / "out/video").clip_ids == ["both 1", "both 2", "silent"]
    assert outcome.metrics["n_skipped"] == 0
    assert skipped(tmp_path / "out") == []


@pytest.mark.parametrize(("audio", "video", "wanted"), [(AUDIO, None, "audio"), (None, VIDEO, "video")])
def test_what_is_not_asked_for_is_neither_decoded_nor_stored(clips, tmp_path, decoded, audio, video, wanted):
    extract_all(clips, tmp_path / "out", audio, video, 0.0)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == [wanted]
    assert {each.split()[0] for each in decoded} == {"clip_sound" if wanted == "audio" else "video_frames"}
    assert len(decoded) == 3


def test_the_store_names_its_settings(clips, tmp_path):
    extract_all(clips[:1], tmp_path / "out", AUDIO, VIDEO, 0.0)
    Store(tmp_path / "out/audio", dataclasses.asdict(AUDIO.logmel))
    Store(tmp_path / "out/video", dataclasses.asdict(VIDEO))


def test_a_clip_that_cannot_be_decoded_is_skipped_and_listed(clips, broken, tmp_path):
    outcome = extract_all([clips[0], broken, *clips[1:]], tmp_path / "out", AUDIO, VIDEO, 0.2)
    (row,) = skipped(tmp_path / "out")
    assert (row["clip_id"], row["path"]) == ("lost", broken.path)
    assert "no such file" in row["reason"]
    assert outcome.metrics["n_skipped"] == 1
    assert outcome.summary.endswith(f"; 1 skipped, see {tmp_path}/out/skipped.csv")
    for modality in ("audio", "video"):
        assert "lost" not in Store(tmp_path / "out" / modality)


def test_what_can_be_decoded_of_a_clip_is_stored_and_the_rest_listed(clips, tmp_path, monkeypatch):
    def fail(path, *_):
        raise MediaError(f"{path}: bad picture")

    monkeypatch.setattr(worker, "video_frames", fail)
    extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 1.0)
    assert Store(tmp_path / "out/audio").clip_ids == ["both 1", "both 2", "sound"]
    assert Store(tmp_path / "out/video").clip_ids == []
    assert [row["clip_id"] for row in skipped(tmp_path / "out")] == ["both 1", "both 2", "silent"]


def test_too_many_skipped_clips_fail_with_the_list(clips, broken, tmp_path):
    message = r"1 of 2 clips can't be decoded, more than data.max_skipped \(0.4\) allows; repair or drop them, or set "
    message += r"data.max_skipped: 0.5 to go on without them; all are in .*skipped.csv:\n  lost: .*no such file"
    with pytest.raises(MediaError, match=message):
        extract_all([clips[0], broken], tmp_path / "out", AUDIO, VIDEO, 0.4)
    assert len(skipped(tmp_path / "out")) == 1


def fail_after(monkeypatch, n_clips: int) -> pytest.MonkeyPatch:
    """Have the writer fall over at its append number n_clips + 1."""
    append, count = StoreWriter.append, iter(range(1000))

    def falling(self, clip_id, rows):
        if next(count) == n_clips:
            raise KeyboardInterrupt
        append(self, clip_id, rows)

    monkeypatch.setattr(StoreWriter, "append", falling)


def test_an_interrupted_extraction_keeps_what_is_stored_and_ends_on_the_same_bytes(
    clips, tmp_path, monkeypatch, decoded
):
    extract_all(clips, tmp_path / "whole", AUDIO, VIDEO, 0.0)
    with monkeypatch.context() as patch:
        fail_after(patch, 3)  # both of "both 1", the sound of "both 2"
        with pytest.raises(KeyboardInterrupt):
            extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    decoded.clear()
    outcome = extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    assert decoded == ["video_frames both.mp4", "video_frames silent.mp4", "clip_sound sound.wav"]
    assert outcome.metrics["n_new_clips"] == 3
    assert outcome.metrics["hours_per_min"] is None
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_resumed_extraction_lists_skipped_clips_again(clips, broken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            extract_all([broken, *clips], tmp_path / "out", AUDIO, VIDEO, 0.2)
    extract_all([broken, *clips], tmp_path / "out", AUDIO, VIDEO, 0.2)
    assert [row["clip_id"] for row in skipped(tmp_path / "out")] == ["lost"]


@pytest.mark.parametrize("change", ["clips", "settings", "content"])
def test_an_interrupted_extraction_of_something_else_is_begun_anew(clips, tmp_path, monkeypatch, decoded, change):
    path = make_video(tmp_path / "own.mp4", n_frames=5).path
    clips = [*clips, dataclasses.replace(clip(path, "own"), digest=digest(path))]
    with monkeypatch.context() as patch:
        fail_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    audio, video = AUDIO, VIDEO
    if change == "clips":
        clips = [dataclasses.replace(clips[0], stop_s=0.4), *clips[1:]]
    elif change == "settings":
        audio, video = AudioConfig(logmel=LogMelConfig(n_mels=8)), VideoConfig(fps=2.0, height=16, width=16)
    else:
        path.write_bytes(make_video(tmp_path / "other.mp4", n_frames=6).path.read_bytes())
        clips = [*clips[:-1], dataclasses.replace(clips[-1], digest=digest(path))]
    decoded.clear()
    extract_all(clips, tmp_path / "out", audio, video, 0.0)
    assert len(decoded) == 8


def test_a_file_that_has_changed_since_it_was_prepared_is_refused_before_anything_is_written(tmp_path):
    paths = [make_tone(tmp_path / f"{name}.wav", duration_s=0.5).path for name in "abc"]
    clips = [dataclasses.replace(clip(path, path.stem), digest=digest(path)) for path in paths]
    extract_all(clips, tmp_path / "out", AUDIO, None, 0.0)
    before = bytes_of(tmp_path / "out")
    make_tone(paths[1], frequency_hz=500.0, duration_s=0.5)
    with pytest.raises(MediaError, match=r"1 media files have changed .*: .*/b.wav; run `dvc repro -f"):
        extract_all(clips, tmp_path / "out", AUDIO, None, 0.0)
    assert bytes_of(tmp_path / "out") == before


def test_a_file_written_anew_with_the_same_content_has_not_changed(tmp_path):
    path = make_tone(tmp_path / "a.wav", duration_s=0.5).path
    known = dataclasses.replace(clip(path, "a"), digest=digest(path))
    path.write_bytes(path.read_bytes())
    os.utime(path, (1, 1))
    assert extract_all([known], tmp_path / "out", AUDIO, None, 0.0).metrics["n_skipped"] == 0


def test_an_open_end_is_the_end_that_the_file_states_without_the_filling_of_the_last_packet(tmp_path):
    path = make_tone(tmp_path / "a.m4a", duration_s=2.0).path
    annotated = clip(path, "annotated", 0.5, 2.0)
    clips = [annotated, dataclasses.replace(annotated, clip_id="open", stop_s=None)]
    extract_all(clips, tmp_path / "out", AUDIO, None, 0.0)
    store = Store(tmp_path / "out/audio")
    np.testing.assert_array_equal(store["open"], store["annotated"])


@pytest.mark.parametrize("estimated", [True, False])
def test_an_open_end_is_the_files_whatever_its_header_says(tmp_path, estimated):
    path = make_tone(tmp_path / "a.wav", duration_s=2.0).path
    whole = clip(path, "whole")
    open_end = dataclasses.replace(whole, clip_id="open", stop_s=None, duration_s=0.7, duration_estimated=estimated)
    extract_all([whole, open_end], tmp_path / "out", AUDIO, None, 0.0)
    store = Store(tmp_path / "out/audio")
    np.testing.assert_array_equal(store["open"], store["whole"])


def test_a_clip_is_not_called_shorter_than_a_guess(tmp_path):
    path = make_tone(tmp_path / "a.wav", duration_s=0.5).path
    whole = dataclasses.replace(clip(path, "a"), stop_s=None, duration_s=9.0)
    assert extract_all([whole], tmp_path / "out", AUDIO, None, 0.0).metrics["n_shorter"] == 1
    guessed = dataclasses.replace(whole, duration_estimated=True)
    assert extract_all([guessed], tmp_path / "out", AUDIO, None, 0.0).metrics["n_shorter"] == 0


def test_a_finished_extraction_is_done_anew_with_the_same_bytes(clips, tmp_path, decoded):
    extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    before = bytes_of(tmp_path / "out")
    n_decoded = len(decoded)
    extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)
    assert len(decoded) == 2 * n_decoded
    assert bytes_of(tmp_path / "out") == before


def test_two_processes_give_the_same_bytes_as_one(clips, broken, tmp_path, monkeypatch):
    order = [clips[3], broken, *clips[:3]]
    extract_all(order, tmp_path / "inline", AUDIO, VIDEO, 0.2)
    monkeypatch.setattr(pool, "CLIPS_PER_WORKER", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    extract_all(order, tmp_path / "workers", AUDIO, VIDEO, 0.2)
    assert bytes_of(tmp_path / "workers") == bytes_of(tmp_path / "inline")


def test_without_shared_memory_one_process_extracts_the_same_bytes(clips, broken, tmp_path, monkeypatch, caplog):
    def refused(*_):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    order = [clips[3], broken, *clips[:3]]
    extract_all(order, tmp_path / "with", AUDIO, VIDEO, 0.2)
    monkeypatch.setattr(pool, "CLIPS_PER_WORKER", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(worker_pool, "ProcessPoolExecutor", refused)
    extract_all(order, tmp_path / "without", AUDIO, VIDEO, 0.2)
    assert bytes_of(tmp_path / "without") == bytes_of(tmp_path / "with")
    assert [line for line in caplog.messages if line.startswith("one process works, not 2: no shared memory")]


def test_many_jobs_keep_the_order_of_the_manifest(clips, tmp_path, monkeypatch):
    """More jobs than may wait at once; the pool is of threads here, which start at once."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(pool, "CLIPS_PER_WORKER", 1)
    monkeypatch.setattr(pool, "n_processors", lambda: 2)
    monkeypatch.setattr(
        pool,
        "worker_pool",
        lambda _, n, start, arguments: ThreadPoolExecutor(n, initializer=start, initargs=arguments),
    )
    many = [dataclasses.replace(clips[3], clip_id=f"clip {index}") for index in range(100)]
    threads = torch.get_num_threads()
    extract_all(many, tmp_path / "out", AUDIO, None, 0.0)
    torch.set_num_threads(threads)
    assert Store(tmp_path / "out/audio").clip_ids == [f"clip {index}" for index in range(100)]


@pytest.mark.parametrize(
    ("most", "most_s", "expected"), [(8, 60.0, [3, 1, 8, 1]), (8, 1.6, [3, 1, 3, 3, 3]), (1, 60.0, 13 * [1])]
)
def test_clips_decoded_together_are_stored_as_each_alone(clips, broken, tmp_path, monkeypatch, most, most_s, expected):
    sounds = [dataclasses.replace(clips[3], clip_id=f"clip {index}") for index in range(12)]
    sounds[5] = dataclasses.replace(broken, duration_s=0.5, has_video=False)
    order = [*sounds[:3], clips[0], *sounds[3:]]
    sizes = []
    call = worker.Extractor.__call__

    def watched(self, jobs):
        sizes.append(len(jobs))
        return call(self, jobs)

    monkeypatch.setattr(worker.Extractor, "__call__", watched)
    monkeypatch.setattr(pool, "MAX_TOGETHER", most)
    monkeypatch.setattr(pool, "MAX_TOGETHER_S", most_s)
    extract_all(order, tmp_path / "out", AUDIO, VIDEO, 0.2)
    assert sizes == expected
    store = Store(tmp_path / "out/audio")
    assert store.clip_ids == [each.clip_id for each in order if each.clip_id != broken.clip_id]
    extract_all([clips[3]], tmp_path / "alone", AUDIO, None, 0.0)
    for each in sounds[:5] + sounds[6:]:
        np.testing.assert_array_equal(store[each.clip_id], Store(tmp_path / "alone/audio")["sound"])
    assert [row["clip_id"] for row in skipped(tmp_path / "out")] == [broken.clip_id]


def test_a_second_extraction_into_the_same_folder_is_refused(clips, tmp_path):
    with other_writer(tmp_path / "out") as process, pytest.raises(LockError, match=f"process {process.pid} is writing"):
        extract_all(clips, tmp_path / "out", AUDIO, VIDEO, 0.0)


@pytest.fixture
def features(tmp_path) -> Clip:
    """A clip whose file holds features that MMAction2 made."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((100, 80), dtype=np.float32))
    path = str(tmp_path / "a.npy")
    return Clip("a", path, "x", "g", None, 0.0, 1.6, 1.6, 0, 0.0, 16_000, True, False)


def test_feature_files_are_stored_as_they_are(features, tmp_path):
    audio = AudioConfig(logmel="mmaction2")
    outcome = extract_all([features], tmp_path / "out", audio, VIDEO, 0.0)
    store = Store(tmp_path / "out/audio", dataclasses.asdict(FRONT_ENDS["mmaction2"]))
    np.testing.assert_array_equal(store["a"], np.load(features.path).astype(np.float16))
    assert (outcome.metrics["n_skipped"], outcome.metrics["n_shorter"]) == (0, 0)


def test_feature_files_are_refused_under_a_front_end_that_did_not_make_them(features, tmp_path):
    with pytest.raises(ConfigError, match=r"a\.npy holds features that MMAction2 made.*set audio\.logmel: mmaction2"):
        extract_all([features], tmp_path / "out", AUDIO, VIDEO, 0.0)


def test_a_missing_feature_file_is_skipped_and_listed(features, tmp_path):
    lost = dataclasses.replace(features, clip_id="b", path=str(tmp_path / "b.npy"))
    outcome = extract_all([features, lost], tmp_path / "out", AudioConfig(logmel="mmaction2"), None, 0.5)
    assert outcome.metrics["n_skipped"] == 1
    assert "no such file" in skipped(tmp_path / "out")[0]["reason"]


@pytest.fixture
def in_pieces(monkeypatch) -> list[str]:
    """The clips that are stored by way of a file, as it happens."""
    seen: list[str] = []
    append_pieces = StoreWriter.append_pieces

    def watched(self, clip_id, pieces):
        seen.append(f"{self.folder.name} {clip_id}")
        append_pieces(self, clip_id, pieces)

    monkeypatch.setattr(StoreWriter, "append_pieces", watched)
    return seen


@pytest.mark.parametrize("front_end", [AUDIO.logmel, *FRONT_ENDS.values()], ids=["ours", *FRONT_ENDS])
def test_long_clips_go_by_way_of_files_and_their_rows_are_the_same(media, tmp_path, monkeypatch, front_end, in_pieces):
    monkeypatch.setattr("avrecog.media.audio.BLOCK", 3_000)
    film = make_video(media / "long.mp4", n_frames=100).path
    clips = [clip(film, "whole"), clip(film, "short", 0.4, 0.5), clip(film, "part", 0.3, 3.3)]
    audio = AudioConfig(logmel=front_end)
    extract_all(clips, tmp_path / "held", audio, VIDEO, 0.0)
    assert not in_pieces
    monkeypatch.setattr(worker, "MAX_HELD", 5_000)
    extract_all(clips, tmp_path / "spooled", audio, VIDEO, 0.0)
    sounds = [each for each in in_pieces if each.startswith("audio")]
    assert [each for each in in_pieces if each.startswith("video")] == ["video whole", "video part"]
    if pick_device().type == "cpu":
        assert sounds == ["audio whole", "audio part"]
    else:  # waveforms come to the GPU, and are longer than their log-mel
        assert sounds == ["audio whole", "audio short", "audio part"]
    for modality in ("audio", "video"):
        held, found = Store(tmp_path / "held" / modality), Store(tmp_path / "spooled" / modality)
        found.verify()
        assert found.clip_ids == held.clip_ids
        for each in clips:
            assert found[each.clip_id].shape == held[each.clip_id].shape
            np.testing.assert_allclose(found[each.clip_id], held[each.clip_id], atol=0.02)
            assert (found[each.clip_id] != held[each.clip_id]).mean() < 0.05  # float16 rounds a few the other way
    assert not list((tmp_path / "spooled").glob(".partial*"))


def test_a_long_clip_that_breaks_off_leaves_nothing_behind(media, tmp_path, monkeypatch):
    film = make_video(media / "breaks.mp4", n_frames=100).path
    frames = worker.video_frames

    def broken_off(path, *args):
        for index, frame in enumerate(frames(path, *args)):
            if index == 15:
                raise MediaError(f"{path}: breaks off")
            yield frame

    monkeypatch.setattr(worker, "video_frames", broken_off)
    monkeypatch.setattr(worker, "MAX_HELD", 5_000)
    extract_all([clip(film, "film")], tmp_path / "out", AUDIO, VIDEO, 1.0)
    assert [row["reason"] for row in skipped(tmp_path / "out")] == [f"{film}: breaks off"]
    assert Store(tmp_path / "out/video").clip_ids == []
    assert not list((tmp_path / "out").glob(".partial*"))


def test_a_kill_while_a_long_clip_is_stored_costs_that_clip_alone(media, tmp_path, monkeypatch, in_pieces):
    film = make_video(media / "killed.mp4", n_frames=100).path
    clips = [clip(film, "first"), clip(film, "second")]
    monkeypatch.setattr(worker, "MAX_HELD", 5_000)
    extract_all(clips, tmp_path / "unbroken", AUDIO, None, 0.0)
    pieces = worker.Spooled.pieces

    def killed(self):
        if len(in_pieces) == 4:  # the second clip of the second extraction
            yield next(pieces(self))
            raise KeyboardInterrupt
        yield from pieces(self)

    monkeypatch.setattr(worker.Spooled, "pieces", killed)
    with pytest.raises(KeyboardInterrupt):
        extract_all(clips, tmp_path / "out", AUDIO, None, 0.0)
    monkeypatch.undo()
    monkeypatch.setattr(worker, "MAX_HELD", 5_000)
    outcome = extract_all(clips, tmp_path / "out", AUDIO, None, 0.0)
    assert outcome.metrics["n_new_clips"] == 1
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "unbroken")


def gapped(path: Path) -> Path:
    """4 s of sound of which those from 1 to 3 are lost."""
    whole = make_tone(path.with_name("whole.m4a"), duration_s=4.0).path
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux():
            if packet.dts is not None and not 1 <= packet.pts * packet.time_base < 3:
                packet.stream = stream
                new.mux(packet)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def odd_sounds(tmp_path) -> list[Clip]:
    left = 0.4 * np.sin(np.arange(16_000))
    soundfile.write(tmp_path / "opposite.wav", np.stack([left, -left], axis=1), 16_000)
    make_tone(tmp_path / "good.wav")
    paths = [tmp_path / "good.wav", gapped(tmp_path / "gap.m4a"), tmp_path / "opposite.wav"]
    return [clip(path, path.stem) for path in paths]


def test_gaps_and_channels_that_cancel_are_counted_and_listed(odd_sounds, tmp_path):
    outcome = extract_all(odd_sounds, tmp_path / "out", AUDIO, None, 0.0)
    (gap,) = table(tmp_path / "out/gaps.csv")
    assert (gap["clip_id"], gap["path"], gap["gap"]) == ("gap", odd_sounds[1].path, "silence")
    assert (float(gap["start_s"]), float(gap["stop_s"])) == (pytest.approx(1, abs=0.1), pytest.approx(3, abs=0.1))
    assert [row["clip_id"] for row in table(tmp_path / "out/cancelled.csv")] == ["opposite"]
    assert outcome.metrics["n_gaps"] == outcome.metrics["n_cancelled"] == 1
    assert outcome.metrics["gap_s"] == pytest.approx(2, abs=0.2)
    assert f"; 1 clips with gaps in their sound, 2.0 s in all, see {tmp_path}/out/gaps.csv" in outcome.summary
    assert f"; 1 clips whose channels cancel each other out, see {tmp_path}/out/cancelled.csv" in outcome.summary
    assert {tmp_path / "out/gaps.csv", tmp_path / "out/cancelled.csv"} <= set(outcome.files)


def test_what_was_told_of_stored_clips_outlives_a_stop(odd_sounds, tmp_path, monkeypatch):
    extract_all(odd_sounds, tmp_path / "whole", AUDIO, None, 0.0)
    decode = worker.clip_sound

    def stop(path, *args, **options):
        if path.stem == "opposite":
            raise KeyboardInterrupt
        return decode(path, *args, **options)

    monkeypatch.setattr(worker, "clip_sound", stop)
    monkeypatch.setattr(pool, "MAX_TOGETHER", 1)
    with pytest.raises(KeyboardInterrupt):
        extract_all(odd_sounds, tmp_path / "out", AUDIO, None, 0.0)
    monkeypatch.setattr(worker, "clip_sound", decode)
    outcome = extract_all(odd_sounds, tmp_path / "out", AUDIO, None, 0.0)
    assert outcome.metrics["n_new_clips"] == 1
    for name in ("gaps.csv", "cancelled.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_clip_of_which_nobody_knows_the_length_is_not_called_shorter(tmp_path):
    path = make_tone(tmp_path / "a.wav", duration_s=1.0).path
    open_end = dataclasses.replace(clip(path, "a"), stop_s=None, duration_s=9.0)
    outcome = extract_all([open_end], tmp_path / "out", AUDIO, None, 0.0)
    assert outcome.metrics["n_shorter"] == 1
    outcome = extract_all([dataclasses.replace(open_end, duration_estimated=True)], tmp_path / "b", AUDIO, None, 0.0)
    assert outcome.metrics["n_shorter"] == 0
