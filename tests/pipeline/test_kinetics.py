"""Recipe kinetics400_audio_r18 on a small folder in the shape of Kinetics, by DVC, from the lists to the table."""

import json
import shutil
import sys
from unittest import mock

import pytest

import chaos
import projects
from avrecog import cli
from avrecog.scores.npz import read_scores
from clips import make_kinetics

NAME = "kinetics400_audio_r18"


@pytest.mark.slow
def test_the_recipe_runs_from_the_lists_to_its_row_and_a_second_run_does_nothing(tmp_path):
    folder, made = tmp_path / "project", make_kinetics(tmp_path / "kinetics")
    chaos.make_project(folder)
    shutil.rmtree(folder / "clips")
    command = ["avrecog", "recipe", NAME, "--annotation", str(made.lists)]
    with projects.inside(folder), mock.patch.object(sys, "argv", command):
        cli.main()
    projects.shrink_kinetics(folder, made.section)
    chaos.dvc(folder, "repro")
    report = json.loads((folder / "data/report.json").read_text())
    assert (report["n_clips"], report["n_missing"], report["n_silent"]) == (30, 1, 1)
    scores = read_scores(folder / "results/scores/audio/test.npz")
    assert list(scores.classes) == ["whistling", "air drumming", "zumba"]
    assert len(scores.labels) == 10
    rows = [line for line in (folder / "results/ZOO.md").read_text().splitlines() if "models/audio" in line]
    top1 = json.loads((folder / "results/metrics/test/audio.json").read_text())["top1"]
    assert len(rows) == 1
    assert f"{100 * top1:.2f}" in rows[0]
    assert "up to date" in chaos.dvc(folder, "status")
