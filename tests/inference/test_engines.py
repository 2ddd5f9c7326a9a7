"""Every engine gives the scores of plain PyTorch, and an exported file does from the waveform on."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf.message import EncodeError

import clips
import projects
from avrecog.commands.export import export_model
from avrecog.commands.predict import predict_files
from avrecog.config import plain, validate
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.datasets.view_scores import predict_scores
from avrecog.errors import ConfigError
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import FRONT_ENDS, AudioConfig, LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.features.video_settings import VideoConfig
from avrecog.inference.engines import ENGINES
from avrecog.inference.trained_model import load_model
from avrecog.models.checkpoint import save_checkpoint
from avrecog.models.registry import build_model, model_section
from avrecog.runtime.device import lacking_to_compile, pick_device
from checkpoint import small_checkpoint

SMALL_SIGHT = {"crop_height": 32, "crop_width": 32, "depth": 14, "width": 8, "frames": 8, "alpha": 4}
SECTIONS = {
    "resnet": {"architecture": "audio", "depth": 10, "width": 8},
    "bottleneck": {"architecture": "audio", "depth": 50, "width": 8},
    "cnn10": {"architecture": "audio", "backbone": "cnn10", "depth": None, "width": 8},
    "resnetaudio": {"architecture": "audio", "backbone": "resnetaudio", "depth": 50, "width": 8},
    "timm": {"architecture": "audio", "backbone": "resnet10t", "depth": None, "width": None},
    "tsn": {"architecture": "tsn", "backbone": "resnet18", "width": 8, "crop_height": 32, "crop_width": 32},
    "motion": {
        "architecture": "tsn",
        "backbone": "resnet18",
        "width": 8,
        "crop_height": 32,
        "crop_width": 32,
        "snippet": 4,
        "motion": True,
    },
    "slowfast": {"architecture": "slowfast", **SMALL_SIGHT},
    "avslowfast": {"architecture": "avslowfast", "mel_frames": 32, **SMALL_SIGHT},
    "avsync": {"architecture": "avsync", "mel_frames": 32, **SMALL_SIGHT},
}
QUICK = ("resnet", "cnn10", "motion", "avslowfast")


def some(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A checkpoint with random weights and statistics that are not those of an untrained network; nothing is kept of it
    beyond the test.
    """
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def make(section, front_end=None, n_classes=4):
        torch.manual_seed(0)
        config = validate(model_section(), SECTIONS.get(section, section), "m")
        network = build_model(config, n_classes)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith(("running_var", ".std")):
                buffer.uniform_(0.5, 2)
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.5)  # scores that differ from clip to clip
        content = {
            "model": "m",
            "config": plain(config),
            "classes": [f"class {number}" for number in range(n_classes)],
            "front_end": {
                "audio": plain(AudioConfig(front_end or LogMelConfig(n_mels=32))),
                "video": plain(VideoConfig(height=40, width=40)),
            },
            "typical_rows": 100,
            "weights": network.state_dict(),
            "epoch": 3,
            "metrics": {},
        }
        save_checkpoint(tmp_path / "m.ckpt", content)
        return tmp_path / "m.ckpt"

    return make


def probabilities(logits):
    return logits.softmax(dim=1).detach().cpu().numpy()


@pytest.mark.parametrize("section", some(SECTIONS))
def test_onnxruntime_gives_the_scores_of_the_plain_network_for_any_batch(trained, section):
    model = load_model(trained(section))
    network = ENGINES["onnxruntime"].start(model, torch.device("cpu"))
    for n_views in (1, 2, 5):
        inputs = model.example(n_views, torch.device("cpu"))
        with torch.inference_mode():
            expected = probabilities(model.network(*inputs))
            found = probabilities(network(*inputs))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("section", some(SECTIONS))
def test_the_folded_network_gives_the_scores_of_the_plain_one(trained, section, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # ten bits on a GPU, which differ by more
    model = load_model(trained(section))
    inputs = model.example(3, pick_device())
    network = ENGINES["torch"].start(model, pick_device())
    with torch.inference_mode():
        np.testing.assert_allclose(
            probabilities(network(*inputs)), probabilities(model.network.to(pick_device())(*inputs)), atol=1e-4
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="the engine is for CPUs")
def test_eight_bits_stay_close_to_the_scores_of_the_plain_network(trained):
    model = load_model(trained("resnet"))
    calibration = [model.example(16, torch.device("cpu"))]
    network = ENGINES["onnxruntime-int8"].start(model, torch.device("cpu"), calibration)
    inputs = model.example(5, torch.device("cpu"))
    with torch.inference_mode():
        expected, found = probabilities(model.network(*inputs)), probabilities(network(*inputs))
    assert 0 < abs(found - expected).max() < 0.1
    kinds = {value.type for value in network.session.get_inputs()}
    assert kinds == {"tensor(float)"}
    with pytest.raises(ConfigError, match="engine onnxruntime-int8 needs clips to calibrate on"):
        ENGINES["onnxruntime-int8"].start(model, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(lacking_to_compile(pick_device()) is not None, reason="nothing here to compile with")
def test_the_compiled_network_gives_the_scores_of_the_plain_one(trained):
    model = load_model(trained("resnet"))
    network = ENGINES["torch-compiled"].start(model, pick_device())
    for n_views in (1, 3):
        inputs = model.example(n_views, pick_device())
        with torch.inference_mode():
            plain_scores = probabilities(model.network.to(pick_device())(*inputs))
            np.testing.assert_allclose(probabilities(network(*inputs)), plain_scores, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU torch.compile needs no C++ compiler")
def test_an_engine_that_cannot_run_says_what_is_missing(trained, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"torch-compiled can't run here: there is no C\+\+ compiler; install g\+\+"):
        ENGINES["torch-compiled"].start(load_model(trained("resnet")), torch.device("cpu"))


def test_onnxruntime_computes_in_the_precision_of_the_weights():
    assert ENGINES["onnxruntime"].precision("auto") == "32-true"
    assert ENGINES["onnxruntime-int8"].precision("auto") == "int8"
    assert ENGINES["torch"].precision("bf16-mixed") == "bf16-mixed"
    with pytest.raises(ConfigError, match="test.precision: expected auto or 32-true with engine onnxruntime"):
        ENGINES["onnxruntime"].precision("bf16-mixed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares with scores of the CPU")
@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-int8"])
def test_stage_test_runs_another_engine_and_says_so(project, engine):
    metrics = project / "results/metrics/test/audio.json"
    projects.run(project, "test", "audio")
    plain_metrics = json.loads(metrics.read_text())
    with np.load(project / "results/scores/audio/test.npz") as file:
        plain_scores = file["scores"]
    projects.write_params(project, projects.SMALL, {"test": {"engine": engine}})
    projects.run(project, "test", "audio")
    found = json.loads(metrics.read_text())
    with np.load(project / "results/scores/audio/test.npz") as file:
        np.testing.assert_allclose(file["scores"], plain_scores, atol=1e-4 if engine == "onnxruntime" else 0.2)
    assert (plain_metrics["engine"], found["engine"]) == ("torch", engine)
    assert found["precision"] == ("32-true" if engine == "onnxruntime" else "int8")


@pytest.mark.parametrize("error", [EncodeError("Failed to serialize proto"), ValueError("exceeds 2 GB")])
def test_a_network_that_is_too_large_for_a_file_is_refused_with_a_word(trained, monkeypatch, error):
    class Large:
        def SerializeToString(self):
            raise error

    monkeypatch.setattr("avrecog.inference.engines.to_onnx", lambda *_: Large())
    with pytest.raises(ConfigError, match="can't be an ONNX file, which holds 2 GB at most: .*(serialize|exceeds)"):
        ENGINES["onnxruntime"].start(load_model(trained("resnet")), torch.device("cpu"))


# An exported file


def exported(path, tmp_path):
    said = export_model(path, tmp_path / "m.onnx")
    return onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"]), said


def own_scores(path, waveform):
    """Of our own front end, store and views."""
    model = load_model(path)
    front_end = model.front_end.audio.logmel
    log_mel = LogMel(front_end)(torch.from_numpy(waveform)).numpy().astype(np.float16)
    rows = {"audio": MemoryStore({"clip": log_mel})}
    dataset = make_dataset(model.input, StoredClips(model.front_end, rows, ["clip"], np.zeros(1, np.int64)))
    return predict_scores(
        model.network, dataset, n_views=None, batch_size=64, device=torch.device("cpu"), average="prob"
    )[0]


@pytest.mark.parametrize("front_end", [LogMelConfig(n_mels=32), *FRONT_ENDS.values()], ids=["ours", *FRONT_ENDS])
def test_a_waveform_goes_in_and_our_scores_and_names_come_out(trained, tmp_path, front_end):
    path = trained("resnet", front_end)
    session, said = exported(path, tmp_path)
    assert "waveform (clips, samples) at 16000 Hz" in said
    assert "probabilities (clips, 4), label (clips,), classes (4,)" in said
    rng = np.random.default_rng(0)
    window = 128 * front_end.hop_length
    for seconds in (0.3, window / 16_000, 2.5, 5.03, 12.0):
        waveform = np.float32(0.3 * rng.standard_normal(int(16_000 * seconds)) * rng.random(int(16_000 * seconds)) ** 3)
        found, label, classes = session.run(None, {"waveform": waveform[None]})
        expected = own_scores(path, waveform)
        np.testing.assert_allclose(found[0], expected, atol=1e-4)
        assert label.tolist() == [f"class {expected.argmax()}"]
        assert classes.tolist() == [f"class {number}" for number in range(4)]


def test_an_exported_file_takes_several_clips_at_once_and_says_what_it_is(trained, tmp_path):
    session, _ = exported(trained("resnet"), tmp_path)
    waveforms = np.random.default_rng(1).uniform(-1, 1, (3, 40_000)).astype(np.float32)
    together, labels, _ = session.run(None, {"waveform": waveforms})
    alone = [session.run(None, {"waveform": waveform[None]})[0][0] for waveform in waveforms]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(labels) == 3
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == [f"class {number}" for number in range(4)]
    assert json.loads(facts["front_end"])["audio"]["logmel"]["n_mels"] == 32
    assert (facts["model"], facts["architecture"], facts["epoch"]) == ("m", "ResNet10 (width 8)", "3")


@pytest.mark.parametrize("section", some(["motion", "slowfast", "avslowfast"]))
def test_the_others_take_a_view(trained, tmp_path, section):
    path = trained(section)
    session, _ = exported(path, tmp_path)
    model = load_model(path)
    inputs = model.example(3, torch.device("cpu"))
    names = [value.name for value in session.get_inputs()]
    assert names == ["frames", "log_mel", "present"][: len(names)]
    found, labels, _ = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    with torch.inference_mode():
        expected = probabilities(model.network(*inputs))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert labels.tolist() == [f"class {index}" for index in expected.argmax(axis=1)]


def test_what_cannot_be_exported_is_said(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"m.bin: expected a name that ends with .onnx"):
        export_model(trained("resnet"), tmp_path / "m.bin")
    with pytest.raises(ConfigError, match="compares sound and picture and names no classes"):
        export_model(trained("avsync"), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match=r"sampling mmaction2-1.x counts video frames"):
        export_model(small_checkpoint(tmp_path, sampling="mmaction2-1.x"), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "onnxruntime-int8"])
def test_predict_refuses_a_model_that_compares_and_names_no_classes(trained, tmp_path, engine):
    path = trained("avsync")
    file = clips.make_tone(tmp_path / "a.wav", duration_s=3.0).path
    with pytest.raises(
        ConfigError, match=r"m\.ckpt: this model compares sound and picture and names no classes; `avrecog sync`"
    ):
        list(predict_files([file], [path], None, 2, engine=engine))


def test_one_that_was_exported_before_is_refused_too(trained, tmp_path):
    path = trained("avsync")
    ENGINES["onnxruntime"].start(load_model(path), torch.device("cpu"))
    assert list((tmp_path / ".avrecog/exports").glob("*.onnx"))
    with pytest.raises(ConfigError, match=r"this model compares sound and picture and names no classes"):
        list(predict_files([tmp_path / "a.wav"], [path], None, 2, engine="onnxruntime"))


def test_predict_says_the_same_with_either_engine(trained, tmp_path):
    path = trained("resnet")
    file = clips.make_tone(tmp_path / "a.wav", duration_s=3.0).path
    (plain_text,) = predict_files([file], [path], None, 4)
    (onnx_text,) = predict_files([file], [path], None, 4, engine="onnxruntime")
    assert onnx_text == plain_text
    assert "class 3" in plain_text
