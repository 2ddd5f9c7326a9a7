"""Section `data` of params.yaml."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from avrecog.config import Fraction, Text, WholeNumber, section
from avrecog.errors import ConfigError

Part = Annotated[float, Strict(), Field(gt=0, lt=1)]


@section
class KineticsConfig:
    """Part `kinetics` of section `data`: the files in the folder `data.annotation`, and where the media lie.

    DVC hashes that folder, so it holds the lists and nothing else. A relative root counts from the project.
    """

    train: Text  # list of the training clips
    label_map: Text  # one class name a line; the line number (from 0) is the label of the lists
    train_root: Text  # folder below which the media of the list lie
    val: Text | None = None  # null: cut from train (data.val_fraction)
    test: Text | None = None  # MMAction2's val list; null: cut from train (data.test_fraction)
    val_root: Text | None = None  # null: train_root
    test_root: Text | None = None  # null: train_root

    def __post_init__(self) -> None:
        for name in ("train", "val", "test", "label_map"):
            value = getattr(self, name)
            if value is not None and Path(value).name != value:
                raise ConfigError(f"{name}: expected the name of a file in the folder data.annotation, got {value!r}")
        for name in ("val", "test"):
            root = getattr(self, f"{name}_root")
            if root is not None and getattr(self, name) is None:
                raise ConfigError(f"{name}_root: expected null where {name} is null, got {root!r}")


@section
class DataConfig:
    """Section `data` in params.yaml: where the clips are, and how they are split."""

    source: Text  # demo, csv, folder, kinetics: by `sources.py`
    annotation: (
        Text  # demo: its YAML; csv: the file; folder: the root; kinetics: the lists' folder; counts from the project
    )
    max_skipped: Fraction = 0.01  # of the clips may be unreadable; above, the stage fails with the list
    test_fold: WholeNumber | None = None  # this fold of the annotation is the test
    val_fraction: Part = 0.2  # of train, where the annotation gives no val
    test_fraction: Part = 0.2  # of all, where the annotation gives no test
    seed: WholeNumber = 0  # of the cuts
    kinetics: KineticsConfig | None = None  # source kinetics: its lists, and where the media lie
