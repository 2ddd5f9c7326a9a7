"""The same commit, seed and machine give the same bytes."""

import hashlib

import chaos
import projects
from chaos import dvc


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "models/audio").iterdir()}


def test_dvc_repro_f_gives_the_same_checkpoints_byte_for_byte_and_another_seed_does_not(tmp_path):
    folder = tmp_path / "project"
    chaos.make_project(folder)
    change = {"pipeline": {"models": ["audio"]}, "train": {"epochs": 2, "augment": {"mixup_alpha": 0.5}}}
    change["models"] = {"audio": {"dropout": 0.2}}  # everything that draws
    projects.write_params(folder, projects.SMALL, change)
    dvc(folder, "repro", "train@audio")
    first = digests(folder)
    assert first.keys() == {"best.ckpt", "last.ckpt", "history.csv", "config.yaml"}
    dvc(folder, "repro", "-f", "train@audio")  # prepare and extract again too
    assert digests(folder) == first
    change["train"]["seed"] = 1
    projects.write_params(folder, projects.SMALL, change)
    dvc(folder, "repro", "train@audio")
    assert all(digests(folder)[name] != first[name] for name in ("best.ckpt", "last.ckpt", "history.csv"))
