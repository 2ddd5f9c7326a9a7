"""Files that anyone may hand over, mutated at random: a result or an AvrecogError, in 1 GiB, whatever comes.

`make test` tries 200 inputs a format, `make fuzz` 10,000. Half are bytes changed blindly, half are valid containers
with strange values, which get further in.
"""

import contextlib
import io
import os
import pickle
import resource
import signal
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avrecog.annotations.csv_source import read_csv
from avrecog.annotations.kinetics_source import read_kinetics
from avrecog.annotations.settings import KineticsConfig
from avrecog.annotations.sources import DataSection
from avrecog.config import At, load_params
from avrecog.errors import AvrecogError
from avrecog.features.settings import AudioConfig
from avrecog.features.store import Store
from avrecog.features.video_settings import VideoConfig
from avrecog.fusion.file import read_fusion
from avrecog.fusion.settings import FuseConfig
from avrecog.inference.settings import BenchmarkConfig, TestConfig
from avrecog.inference.trained_model import load_model
from avrecog.interop.checkpoints import load_mmaction2
from avrecog.interop.mmaction2_checkpoints import external_names
from avrecog.interop.mmaction2_results import ResultFileOptions
from avrecog.interop.score_files import read_result_file, write_result_file
from avrecog.manifest import read_manifest, read_splits
from avrecog.models.checkpoint import load_checkpoint
from avrecog.models.registry import model_section
from avrecog.pipeline import PipelineConfig, SelfSupervisedConfig
from avrecog.scores.npz import read_scores
from avrecog.scores.predictions import read_predictions, shares_correct
from avrecog.scores.table import join_scores, probabilities
from avrecog.training.settings import TrainConfig, resolve_train_config

N_INPUTS = int(os.environ.get("AVRECOG_FUZZ", "200"))
HANGS_S = 3600  # of one input; `make fuzz` prints how long the slowest took
MAX_MORE_BYTES = 2**30

fuzzed = settings(
    max_examples=N_INPUTS,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

STRANGE_TEXT = st.sampled_from(
    [b"", b"nan", b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"\x00", b'"', b"\xff\xfe", b"\r", b"\n\n", b"null", b"true"]
    + [b"[" * 3000, b"{" * 3000, b"&a [*a]", b"*a", b"<<: *a", b"!!python/name:os.system", b"0x", b"? :", b"- ", b"\t"]
    + [b"'", b"%", b",", b",,,,", b"0.0.0", b"1_0", b"0o17", b"2026-11-25", "ü☂".encode(), b"../../etc/passwd"]
)
EDIT = st.tuples(st.sampled_from(["flip", "cut", "insert", "drop", "double"]), st.floats(0, 1), STRANGE_TEXT)
EDITS = st.lists(EDIT, min_size=1, max_size=6)

STRANGE_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf")])
    | st.sampled_from(["", "a" * 1000, "resnet18", "\x00"])
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
STRANGE_TENSOR = st.builds(
    lambda shape, kind, stride: torch.zeros(1, dtype=kind).as_strided(shape, [stride] * len(shape)),
    st.lists(st.sampled_from([0, 1, 3, 2**20, 2**30]), max_size=2),
    st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16]),
    st.just(0),
)
STRANGE_ARRAY = st.builds(
    lambda shape, dtype: np.zeros(shape, dtype),
    st.lists(st.sampled_from([0, 1, 3, 12]), max_size=3).map(tuple),
    st.sampled_from(["f4", "f8", "f2", "i8", "i4", "U3", "S3", "?", "c8", "M8[s]", "V4"]),
)


def edited(content: bytes, edits) -> bytes:
    for kind, place, text in edits:
        at = round(place * len(content))
        if kind == "flip" and content:
            at = min(at, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ (1 + len(text) % 255)]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + text + content[at:]
        elif kind == "drop":
            content = content[:at] + content[at + 1 + 7 * len(text) :]
        elif kind == "double":
            content = content[:at] + content[max(0, at - 50) :]
    return content


@pytest.fixture(scope="module")
def seeds(finished_project, tmp_path_factory):
    """A small valid file of each format."""
    folder = tmp_path_factory.mktemp("fuzz")
    annotation = b"path,label,split,fold,group,start,end,clip_id\na.wav,x,train,1,g,0,1,a\nb.wav,y,test,2,h,,,b\n"
    (folder / "annotation.csv").write_bytes(annotation)
    lines = (finished_project / "data/manifest.csv").read_bytes().splitlines(keepends=True)
    (folder / "manifest.csv").write_bytes(b"".join(lines[:5]))
    lines = (finished_project / "data/splits.csv").read_bytes().splitlines(keepends=True)
    (folder / "splits.csv").write_bytes(b"".join(lines[:5]))
    lines = (finished_project / "results/plots/test/audio/predictions.csv").read_bytes().splitlines(keepends=True)
    (folder / "predictions.csv").write_bytes(b"".join(lines[:5]))
    (folder / "params.yaml").write_bytes((finished_project / "params.yaml").read_bytes())
    (folder / "scores.npz").write_bytes((finished_project / "results/scores/audio/test.npz").read_bytes())
    (folder / "fusion.npz").write_bytes((finished_project / "results/fuse/fusion.npz").read_bytes())
    (folder / "best.ckpt").write_bytes((finished_project / "models/audio/best.ckpt").read_bytes())
    (folder / "store").mkdir()
    for name in ("values.bin", "index.csv", "store.json"):
        (folder / "store" / name).write_bytes((finished_project / "data/features/audio" / name).read_bytes())
    return folder


class Limits:
    """An end for each input, 1 GiB for all of them; counts what came of them and prints it."""

    def __init__(self, name: str) -> None:
        self.name, self.outcomes, self.slowest_s = name, Counter(), 0.0

    def __enter__(self):
        self.peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open("/proc/self/statm", encoding="utf-8") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        self.limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + MAX_MORE_BYTES, self.limits[1]))
        self.handler = signal.signal(signal.SIGALRM, self.too_slow)
        return self

    def __exit__(self, kind, *_):
        resource.setrlimit(resource.RLIMIT_AS, self.limits)
        signal.signal(signal.SIGALRM, self.handler)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.peak_before) / 1024
        if kind is None:
            told = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common())
            sys.stdout.write(f"\nfuzz {self.name}: {told}; slowest {self.slowest_s:.2f} s; {grown:.0f} MiB more\n")

    def too_slow(self, *_):
        raise TimeoutError("hangs")

    @contextlib.contextmanager
    def one(self):
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, HANGS_S)
        try:
            yield
            self.outcomes["results"] += 1
        except AvrecogError as error:
            self.outcomes[type(error).__name__] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)


def read_params(path):
    params = load_params(
        path,
        data=DataSection,
        audio=AudioConfig | None,
        video=VideoConfig | None,
        pipeline=PipelineConfig,
        selfsupervised=SelfSupervisedConfig,
        train=TrainConfig,
        model=At("models.audio", model_section()),
        test=TestConfig,
        benchmark=BenchmarkConfig,
        fuse=FuseConfig,
    )
    resolve_train_config(params.train, params.model.train, "audio")
    params.flat()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("annotation.csv", lambda path: read_csv(path, Path("clips"))),
        ("manifest.csv", read_manifest),
        ("splits.csv", read_splits),
        ("predictions.csv", lambda path: shares_correct([read_predictions(path)])),
        ("params.yaml", read_params),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_files(seeds, tmp_path, name, read):
    content = (seeds / name).read_bytes()
    with Limits(name) as limits:

        @fuzzed
        @given(EDITS)
        def fuzz(edits):
            (tmp_path / name).write_bytes(edited(content, edits))
            with limits.one():
                read(tmp_path / name)

        fuzz()


def read_score_file(path, seeds):
    probabilities(join_scores([read_scores(seeds / "scores.npz"), read_scores(path)])[1])


def read_fusion_file(path, seeds):
    classes = read_scores(seeds / "scores.npz").classes
    read_fusion(path, classes)(np.full((2, 2, len(classes)), 1 / len(classes), np.float32))


@pytest.mark.parametrize(("name", "read"), [("scores", read_score_file), ("fusion", read_fusion_file)])
def test_files_of_arrays(seeds, tmp_path, name, read):
    content = (seeds / f"{name}.npz").read_bytes()
    with np.load(io.BytesIO(content)) as file:
        entries = dict(file)
    with Limits(f"{name}.npz") as limits:

        @fuzzed
        @given(st.booleans(), EDITS, st.dictionaries(st.sampled_from(sorted(entries)), STRANGE_ARRAY, max_size=2))
        def fuzz(blind, edits, strange):
            if blind:
                (tmp_path / "a.npz").write_bytes(edited(content, edits))
            else:
                np.savez(tmp_path / "a.npz", **{**entries, **strange})
            with limits.one():
                read(tmp_path / "a.npz", seeds)

        fuzz()


FOREIGN = {"0.x": "a.pkl", "1.x": "b.pkl", "json": "a.json", "yaml": "a.yaml"}
OPCODES = st.lists(st.sampled_from([bytes([code]) for code in range(256)]), min_size=1, max_size=4).map(b"".join)


@pytest.fixture(scope="module")
def foreign(seeds, tmp_path_factory):
    """A small result file of MMAction2 in each form, and its list."""
    folder = tmp_path_factory.mktemp("foreign")
    table = read_scores(seeds / "scores.npz")
    for form, name in FOREIGN.items():
        if name.endswith(".yaml"):
            lines = (f"- {row}\n" for row in table.scores.tolist())
            (folder / name).write_text("".join(lines))
        else:
            write_result_file(folder / name, table, "1.x" if form == "1.x" else "0.x")
    lines = (
        f"{clip_id.replace(' ', '_')} 10 {label}\n" for clip_id, label in zip(table.clip_ids, table.labels, strict=True)
    )
    (folder / "list.txt").write_text("".join(lines))
    read_result_file(folder / "a.pkl", ResultFileOptions(folder / "list.txt"))
    return folder


@pytest.mark.parametrize("form", FOREIGN)
def test_foreign_scores(foreign, tmp_path, form):
    path = tmp_path / FOREIGN[form]
    content = (foreign / FOREIGN[form]).read_bytes()
    rows = pickle.loads((foreign / FOREIGN[form]).read_bytes()) if form in ("0.x", "1.x") else None
    strange = STRANGE_VALUE | STRANGE_ARRAY | (STRANGE_TENSOR if form == "1.x" else st.nothing())
    keys = st.sampled_from(["pred_score", "gt_label", "num_classes", "filename", None])
    change = st.tuples(st.floats(0, 0.999), keys, strange)
    with Limits(f"MMAction2's scores, {form}") as limits:

        @fuzzed
        @given(
            st.sampled_from(["blind", "opcodes", "values"] if rows else ["blind"]),
            EDITS,
            st.tuples(st.floats(0, 1), OPCODES),
            st.lists(change, min_size=1, max_size=3),
            st.sampled_from(range(6)),
        )
        def fuzz(how, edits, opcodes, changes, protocol):
            if how == "blind":
                path.write_bytes(edited(content, edits))
            elif how == "opcodes":
                at = round(opcodes[0] * len(content))
                path.write_bytes(content[:at] + opcodes[1] + content[at + len(opcodes[1]) :])
            else:
                path.write_bytes(pickle.dumps(with_strange_rows(rows, changes), protocol))
            with limits.one():
                read_result_file(path, ResultFileOptions(None if form == "1.x" else foreign / "list.txt"))

        fuzz()


def with_strange_rows(rows, changes):
    """Rows of a result file with other values in some places; those of dicts under a key, or in place of the dict."""
    result = [dict(row) if isinstance(row, dict) else row for row in rows]
    for place, key, value in changes:
        at = int(place * len(result))
        if isinstance(result[at], dict) and key is not None:
            result[at][key] = value
        else:
            result[at] = value
    return result


def test_datalists(foreign, tmp_path):
    content = (foreign / "list.txt").read_bytes()
    with Limits("datalist") as limits:

        @fuzzed
        @given(EDITS)
        def fuzz(edits):
            (tmp_path / "list.txt").write_bytes(edited(content, edits))
            with limits.one():
                read_result_file(foreign / "a.pkl", ResultFileOptions(tmp_path / "list.txt"))

        fuzz()


def test_kinetics_lists(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    contents = {
        "list.txt": b"air drumming/a.mp4 300 1\nwhistling/b 12 0\nc_000012_000022.mp4 1\n\n",
        "labels.txt": b"whistling\nair drumming\n",
    }
    (tmp_path / "media/air drumming").mkdir(parents=True)
    (tmp_path / "media/air drumming/a.mp4").touch()
    config = KineticsConfig(train="list.txt", label_map="labels.txt", train_root=str(tmp_path / "media"))
    with Limits("kinetics lists") as limits:

        @fuzzed
        @given(st.sampled_from(sorted(contents)), EDITS)
        def fuzz(name, edits):
            for each, content in contents.items():
                (lists / each).write_bytes(edited(content, edits) if each == name else content)
            with limits.one():
                read_kinetics(lists, config)

        fuzz()


def test_a_score_file_that_claims_to_be_huge_is_refused(seeds, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**4)})
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", b"\x00" * 2**27)
    for name, content in (("claim", header.getvalue()), ("bomb", None)):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(bomb.getvalue())
        if content is not None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("scores.npy", content)
        with Limits(name), pytest.raises(AvrecogError, match=r"unpacks to|its header says"):
            read_scores(path)


def test_checkpoints(seeds, tmp_path):
    content = (seeds / "best.ckpt").read_bytes()
    good = load_checkpoint(seeds / "best.ckpt")
    places = [(key,) for key in good]
    places += [(key, inner) for key in ("config", "front_end", "weights", "metrics") for inner in good[key]]
    places += [("front_end", "audio", "logmel", key) for key in good["front_end"]["audio"]["logmel"]]
    change = st.tuples(st.sampled_from(places), STRANGE_VALUE | STRANGE_TENSOR)
    with Limits("checkpoint") as limits:

        @fuzzed
        @given(st.booleans(), EDITS, st.lists(change, min_size=1, max_size=3))
        def fuzz(blind, edits, changes):
            if blind:
                (tmp_path / "a.ckpt").write_bytes(edited(content, edits))
            else:
                torch.save(changed(good, changes), tmp_path / "a.ckpt")
            with limits.one():
                load_model(tmp_path / "a.ckpt")

        fuzz()


def theirs_of(path) -> dict[str, object]:
    """A checkpoint of ours as MMAction2 would have saved it in training."""
    network = load_model(path).network
    weights, names = network.state_dict(), external_names(network, "mmaction2")
    state = {theirs: weights[key] for key, theirs in names.items()}
    return {"meta": {"epoch": 3, "CLASSES": ("a", "b", "c")}, "optimizer": {"lr": 0.1}, "state_dict": state}


@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_checkpoints(seeds, tmp_path, zipped):
    good = theirs_of(seeds / "best.ckpt")
    path = tmp_path / "a.pth"
    torch.save(good, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    places = [(key,) for key in good] + [(key, inner) for key in ("meta", "state_dict") for inner in good[key]]
    change = st.tuples(st.sampled_from(places), STRANGE_VALUE | STRANGE_TENSOR)
    with Limits(f"foreign checkpoint, {'zip' if zipped else 'before zip'}") as limits:

        @fuzzed
        @given(st.booleans(), EDITS, st.lists(change, min_size=1, max_size=3))
        def fuzz(blind, edits, changes):
            if blind:
                path.write_bytes(edited(content, edits))
            else:
                torch.save(laid_over(good, changes), path, _use_new_zipfile_serialization=zipped)
            with limits.one():
                load_mmaction2(path)

        fuzz()


def changed(tree, changes):
    """A copy of our checkpoint's content with other values at some places."""
    front_end = {"audio": {"logmel": dict(tree["front_end"]["audio"]["logmel"])}, "video": None}
    return laid_over({**tree, "front_end": front_end}, changes)


def laid_over(tree, changes):
    """A copy of nested dicts with other values at some places."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for place, value in changes:
        here = result
        for step in place[:-1]:
            here = here.get(step) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here[place[-1]] = value
    return result


def test_store_indices(seeds, tmp_path):
    contents = {path.name: path.read_bytes() for path in (seeds / "store").iterdir()}
    folder = tmp_path / "store"
    folder.mkdir()
    with Limits("store index") as limits:

        @fuzzed
        @given(st.sampled_from(["index.csv", "store.json"]), EDITS)
        def fuzz(name, edits):
            for each, content in contents.items():
                (folder / each).write_bytes(edited(content, edits) if each == name else content)
            with limits.one():
                Store(folder).verify()

        fuzz()
