import hashlib
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from avrecog.errors import MediaError
from avrecog.media import read_files
from avrecog.media.read_files import MediaFile, check_unchanged, read_media
from avrecog.runtime.state_folder import state_folder
from clips import make_tone

LONG_AGO = 10**18  # ns; so that no file counts as written just now


def aged(path: Path, time_ns: int = LONG_AGO) -> Path:
    os.utime(path, ns=(time_ns, time_ns))
    return path


pytestmark = pytest.mark.usefixtures("project_root")


@pytest.fixture
def tones(tmp_path) -> list[Path]:
    return [aged(make_tone(tmp_path / f"{name}.wav", 300.0 + 10 * i).path) for i, name in enumerate("abc")]


@pytest.fixture
def probed(monkeypatch) -> list[str]:
    """Which files are probed, as it happens."""
    seen: list[str] = []
    probe = read_files.probe
    monkeypatch.setattr(read_files, "probe", lambda path: seen.append(path.name) or probe(path))
    return seen


def database() -> Path:
    return state_folder("media") / "files.sqlite"


def test_each_file_is_read_once_however_often_it_is_named(tones, probed):
    found = read_media([tones[0], tones[1], tones[0]])
    assert found[0] == found[2] != found[1]
    assert sorted(probed) == ["a.wav", "b.wav"]


def test_the_digest_is_that_of_the_content(tones, tmp_path):
    shutil.copy(tones[0], tmp_path / "copy.wav")
    a, b, copy = read_media([*tones[:2], tmp_path / "copy.wav"])
    assert a.digest == copy.digest != b.digest
    assert len(a.digest) == 64


def test_a_file_is_read_again_only_when_its_size_or_its_time_has_changed(tones, probed):
    first = read_media(tones)
    probed.clear()
    assert read_media(tones) == first
    assert probed == []
    content = tones[1].read_bytes()
    aged(tones[0], LONG_AGO + 1)  # its time
    tones[1].write_bytes(content + b"\0\0")  # its size
    aged(tones[1])
    second = read_media(tones)
    assert sorted(probed) == ["a.wav", "b.wav"]
    assert [a.digest == b.digest for a, b in zip(first, second, strict=True)] == [True, False, True]


def test_a_file_that_was_written_just_now_is_read_again(tmp_path, probed):
    path = make_tone(tmp_path / "a.wav").path  # its clock may not have ticked when it changes once more
    read_media([path])
    read_media([path])
    assert probed == ["a.wav", "a.wav"]


def test_a_path_that_is_written_in_two_ways_is_remembered_in_both(tones, probed):
    both = [tones[0], tones[0].parent / "x" / ".." / tones[0].name]
    (tones[0].parent / "x").mkdir()
    read_media(both)
    probed.clear()
    read_media(both)
    assert probed == []


def test_another_prober_probes_again(tones, probed, monkeypatch):
    read_media(tones)
    monkeypatch.setattr(read_files, "_prober", lambda: "another")
    read_media(tones)
    assert len(probed) == 6


def test_what_need_not_be_remembered_is_not(tones):
    read_media(tones, remember=False)
    assert not database().exists()


def test_what_cannot_be_read_is_told_each_time(tones, tmp_path, probed):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 99)
    files = [aged(tmp_path / "broken.mp4"), tmp_path / "gone.wav"]
    for _ in range(2):
        assert all(isinstance(each, MediaError) for each in read_media(files))
    assert len(probed) == 4


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "device"])
def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "a.wav")
    (found,) = read_media([tmp_path / "a.wav"])
    assert "is no ordinary file" in str(found)


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_record_is_made_anew(tones, probed, damage):
    first = read_media(tones)
    database().write_bytes(damage)
    assert read_media(tones) == first
    probed.clear()
    assert read_media(tones) == first
    assert probed == []


def test_a_record_of_another_form_is_made_anew(tones, probed):
    read_media(tones)
    with sqlite3.connect(database()) as connection:
        connection.execute("DROP TABLE files")
        connection.execute("CREATE TABLE files (path TEXT)")
    read_media(tones)
    probed.clear()
    read_media(tones)
    assert probed == []


def test_entries_that_make_no_sense_are_read_anew(tones):
    first = read_media(tones)
    with sqlite3.connect(database()) as connection:
        connection.execute('UPDATE files SET probe = \'{"duration_s": "long"}\' WHERE rowid = 1')
        connection.execute("UPDATE files SET digest = 'xyz' WHERE rowid = 2")
    assert read_media(tones) == first


@pytest.mark.parametrize(
    "cell",
    [
        *(
            f"probe = replace(probe, '\"{name}\": {value}', '\"{name}\": {other}')"
            for name, value, others in [
                ("duration_s", "1.0", ("NaN", "-3", "1e400", "1e300")),
                ("sample_rate", "16000", ("-1", "0", 10**30)),
                ("fps", "0.0", ("Infinity", "-1.0", "1e300")),
            ]
            for other in others
        ),
        *(f"{name} = CAST(X'ff' AS TEXT)" for name in ("digest", "prober", "probe")),
        *(f"{name} = {value}" for name in ("digest", "prober", "probe") for value in ("7", "NULL", "X'ff'")),
    ],
)
def test_what_no_file_can_hold_is_read_anew_and_then_remembered(tones, probed, caplog, cell):
    first = read_media(tones)
    connection = sqlite3.connect(database())
    with connection:
        before = connection.execute("SELECT * FROM files").fetchall()
        connection.execute(f"UPDATE files SET {cell}")
    connection.text_factory = bytes
    assert connection.execute("SELECT * FROM files").fetchall() != before
    connection.close()
    for _ in range(2):
        assert read_media(tones) == first
    assert len(probed) == 6
    assert not caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_costs_only_the_record(tones, project_root):
    project_root.mkdir()
    project_root.chmod(0o500)
    assert all(isinstance(each, MediaFile) for each in read_media(tones))


def test_a_record_that_cannot_be_made_is_told(tones, project_root, caplog):
    project_root.write_text("a file, where a folder should be")
    assert all(isinstance(each, MediaFile) for each in read_media(tones))
    assert "files.sqlite: can't be used" in caplog.text


def test_several_may_read_at_once(tones, probed):
    found: list[list[MediaFile | MediaError]] = []
    threads = [threading.Thread(target=lambda: found.append(read_media(tones))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    probed.clear()
    read_media(tones)
    assert probed == []


def as_they_are(files: list[Path]) -> dict[str, tuple[Path, str]]:
    """What stage prepare would have read of these files now."""
    return {str(file): (file, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files}


@pytest.fixture
def digested(monkeypatch) -> list[str]:
    """Which files are digested, as it happens."""
    seen: list[str] = []
    digest = read_files._digest
    monkeypatch.setattr(read_files, "_digest", lambda path: seen.append(path.name) or digest(path))
    return seen


def test_where_nothing_is_remembered_the_files_are_digested_once(tones, digested, capsys):
    for _ in range(2):
        check_unchanged(as_they_are(tones))
    assert sorted(digested) == ["a.wav", "b.wav", "c.wav"]
    assert capsys.readouterr().err.count("digest: 100%") == 1


def test_what_was_only_digested_is_probed_once_when_that_is_asked_for(tones, probed):
    check_unchanged(as_they_are(tones))
    for _ in range(2):
        assert all(isinstance(each, MediaFile) for each in read_media(tones))
    assert sorted(probed) == ["a.wav", "b.wav", "c.wav"]


def test_what_prepare_read_is_not_digested_again(tones, digested):
    read_media(tones)
    digested.clear()
    check_unchanged(as_they_are(tones))
    assert digested == []


def test_digests_are_kept_while_the_others_are_still_made(tones, digested, monkeypatch):
    expected = as_they_are(tones)
    monkeypatch.setattr(read_files, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(read_files, "MAX_WAITING", 1)
    digest = read_files._digest

    def killed(path: Path) -> str:
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return digest(path)

    with monkeypatch.context() as patch:
        patch.setattr(read_files, "_digest", killed)
        with pytest.raises(KeyboardInterrupt):
            check_unchanged(expected)
    digested.clear()
    check_unchanged(expected)
    assert digested == ["c.wav"]


def test_a_file_that_changed_is_refused_however_it_is_remembered(tones):
    expected = as_they_are(tones)
    check_unchanged(expected)
    aged(make_tone(tones[1], 999.0).path, LONG_AGO + 1)
    for _ in range(2):
        with pytest.raises(MediaError, match=r"1 media files have changed since stage prepare read them: .*b.wav;"):
            check_unchanged(expected)
    tones[1].unlink()
    check_unchanged(expected)


def test_few_files_wait_at_a_time_and_results_come_in_order():
    begun: list[int] = []
    results = read_files._side_by_side(lambda item: begun.append(item) or -item, range(10_000))
    first = next(results)
    assert first == (0, 0)
    assert len(begun) <= read_files.MAX_WAITING
    assert list(results) == [(item, -item) for item in range(1, 10_000)]
    assert sorted(begun) == list(range(10_000))


def test_what_cannot_be_read_holds_no_traceback(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 99)
    for error in read_media([tmp_path / "broken.mp4", tmp_path / "gone.wav"]):
        assert isinstance(error, MediaError)
        assert error.__traceback__ is error.__context__ is error.__cause__ is None


def test_outside_of_a_project_the_users_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert state_folder("media") == tmp_path / "cache/avrecog/media"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_folder("media") == tmp_path / "home/.cache/avrecog/media"
    (tmp_path / "dvc.yaml").touch()
    assert state_folder("media") == tmp_path / ".avrecog/media"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "root"))
    assert state_folder("media") == tmp_path / "root/.avrecog/media"
