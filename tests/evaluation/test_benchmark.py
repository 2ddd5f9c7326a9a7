import itertools
import json

import pytest
import torch

import projects
from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.evaluation import benchmark
from avrecog.evaluation.benchmark import count_macs, time_passes
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.inference.settings import BenchmarkConfig
from avrecog.inference.trained_model import TrainedModel
from avrecog.models.registry import build_model, model_section
from avrecog.runtime.device import lacking_to_compile, pick_device


def test_every_timed_pass_counts_once_and_warm_up_not_at_all(monkeypatch):
    clock = itertools.count()  # a second for each look, and for each pass
    calls = []

    def work():
        calls.append(next(clock))

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    times = time_passes(work, warmup=2, repeats=5, device=torch.device("cpu"))
    assert len(calls) == 7
    assert times == [2] * 5


def test_macs_are_half_of_what_torch_counts_and_equal_the_references_figure():
    section = validate(model_section(), {"architecture": "audio", "depth": 18, "width": 64}, "models.audio")
    front_end = FrontEnd(AudioConfig(logmel=LogMelConfig()), None)
    model = TrainedModel("audio", build_model(section, 400).eval(), section, front_end, [], 600, 1)
    assert count_macs(model) / 1e9 == pytest.approx(0.371, abs=0.001)  # MMAction2's ResNet-18 on 128 x 80


def test_macs_are_counted_of_networks_whose_own_numbers_go_through_their_layers():
    section = validate(model_section(), {"architecture": "tsn", "backbone": "test_vit3", "n_segments": 1}, "m")
    front_end = FrontEnd(None, VideoConfig(height=64, width=64))
    model = TrainedModel("rgb", build_model(section, 3).eval(), section, front_end, [], 10, 1)
    assert count_macs(model) > 10**6
    assert all(parameter.requires_grad for parameter in model.network.parameters())


def test_a_report_that_is_not_measured_is_refused():
    with pytest.raises(ConfigError, match="report: expected one of variants"):
        validate(BenchmarkConfig, {"variants": ["eager"], "report": "folded"}, "benchmark")


def test_the_views_of_a_clip_are_those_of_the_test():
    audio = validate(model_section(), {"architecture": "audio", "mel_frames": 100}, "m")
    assert audio.input().n_views(250, None) == 3
    assert audio.input().n_views(250, 5) == 5
    assert audio.input().n_views(80, 5) == 1
    rgb = validate(model_section(), {"architecture": "tsn", "n_segments": 3}, "m")
    assert rgb.input().n_views(20, None) == 7
    assert rgb.input().n_views(20, 3) == 3


@pytest.mark.slow
@pytest.mark.skipif(lacking_to_compile(pick_device()) is not None, reason="nothing here to compile with")
def test_the_compiled_variant_is_timed_too(project):
    projects.write_params(project, projects.SMALL, {"benchmark": {"variants": ["folded", "compiled"]}})
    projects.run(project, "benchmark", "audio")
    variants = json.loads((project / "results/metrics/benchmark/audio.json").read_text())["variants"]
    assert [row["variant"] for row in variants] == ["folded", "compiled"]
    assert all(0 < row["latency_ms"]["median"] <= row["latency_ms"]["p95"] for row in variants)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU torch.compile needs no C++ compiler")
def test_without_a_compiler_the_compiled_variant_is_left_out_with_a_word(project, monkeypatch, caplog, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    projects.write_params(project, projects.SMALL, {"benchmark": {"variants": ["folded", "compiled"]}})
    projects.run(project, "benchmark", "audio")
    assert "compiled: is left out: there is no C++ compiler; install g++" in caplog.text
    projects.write_params(project, projects.SMALL, {"benchmark": {"variants": ["compiled"], "report": "compiled"}})
    with pytest.raises(SystemExit):
        projects.run(project, "benchmark", "audio")
    assert "benchmark.report: `compiled` can't be timed: there is no C++ compiler" in capsys.readouterr().err
