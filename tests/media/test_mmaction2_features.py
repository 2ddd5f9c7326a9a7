import numpy as np
import pytest

from avrecog.errors import MediaError
from avrecog.media.container import probe
from avrecog.media.mmaction2_features import read_features


@pytest.fixture
def saved(tmp_path):
    """An array as a .npy file."""

    def save(values, **options):
        np.save(tmp_path / "a.npy", values, **options)
        return tmp_path / "a.npy"

    return save


def features(n_rows=626):
    return np.random.default_rng(0).random((n_rows, 80), dtype=np.float32)


def test_features_are_read_as_they_were_written(saved):
    values = features()
    np.testing.assert_array_equal(read_features(saved(values)), values.astype(np.float16))
    np.testing.assert_array_equal(read_features(saved(values), 1.6, 3.2), values[100:200].astype(np.float16))


def test_a_feature_file_is_sound_of_its_rows_length(saved):
    found = probe(saved(features()))
    assert (found.duration_s, found.has_audio, found.has_video, found.sample_rate) == (10.016, True, False, 16_000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((80, 626), np.float32),
            r"expected features of shape \(time, 80\) .*, got \(80, 626\)",
        ),
        (np.zeros((1, 626, 80), np.float32), r".*got \(1, 626, 80\) float32"),
        (np.zeros((0, 80), np.float32), r".*got \(0, 80\)"),
        (np.zeros((9, 80), np.int64), r".*got \(9, 80\) int64"),
        (np.full((9, 80), np.nan, np.float32), "expected values from 0 to 1"),
        (np.full((9, 80), -3.0, np.float32), "expected values from 0 to 1"),
    ],
)
def test_arrays_that_are_no_features_are_refused(saved, values, message):
    with pytest.raises(MediaError, match=rf"a\.npy: {message}"):
        read_features(saved(values))


def test_nothing_in_a_span_is_told(saved):
    with pytest.raises(MediaError, match="no features between 20 s and the end"):
        read_features(saved(features()), 20.0)


class RunsCode:
    def __reduce__(self):
        return (print, ("code in a feature file ran",))


def test_objects_in_a_feature_file_are_refused_and_their_code_not_run(saved, capsys):
    path = saved(np.array([RunsCode()], dtype=object), allow_pickle=True)
    with pytest.raises(MediaError, match=r"a\.npy: not an array of numbers"):
        read_features(path)
    assert "ran" not in capsys.readouterr().out


def test_broken_feature_files_are_refused(saved):
    whole = saved(features()).read_bytes()
    claims = whole.replace(b"626, 80", b"999, 80")
    for content in (b"", b"text", whole[:7], whole[:90], whole[:-5], claims, b"PK\x03\x04"):
        path = saved(features())
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"a\.npy: "):
            read_features(path)
    path.unlink()
    with pytest.raises(MediaError, match="no such file"):
        read_features(path)
