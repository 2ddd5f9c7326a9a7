import numpy as np
import pytest

from avrecog.errors import LeakError, ScoreError
from avrecog.scores.npz import read_scores, write_scores
from avrecog.scores.stack import read_stack
from avrecog.scores.table import probabilities
from fusion_inputs import CLASSES, write_model_scores


@pytest.fixture(scope="session")
def scores_dir(tmp_path_factory):
    return write_model_scores(tmp_path_factory.mktemp("scores"))


def test_the_rows_of_all_models_are_of_the_same_clips(scores_dir):
    stack = read_stack(scores_dir, ["audio", "rgb"], "val")
    assert stack.probabilities.shape == (2, 150, len(CLASSES))
    assert stack.classes == CLASSES
    assert stack.n_left_out == {}
    table = read_scores(scores_dir / "rgb" / "val.npz")
    place = {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
    order = [place[clip_id] for clip_id in stack.clip_ids]
    assert np.array_equal(stack.probabilities[1], probabilities(table)[order])
    assert np.array_equal(stack.labels, table.labels[order])


def test_the_tables_share_the_memory_of_the_stack(scores_dir):
    stack = read_stack(scores_dir, ["audio", "rgb"], "val")
    assert all(np.shares_memory(table.scores, stack.probabilities) for table in stack.tables)


@pytest.mark.parametrize(("asked", "found", "error"), [("val", "test", LeakError), ("test", "val", ScoreError)])
def test_a_file_of_another_split_is_refused(scores_dir, tmp_path, asked, found, error):
    write_scores(tmp_path / "audio" / f"{asked}.npz", read_scores(scores_dir / "audio" / f"{found}.npz"))
    with pytest.raises(error, match=f"expected scores of split {asked}, got {found}; run stage test"):
        read_stack(tmp_path, ["audio"], asked)
