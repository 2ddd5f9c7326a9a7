import json
import pickle

import mmengine
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.evaluator import DumpResults

from avrecog.errors import ConfigError, PickleError, ScoreError
from avrecog.interop.mmaction2_results import ResultFileOptions, read_datalist, read_results
from avrecog.interop.score_files import convert_scores, kind_of, read_result_file
from avrecog.interop.score_files import write_result_file as write
from avrecog.scores.npz import write_scores
from avrecog.scores.table import ScoreTable, probabilities

ROWS = [[0.5, -1.0, 2.0], [1.5, 0.25, 0.0]]
DATALIST = "x/a.mp4 20 2\nx/b 30 0\n"


def written(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    return path


def dumped(scores=ROWS, **changes) -> list[dict]:
    """Rows of a 1.x dump."""
    return [
        {
            "num_classes": len(row),
            "pred_label": torch.tensor([0]),
            "pred_score": torch.tensor(row),
            "gt_label": torch.tensor([index]),
            **changes,
        }
        for index, row in enumerate(scores)
    ]


def table(kind="logits", seed=0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(5, 3)).astype(np.float32)
    ids = np.array([f"some class/clip {i}" for i in range(5)])
    made = ScoreTable(ids, np.arange(5) % 3, scores, ("0", "1", "2"), "logits", "audio", "test")
    if kind == "probabilities":
        return ScoreTable(ids, made.labels, probabilities(made), made.classes, kind, "audio", "test")
    return made


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", pickle.dumps([np.array(row, np.float32) for row in ROWS], 2)),
        ("a.pickle", pickle.dumps([np.array(row) for row in ROWS])),
        ("b.pkl", pickle.dumps(ROWS)),
        ("a.json", json.dumps(ROWS)),
        ("a.yaml", "- [0.5, -1.0, 2.0]\n- - 1.5\n  - 0.25\n  - 0\n"),
        ("c.pkl", pickle.dumps(dumped(), 2)),
    ],
)
def test_every_form_gives_the_same_scores(tmp_path, name, content):
    assert np.array_equal(read_results(written(tmp_path / name, content)).scores, ROWS)


def test_the_list_says_the_clips_and_their_classes(tmp_path):
    listed = read_datalist(written(tmp_path / "list.txt", "a/x.npy 250 3\r\n\n  a/y.z.webm\t10   0\nb 12\n"))
    assert listed.clip_ids == ("a/x", "a/y.z", "b")
    assert listed.labels.tolist() == [3, 0, 12]
    assert listed.labels.dtype == np.int64


def test_a_table_holds_what_is_known_and_the_line_says_what_was_concluded(tmp_path):
    path = written(tmp_path / "r50.json", json.dumps(ROWS))
    told = ResultFileOptions(
        written(tmp_path / "list.txt", DATALIST), written(tmp_path / "map.txt", "run\njump\nsit\n"), split="val"
    )
    read, said = read_result_file(path, told)
    assert (read.model, read.split, read.kind, read.classes) == ("r50", "val", "logits", ("run", "jump", "sit"))
    assert read.clip_ids.tolist() == ["x/a", "x/b"]
    assert read.labels.tolist() == [2, 0]
    assert said == f"{path}: 2 clips, 3 classes, logits (seen in the numbers; --kind states it)"


def test_a_dump_needs_no_list(tmp_path):
    path = written(tmp_path / "a.pkl", pickle.dumps(dumped()))
    read, said = read_result_file(path, ResultFileOptions(kind="logits"))
    assert read.clip_ids.tolist() == ["0", "1"]
    assert read.labels.tolist() == [0, 1]
    assert said.endswith("logits (as stated), clips named by their row")
    rows = [{**row, "filename": f"videos/{index}.mp4"} for index, row in enumerate(dumped())]
    read, said = read_result_file(written(path, pickle.dumps(rows)), ResultFileOptions())
    assert read.clip_ids.tolist() == ["videos/0", "videos/1"]
    assert said.endswith("clips named as in the file")
    rows[1]["filename"] = rows[0]["filename"]
    assert read_result_file(written(path, pickle.dumps(rows)), ResultFileOptions())[0].clip_ids.tolist() == ["0", "1"]


@given(
    scores=st.lists(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array)
)
def test_the_kind_is_seen(scores):
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for precision in (np.float64, np.float32, np.float16):
        assert kind_of(shares.astype(precision)) == "probabilities"
    if (scores < 0).any() or (np.abs(scores.sum(axis=1) - 1) > 0.01).any():
        assert kind_of(scores) == "logits"


def test_numbers_that_look_like_neither_kind_are_told(tmp_path):
    path = written(tmp_path / "a.json", "[[0.5, 0.1], [0.2, 0.2]]")
    told = ResultFileOptions(written(tmp_path / "list.txt", "a 0\nb 1\n"))
    assert (
        "logits (though all lie in 0 to 1, as rows don't sum to 1: state it with --kind)"
        in read_result_file(path, told)[1]
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", None, r"a\.pkl: can't be read \(No such file"),
        ("a.json", None, r"a\.json: result file can't be read \(No such file"),
        ("a.pkl", b"cos\nsystem\n.", r"a\.pkl: asks for 'os\.system'"),
        ("a.pkl", pickle.dumps({}), "expected a list with a row for each clip, got an empty dict"),
        ("a.pkl", pickle.dumps(np.zeros((2, 3))), r"got an array \(2, 3\) of float64"),
        ("a.pkl", pickle.dumps([np.zeros(3), np.zeros(2)]), "expected 3 scores, as in row 0, got 2 in row 1"),
        ("a.pkl", pickle.dumps([np.zeros((1, 3))]), r"a row of scores for each clip, got an array \(1, 3\) of float64"),
        ("a.pkl", pickle.dumps([np.zeros(0)]), r"got an array \(0,\)"),
        ("a.pkl", pickle.dumps([np.zeros(3, bool)]), r"got an array \(3,\) of bool"),
        ("a.pkl", pickle.dumps([np.zeros(2), [1.0, np.nan]]), "got NaN or infinity in row 1"),
        ("a.pkl", pickle.dumps([np.zeros(2), [1.0, True]]), "expected 2 scores, as in row 0, got a list in row 1"),
        ("a.pkl", pickle.dumps([np.zeros(2), {"pred_score": 1}]), "got a dict in row 1"),
        ("a.pkl", pickle.dumps([np.zeros(2**18)] * 9), r"unfold to 9 x 262,144 numbers"),
        ("a.json", "[[1, 2], [3]]", "expected 2 scores, as in row 0, got 1 in row 1"),
        ("a.json", "[[1, 2], [3, null]]", "got a list in row 1"),
        ("a.json", '[[1, "2"]]', "got a list in row 0"),
        ("a.json", "[[1, NaN]]", "got NaN or infinity in row 0"),
        ("a.json", f"[[1, {'9' * 400}]]", "got a list in row 0"),
        ("a.json", f"[[1, {'9' * 5000}]]", "not valid JSON"),
        ("a.json", "[[1, 2]", "not valid JSON"),
        ("a.json", "[]", "got an empty list"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", b"\xff", "expected a result file in UTF-8"),
        ("a.yaml", "- !!python/object/apply:os.system [true]\n", "not valid YAML"),
        ("a.yaml", "[" * 1000, "nested too deeply"),
        ("a.yaml", "&a [*a]", "got a list in row 0"),
        ("a.json", '[{"gt_label": 1}]', "expected a dict with pred_score in row 0, got keys gt_label"),
        ("a.json", '[{"pred_score": [1, 2]}, 3]', "expected a dict with pred_score in row 1, got a int"),
        ("a.json", '[{"pred_score": [1, 2], "gt_label": [0, 1]}]', "one label .* in row 0, got a list"),
        ("a.json", '[{"pred_score": [1, 2], "gt_label": 2}]', "expected labels from 0 to 1, got 2 in row 0"),
        ("a.json", '[{"pred_score": [1, 2], "gt_label": true}]', "one label .* in row 0, got a bool"),
        ("a.json", '[{"pred_score": [1], "gt_label": 0}, {"pred_score": [1]}]', "in row 1, got nothing"),
        ("a.json", '[{"pred_score": [1, 2], "num_classes": 3}]', "row 0 has 2 scores, and its num_classes is another"),
        ("a.pkl", pickle.dumps(dumped(gt_label=torch.tensor([0, 1]))), "one label .* in row 0, got several"),
    ],
)
def test_a_wrong_result_file_is_refused(tmp_path, name, content, message):
    if content is not None:
        written(tmp_path / name, content)
    with pytest.raises((ScoreError, PickleError), match=message):
        read_results(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line for each clip, got none"),
        ("a 1\nb\n", "line 2: expected `path label` or `path frames label`, got 'b'"),
        ("a 10 1 2\n", "a path with spaces or several labels can't be told apart"),
        ("playing guitar/a 1\n", "line 1: expected `path label`"),
        ("a 10 -1\n", "line 1"),
        ("a 10 1.0\n", "line 1"),
        ("a ²\n", "line 1"),
        (f"a {'9' * 5000}\n", "line 1: expected a class number"),
    ],
)
def test_a_wrong_datalist_is_refused(tmp_path, text, message):
    with pytest.raises(ScoreError, match=message):
        read_datalist(written(tmp_path / "list.txt", text))


@pytest.mark.parametrize(
    ("datalist", "labels", "rows", "message"),
    [
        (None, None, ROWS, "holds scores without labels; give the list of its clips with --datalist"),
        ("a 0\n", None, ROWS, r"has 2 rows, and .*list\.txt 1; give the list it is of"),
        ("a 0\nb 3\n", None, ROWS, "expected labels from 0 to 2, as .* has 3 classes, got 3 for clip 'b'"),
        ("a.mp4 0\na.wav 1\n", None, ROWS, "clip_id: clip 'a' is there more than once"),
        (DATALIST, "x\ny\n", ROWS, r"map\.txt: expected 3 class names, one a line, got 2"),
        (DATALIST, "x\ny\ny\n", ROWS, "classes: 'y' is there twice"),
        (DATALIST, None, [[1e300, 0], [0, 0]], "expected labels from 0 to 1"),
        ("a 0\nb 0\n", None, [[1e300, 0], [0, 0]], "NaN or infinity for clip 'a'"),
        ("a 0\nb 2\n", None, dumped(), "row 1 is of class 1, and .* has 2 for 'b'"),
        ("a 0\n" * 5000 + "a" * 10_000 + " 0\n", None, [[0, 1]] * 5001, "got one of 10,000 letters"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, datalist, labels, rows, message):
    path = written(tmp_path / "a.pkl", pickle.dumps(rows))
    told = ResultFileOptions(
        written(tmp_path / "list.txt", datalist) if datalist else None,
        written(tmp_path / "map.txt", labels) if labels else None,
    )
    with pytest.raises(ScoreError, match=message):
        read_result_file(path, told)


def test_rows_that_repeat_one_list_by_reference_are_not_unfolded(tmp_path):
    row = [0.5] * 1000
    path = written(tmp_path / "a.pkl", pickle.dumps([row] * 10_000))
    with pytest.raises(ScoreError, match="holds references that unfold to 10,000 x 1,000 numbers; not read"):
        read_results(path)


def test_stated_probabilities_are_scaled_to_a_sum_of_one_and_that_is_said(tmp_path):
    path = written(tmp_path / "a.json", json.dumps([[0.2, 0.0, 0.2], [0.5, 0.25, 0.25]]))
    read, said = read_result_file(
        path, ResultFileOptions(written(tmp_path / "list.txt", DATALIST), kind="probabilities")
    )
    assert read.scores.tolist() == [[0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]
    assert said.endswith("probabilities (as stated; rows summed to 0.4 to 1, scaled to 1)")


@pytest.mark.parametrize("rows", [[[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]], [[0.5, 0.6, -0.1], [0.5, 0.5, 0.0]]])
def test_stated_probabilities_without_a_sum_or_below_zero_are_refused(tmp_path, rows):
    path = written(tmp_path / "a.json", json.dumps(rows))
    with pytest.raises(ScoreError, match="expected probabilities"):
        read_result_file(path, ResultFileOptions(written(tmp_path / "list.txt", DATALIST), kind="probabilities"))


def test_a_stated_kind_must_be_possible(tmp_path):
    path = written(tmp_path / "a.json", json.dumps(ROWS))
    with pytest.raises(ScoreError, match="expected probabilities"):
        read_result_file(path, ResultFileOptions(written(tmp_path / "list.txt", DATALIST), kind="probabilities"))


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_what_is_written_comes_back(tmp_path, kind):
    given_table = table(kind)
    datalist = written(
        tmp_path / "list.txt", "".join(f"{i} 10 {label}\n" for i, label in enumerate(given_table.labels))
    )
    for name, form in (("a.pkl", "0.x"), ("a.json", "0.x"), ("b.pkl", "1.x")):
        write(tmp_path / name, given_table, form)
        read, _ = read_result_file(
            tmp_path / name, ResultFileOptions(None if form == "1.x" else datalist), model="audio"
        )
        assert np.array_equal(read.scores, given_table.scores)
        assert np.array_equal(read.labels, given_table.labels)
        assert read.kind == kind
        if form == "1.x":
            assert np.array_equal(read.clip_ids, given_table.clip_ids)


def test_their_loader_reads_what_we_write(tmp_path):
    write(tmp_path / "a.pkl", table())
    write(tmp_path / "a.json", table())
    for name in ("a.pkl", "a.json"):
        rows = mmengine.load(tmp_path / name)
        assert isinstance(rows, list)
        assert np.array_equal(np.stack([np.asarray(row, np.float32) for row in rows]), table().scores)
    write(tmp_path / "b.pkl", table(), "1.x")
    rows = mmengine.load(tmp_path / "b.pkl")
    assert torch.equal(torch.stack([row["pred_score"] for row in rows]), torch.from_numpy(table().scores))
    assert [int(row["gt_label"]) for row in rows] == table().labels.tolist()


def test_a_dump_of_ours_has_the_form_of_their_writer(tmp_path):
    write(tmp_path / "ours.pkl", table(), "1.x")
    ours = pickle.loads((tmp_path / "ours.pkl").read_bytes())
    dump = DumpResults(str(tmp_path / "theirs.pkl"))
    dump.process({}, ours)
    dump.evaluate(len(ours))
    assert (tmp_path / "theirs.pkl").read_bytes()[:2] == (tmp_path / "ours.pkl").read_bytes()[:2]
    read, again = read_results(tmp_path / "theirs.pkl"), read_results(tmp_path / "ours.pkl")
    assert np.array_equal(read.scores, again.scores)
    assert np.array_equal(read.labels, again.labels)
    assert read.names == again.names


def test_numpy_1_can_read_what_we_write(tmp_path):
    write(tmp_path / "a.pkl", table())
    content = (tmp_path / "a.pkl").read_bytes()
    assert b"numpy.core.multiarray" in content
    assert b"numpy._core" not in content
    assert content[:2] == b"\x80\x02"


def test_converting_there_and_back_changes_nothing(tmp_path):
    source = tmp_path / "ours.npz"
    write_scores(source, table())
    said = convert_scores(source, tmp_path / "a.pkl", ResultFileOptions(), form="1.x")
    assert said == f"{source}: 5 clips, 3 classes, logits -> {tmp_path / 'a.pkl'} (MMAction2 1.x)"
    said = convert_scores(tmp_path / "a.pkl", tmp_path / "b.npz", ResultFileOptions(), "audio")
    assert said.endswith(f"-> {tmp_path / 'b.npz'} (model audio, split test)")
    assert (tmp_path / "b.npz").read_bytes() == source.read_bytes()
    said = convert_scores(source, tmp_path / "a.json", ResultFileOptions())
    assert said.endswith("(MMAction2 0.x, which holds no clips and labels: keep their list)")


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("a.txt", "b.npz", {}, r"a\.txt: expected \.npz, \.pkl"),
        ("a.npz", "b.txt", {}, r"b\.txt: expected \.npz"),
        (
            "a.npz",
            "b.pkl",
            {"told": ResultFileOptions(kind="logits")},
            "says its clips, classes, kind, split and model itself",
        ),
        ("a.npz", "b.pkl", {"model": "x"}, "says its clips"),
        ("a.npz", "b.json", {"form": "1.x"}, r"expected \.pkl, or \.json for form 0\.x"),
        ("a.npz", "b.yaml", {}, r"expected \.pkl, or \.json for form 0\.x"),
        ("a.npz", "b.npz", {"form": "1.x"}, "--form is of MMAction2's files"),
    ],
)
def test_what_can_not_be_converted_is_refused(tmp_path, source, target, options, message):
    write_scores(tmp_path / "a.npz", table())
    with pytest.raises(ConfigError, match=message):
        convert_scores(tmp_path / source, tmp_path / target, **{"told": ResultFileOptions(), **options})
    assert not (tmp_path / target).exists() or target == source


def test_a_kinetics_sized_file_is_read(tmp_path):
    """2,000 clips of 400 classes: a tenth of the validation split."""
    scores = np.random.default_rng(0).normal(size=(2000, 400)).astype(np.float32)
    path = written(tmp_path / "a.pkl", pickle.dumps(list(scores), 2))
    assert np.array_equal(read_results(path).scores, scores)
