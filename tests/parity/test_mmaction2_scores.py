"""Result files and fused numbers of MMAction2 (see shared/parity/mmaction2/README.md)."""

import json

import numpy as np
import pytest

from avrecog.commands.fuse import fuse_as_mmaction2
from avrecog.interop import mmaction2_metrics
from avrecog.interop.mmaction2_metrics import mean_class_accuracy, top_classes, top_k_accuracy
from avrecog.interop.mmaction2_results import ResultFileOptions, read_datalist, read_results
from avrecog.interop.score_files import read_result_file

SETS, SIDES = ("A", "T"), ("audio", "rgb")
FORMS = {"0x": "scores0x_{}_{}.pkl", "1x": "dump1x_{}_{}.pkl"}


@pytest.fixture
def golden(shared):
    return shared / "parity/mmaction2"


@pytest.fixture
def scores(golden):
    return np.load(golden / "scores.npz")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("form", FORMS)
def test_result_files_hold_the_scores_that_were_written(golden, scores, name, side, form):
    results = read_results(golden / FORMS[form].format(name, side))
    assert results.scores.dtype == np.float32
    assert np.array_equal(results.scores, scores[f"{name}_{side}"])
    assert results.names is None
    if form == "1x":
        assert np.array_equal(results.labels, scores[f"{name}_labels"])
    else:
        assert results.labels is None


def test_the_json_holds_what_the_pickle_does(golden, scores):
    assert np.array_equal(read_results(golden / "scores0x_T_audio.json").scores, scores["T_audio"])


@pytest.mark.parametrize("name", SETS)
def test_a_datalist_names_and_labels_the_rows(golden, scores, name):
    listed = read_datalist(golden / f"datalist_{name}.txt")
    assert np.array_equal(listed.labels, scores[f"{name}_labels"])
    assert listed.clip_ids[1] == "some_class/video_0001"
    table, said = read_result_file(
        golden / FORMS["0x"].format(name, "rgb"), ResultFileOptions(golden / f"datalist_{name}.txt")
    )
    assert table.kind == ("logits" if name == "A" else "probabilities")
    assert f"{table.kind} (seen in the numbers" in said
    assert tuple(table.clip_ids) == listed.clip_ids


def cases(golden, version: str) -> list[dict]:
    found = json.loads((golden / f"report_accuracy_{version}.json").read_text())
    assert {case["set"] for case in found} == set(SETS)
    return found


def test_the_three_lines_of_0x_are_the_references(golden):
    for case in cases(golden, "0x"):
        files = [golden / FORMS["0x"].format(case["set"], side) for side in SIDES]
        datalist = golden / f"datalist_{case['set']}.txt"
        told = fuse_as_mmaction2(files, datalist, case["coefficients"], case["apply_softmax"])
        assert told + "\n" == case["stdout"], case
        fused = mmaction2_metrics.fuse(
            [read_results(path).scores for path in files], case["coefficients"], case["apply_softmax"]
        )
        labels = read_datalist(datalist).labels
        assert mean_class_accuracy(fused, labels) == pytest.approx(case["mean_class"], abs=1e-12)
        assert top_k_accuracy(fused, labels, 1) == case["top1"]
        assert top_k_accuracy(fused, labels, 5) == case["top5"]


def test_the_three_lines_and_the_metric_of_1x_are_the_references(golden):
    for case in cases(golden, "1x"):
        if "accmetric" in case:
            results = read_results(golden / FORMS["1x"].format(case["set"], case["which"]))
            scores, labels = results.scores, results.labels
            found = {
                "acc/top1": top_k_accuracy(scores, labels, 1),
                "acc/top5": top_k_accuracy(scores, labels, 5),
                "acc/mean1": mean_class_accuracy(scores, labels),
            }
            assert found == pytest.approx(case["accmetric"], abs=1e-12)
        else:
            files = [golden / FORMS["1x"].format(case["set"], side) for side in SIDES]
            assert fuse_as_mmaction2(files, None, case["coefficients"], case["apply_softmax"]) + "\n" == case["stdout"]


def test_ties_are_broken_in_a_way_that_numpy_may_take(golden, scores):
    ties = json.loads((golden / "ties_T.json").read_text())
    table, labels = scores["T_audio"], scores["T_labels"]
    assert ties["labels"] == labels.tolist()
    assert table.argmax(axis=1).tolist() == ties["argmax"]
    stable = np.argsort(table, axis=1, kind="stable")[:, :-6:-1]
    assert stable.tolist() == ties["argsort_stable_last5"]
    top = top_classes(table, 5)[:, ::-1]
    for row, ours, theirs in zip(table, top, ties["argsort_last5"], strict=True):
        # which of equal scores comes first is the processor's choice, so the values must agree, not the classes
        assert row[ours].tolist() == row[theirs].tolist()
        assert len(set(ours.tolist())) == 5
