import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.errors import StoreError
from avrecog.extraction import store_writer
from avrecog.extraction.store_writer import StoreWriter
from avrecog.features.store import MemoryStore, Store

SETTINGS = {"front_end": {"n_mels": 3, "window": "hann"}, "clips": "digest"}

# Python's csv doesn't quote a lone carriage return when lines end otherwise
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1)


def writer(folder: Path, **changes) -> StoreWriter:
    values = {"settings": SETTINGS, "row_shape": (3,), "dtype": "float16", **changes}
    return StoreWriter(folder, **values)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float16)


def write(folder: Path, arrays: dict[str, np.ndarray], **changes) -> Store:
    open_writer = writer(folder, **changes)
    for clip_id, values in arrays.items():
        open_writer.append(clip_id, values)
    open_writer.finish()
    open_writer.seal()
    return Store(folder)


def unfinished(folder: Path) -> dict[str, np.ndarray]:
    """What a kill leaves after two clips were put on the disk."""
    arrays = {"ä": rows(2, 1), "b": rows(5, 2)}
    open_writer = writer(folder)
    for clip_id, values in arrays.items():
        open_writer.append(clip_id, values)
    open_writer.close()
    return arrays


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.dictionaries(ids, st.integers(1, 9)),
    shape=st.sampled_from([(), (3,), (2, 4, 3)]),
    dtype=st.sampled_from(["float16", "uint8"]),
    flush_every=st.booleans(),
)
def test_a_store_brings_back_what_was_written(tmp_path_factory, lengths, shape, dtype, flush_every):
    folder = tmp_path_factory.mktemp("round_trip") / "store"
    generator = np.random.default_rng(0)
    arrays = {clip_id: generator.integers(0, 200, (n, *shape)).astype(dtype) for clip_id, n in lengths.items()}
    open_writer = writer(folder, row_shape=shape, dtype=dtype)
    for clip_id, values in arrays.items():
        open_writer.append(clip_id, values)
        if flush_every:
            open_writer.flush()
    open_writer.finish()
    open_writer.seal()
    store = Store(folder, SETTINGS["front_end"])
    assert store.clip_ids == list(arrays)
    assert store.values.shape == (sum(lengths.values()), *shape)
    for clip_id, values in arrays.items():
        assert clip_id in store
        np.testing.assert_array_equal(store[clip_id], values)
        assert store[clip_id].dtype == dtype
    assert store.positions(list(arrays)[::-1]).tolist() == list(range(len(arrays)))[::-1]
    store.verify()


def test_a_store_without_clips_can_be_opened(tmp_path):
    store = write(tmp_path / "store", {})
    assert store.values.shape == (0, 3)
    assert store.clip_ids == []
    assert "a" not in store
    store.verify()


def test_equal_clips_give_equal_bytes_however_they_were_flushed(tmp_path, monkeypatch):
    arrays = {"a": rows(4), "b": rows(2, 1)}
    write(tmp_path / "one", arrays)
    monkeypatch.setattr(store_writer, "BLOCK_BYTES", 1)
    write(tmp_path / "other", arrays)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert sorted(contents(tmp_path / "one")) == ["index.csv", "store.json", "values.bin"]


@pytest.mark.parametrize(("name", "value"), [("BLOCK_BYTES", 24), ("FLUSH_EVERY_S", 0.0)])
def test_rows_are_on_the_disk_when_a_block_is_full_or_the_time_is_up(tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(store_writer, name, value)
    open_writer = writer(tmp_path / "store")
    open_writer.append("a", rows(4))
    assert (tmp_path / "store/values.bin").stat().st_size == 24
    assert len((tmp_path / "store/index.csv").read_text().splitlines()) == 2
    assert open_writer.n_bytes == 24


@pytest.mark.parametrize(("clip_id", "values"), [("b", rows(1)), ("a", rows(0)), ("a", np.zeros((2, 4), np.float16))])
def test_the_writer_asserts_that_clips_are_new_not_empty_and_of_the_stores_shape(tmp_path, clip_id, values):
    open_writer = writer(tmp_path / "store")
    open_writer.append("b", rows(1))
    open_writer.flush()
    with pytest.raises(AssertionError):
        open_writer.append(clip_id, values)


def test_other_settings_are_refused_with_the_difference(tmp_path):
    write(tmp_path / "store", {"a": rows(1)})
    with pytest.raises(StoreError, match=r"other settings than params.yaml has \(n_mels: 3 there, 4 here\); run `dvc"):
        Store(tmp_path / "store", {"n_mels": 4, "window": "hann"})
    with pytest.raises(StoreError, match=r"\(hop: None there, 9 here\)"):
        Store(tmp_path / "store", {**SETTINGS["front_end"], "hop": 9})
    with pytest.raises(StoreError, match=r"\(keys differ\)"):
        Store(tmp_path / "store", {"n_mels": 3})


def test_settings_that_the_store_lacks_are_refused(tmp_path):
    write(tmp_path / "store", {"a": rows(1)}, settings={})
    assert Store(tmp_path / "store").settings == {}
    with pytest.raises(StoreError, match="its settings are missing"):
        Store(tmp_path / "store", {"n_mels": 3})


def test_an_unfinished_store_cannot_be_read(tmp_path):
    unfinished(tmp_path / "store")
    with pytest.raises(StoreError, match="no finished store here; run `dvc repro extract`"):
        Store(tmp_path / "store")
    with pytest.raises(StoreError, match="no finished store here"):
        Store(tmp_path / "nothing")


def cut_index_line(folder: Path) -> None:
    with (folder / "index.csv").open("ab") as file:
        file.write(b"c,7,3,00")


def cut_index_inside_a_letter(folder: Path) -> None:
    with (folder / "index.csv").open("ab") as file:
        file.write("ö".encode()[:1])


def rows_without_a_line(folder: Path) -> None:
    with (folder / "values.bin").open("ab") as file:
        file.write(b"half a clip")


@pytest.mark.parametrize("damage", [lambda _: None, cut_index_line, cut_index_inside_a_letter, rows_without_a_line])
def test_an_unfinished_store_is_gone_on_with_after_a_kill(tmp_path, damage):
    arrays = unfinished(tmp_path / "store")
    damage(tmp_path / "store")
    open_writer = writer(tmp_path / "store")
    assert open_writer.stored == {"ä": 2, "b": 5}
    arrays["c"] = rows(3, 3)
    open_writer.append("c", arrays["c"])
    open_writer.finish()
    open_writer.seal()
    write(tmp_path / "whole", arrays)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    Store(tmp_path / "store").verify()


def test_clips_whose_rows_are_not_on_the_disk_are_forgotten(tmp_path):
    arrays = unfinished(tmp_path / "store")
    content = (tmp_path / "store/values.bin").read_bytes()
    (tmp_path / "store/values.bin").write_bytes(content[:-1])
    open_writer = writer(tmp_path / "store")
    assert open_writer.stored == {"ä": 2}
    open_writer.append("b", arrays["b"])
    open_writer.finish()
    open_writer.seal()
    assert (tmp_path / "store/values.bin").read_bytes() == content
    Store(tmp_path / "store").verify()


@pytest.mark.parametrize("changes", [{"settings": {}}, {"row_shape": (4,)}, {"dtype": "float32"}])
def test_an_unfinished_store_of_other_settings_or_files_is_begun_anew(tmp_path, changes, caplog):
    unfinished(tmp_path / "store")
    with caplog.at_level("INFO"):
        assert writer(tmp_path / "store", **changes).stored == {}
    assert "begun anew" in caplog.text
    assert (tmp_path / "store/values.bin").stat().st_size == 0


def test_a_finished_store_is_begun_anew(tmp_path):
    write(tmp_path / "store", {"a": rows(2)})
    open_writer = writer(tmp_path / "store")
    assert open_writer.stored == {}
    assert not (tmp_path / "store/store.json").exists()
    open_writer.close()


def test_a_store_that_was_hardly_begun_is_begun_anew(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/values.bin").write_bytes(b"something")
    assert write(tmp_path / "store", {"a": rows(2)}).clip_ids == ["a"]


def test_closing_twice_and_finishing_after_closing_do_no_harm(tmp_path):
    open_writer = writer(tmp_path / "store")
    open_writer.append("a", rows(2))
    open_writer.close()
    open_writer.close()
    open_writer.finish()
    open_writer.seal()
    assert Store(tmp_path / "store").clip_ids == ["a"]


def test_one_flipped_bit_is_found_and_its_clip_named(tmp_path):
    store = write(tmp_path / "store", {"a": rows(2), "b": rows(3)})
    content = bytearray((tmp_path / "store/values.bin").read_bytes())
    content[-1] ^= 1
    (tmp_path / "store/values.bin").write_bytes(content)
    with pytest.raises(StoreError, match="the rows of clip b differ from what was written; the store is damaged"):
        Store(tmp_path / "store").verify()
    del store


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x", None])
def test_values_of_another_size_than_the_index_says_are_refused(tmp_path, change):
    write(tmp_path / "store", {"a": rows(2)})
    path = tmp_path / "store/values.bin"
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    with pytest.raises(StoreError, match=r"values.bin: expected 12 bytes, got (11|13|-1); the store is damaged"):
        Store(tmp_path / "store")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b,3,1,00000000", "line 3: expected clip_id,start,n_rows,crc32 in unbroken order"),
        ("b,2,1", "line 3: expected"),
        ("b,2,-1,00000000", "line 3: expected"),
        ("b,x,1,00000000", "line 3: expected"),
    ],
)
def test_a_broken_index_is_refused(tmp_path, line, message):
    write(tmp_path / "store", {"a": rows(2)})
    with (tmp_path / "store/index.csv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(StoreError, match=f"index.csv, {message}"):
        Store(tmp_path / "store")


def test_a_missing_index_is_refused(tmp_path):
    write(tmp_path / "store", {"a": rows(2)})
    (tmp_path / "store/index.csv").unlink()
    with pytest.raises(StoreError, match="index.csv: can't be read .*; the store is damaged"):
        Store(tmp_path / "store")


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"settings": {}, "dtype": "uint8"}), b"\xff"])
def test_a_damaged_header_is_refused(tmp_path, content):
    write(tmp_path / "store", {"a": rows(2)})
    path = tmp_path / "store/store.json"
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(StoreError, match=r"store.json: (can't be read|expected settings, row_shape and dtype)"):
        Store(tmp_path / "store")


def test_values_cannot_be_written_through_an_open_store(tmp_path):
    store = write(tmp_path / "store", {"a": rows(2)})
    with pytest.raises(ValueError, match="read-only"):
        store["a"][:] = 0


def test_a_moved_store_is_the_same_store(tmp_path):
    write(tmp_path / "store", {"a": rows(2)})
    shutil.move(tmp_path / "store", tmp_path / "moved")
    np.testing.assert_array_equal(Store(tmp_path / "moved")["a"], rows(2))


def test_arrays_in_memory_look_like_a_store(tmp_path):
    arrays = {"a": rows(2), "b": rows(4, 1)}
    memory, disk = MemoryStore(arrays), write(tmp_path / "store", arrays)
    for name in ("values", "start", "n_rows"):
        np.testing.assert_array_equal(getattr(memory, name), getattr(disk, name))
    assert memory.positions(["b", "a"]).tolist() == disk.positions(["b", "a"]).tolist() == [1, 0]


@pytest.mark.parametrize("moment", ["between rows and lines", "after the lines"])
def test_a_flush_that_is_interrupted_is_not_begun_again(tmp_path, monkeypatch, moment):
    writer = StoreWriter(tmp_path / "store", {"front_end": {}}, (2,), "float16")
    writer.append("a", np.ones((3, 2)))
    writer.flush()
    writer.append("b", np.full((2, 2), 2))
    calls = iter(range(10))
    when = {"between rows and lines": 0, "after the lines": 1}[moment]

    def interrupted(descriptor):
        if next(calls) == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    monkeypatch.undo()
    writer.close()
    resumed = StoreWriter(tmp_path / "store", {"front_end": {}}, (2,), "float16")
    for clip_id in {"b", "c"} - resumed.stored.keys():
        resumed.append(clip_id, np.full((2, 2), 2))
    resumed.finish()
    resumed.seal()
    Store(tmp_path / "store").verify()
