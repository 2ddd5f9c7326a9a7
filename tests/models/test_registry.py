"""What every model keeps to; a new architecture needs one line in CONFIGS, no new test."""

import numpy as np
import pytest
import torch

from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.models.audio_resnet import DEPTHS, AudioResNet
from avrecog.models.checkpoint import load_weights
from avrecog.models.folding import fold_batch_norms
from avrecog.models.registry import MODELS, build_model, model_section, read_section
from avrecog.models.resnet_audio import Block, ResNetAudio
from avrecog.pipeline import PipelineConfig
from avrecog.training.batches import check_single_clip

CONFIGS = {
    "audio": {"architecture": "audio", "depth": 10, "width": 8, "mel_frames": 48, "dropout": 0.0},
    "audio bottleneck": {"architecture": "audio", "depth": 50, "width": 8, "dropout": 0.0},
    "audio timm": {
        "architecture": "audio",
        "backbone": "resnet10t",
        "depth": None,
        "width": None,
        "dropout": 0.0,
    },
    "audio cnn10": {"architecture": "audio", "backbone": "cnn10", "depth": None, "width": 8, "dropout": 0.0},
    "audio resnetaudio": {
        "architecture": "audio",
        "backbone": "resnetaudio",
        "depth": 50,
        "width": 4,
        "dropout": 0.0,
    },
    "tsn": {"architecture": "tsn", "backbone": "resnet10t", "width": 8, "n_segments": 2, "dropout": 0.0},
    "tsn motion": {
        "architecture": "tsn",
        "backbone": "resnet10t",
        "width": 8,
        "n_segments": 2,
        "snippet": 3,
        "motion": True,
        "dropout": 0.0,
    },
    "slowfast": {"architecture": "slowfast", "depth": 14, "width": 8, "frames": 8, "alpha": 4, "dropout": 0.0},
    "avslowfast": {
        "architecture": "avslowfast",
        "depth": 14,
        "width": 8,
        "frames": 8,
        "alpha": 4,
        "mel_frames": 16,
        "dropout": 0.0,
        "drop_pathway": 0.0,
    },
    "avsync": {"architecture": "avsync", "depth": 14, "width": 8, "frames": 8, "alpha": 4, "mel_frames": 16},
}
SHAPES = {
    "audio": (1, 48, 32),
    "audio bottleneck": (1, 64, 32),
    "audio timm": (1, 48, 32),
    "audio cnn10": (1, 48, 32),
    "audio resnetaudio": (1, 24, 16),
    "tsn": (2, 3, 32, 32),
    "tsn motion": (2, 9, 32, 32),
    "slowfast": (8, 3, 32, 32),
}


def made(name, n_classes=5):
    torch.manual_seed(0)
    return build_model(validate(model_section(), CONFIGS[name], "models.m"), n_classes)


def batch(name, n):
    generator = torch.Generator().manual_seed(1)
    log_mel = (n, 1, 16, 24)
    shapes = {
        "avslowfast": [(n, *SHAPES["slowfast"]), log_mel, (n, 2)],
        "avsync": [(n, *SHAPES["slowfast"]), log_mel, log_mel],
    }.get(name) or [(n, *SHAPES[name])]
    return [torch.rand(shape, generator=generator) for shape in shapes]


@pytest.fixture(params=CONFIGS)
def name(request):
    return request.param


def test_every_architecture_is_tested():
    assert {config["architecture"] for config in CONFIGS.values()} == set(MODELS)


def test_a_batch_gives_one_logit_a_class(name):
    assert made(name).eval()(*batch(name, 3)).shape == (3, 2 if name == "avsync" else 5)


def test_a_batch_of_one_is_no_special_case(name):
    model = made(name).eval()
    both = batch(name, 2)
    with torch.no_grad():
        alone = model(*(values[:1] for values in both))
        torch.testing.assert_close(alone, model(*both)[:1], rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(name):
    model = made(name)
    out = model(*batch(name, 4))
    sum(part.square().sum() for part in (out if isinstance(out, tuple) else [out])).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [8, 32])  # of picture and sound
def test_a_batch_of_one_trains_unless_it_is_refused_before(name, size):
    def smaller(values):
        if values.ndim < 4 or name == "audio cnn10":
            return values
        return values[..., :size] if name.startswith("av") and values.ndim == 4 else values[..., :size, :size]

    model, one = made(name), tuple(smaller(values) for values in batch(name, 1))
    try:
        check_single_clip(model, one, 10)
    except ConfigError:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            model.train()(*one)
    else:
        model.train()(*one)


def test_evaluation_is_deterministic(name):
    model = made(name).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(name, 2)), model(*batch(name, 2)), rtol=0, atol=0)


def test_weights_survive_saving_and_loading(name):
    model, other = made(name).eval(), build_model(validate(model_section(), CONFIGS[name], "m"), 5).eval()
    load_weights(other, model.state_dict(), "here")
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(name, 2)), other(*batch(name, 2)), rtol=0, atol=0)


def test_folding_the_batch_norms_changes_no_score(name):
    model = made(name)
    model.train()
    model(*batch(name, 4))  # statistics other than 0 and 1
    model.eval()
    fused = fold_batch_norms(model, batch(name, 2))
    after_a_sum = {
        "audio resnetaudio": ["stem.bn"],
        "avslowfast": ["audio.stem.bn"],
        "avsync": ["audio.stem.bn"],
    }  # of two convolutions
    left = [key for key, part in fused.named_modules() if "BatchNorm" in type(part).__name__]
    assert left == after_a_sum.get(name, [])
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(name, 2)), fused(*batch(name, 2)), rtol=1e-4, atol=1e-5)


def test_the_reference_row_has_the_reference_number_of_parameters():
    model = AudioResNet(18, 400)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_375_440


def test_resnet50_has_the_reference_number_of_parameters():
    assert sum(parameter.numel() for parameter in AudioResNet(50, 400).parameters()) == 24_321_360


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_can_be_built(depth):
    assert AudioResNet(depth, 3, width=8).fc.out_features == 3


@pytest.mark.parametrize(("depth", "n_blocks"), [(50, 16), (101, 33), (152, 50)])
def test_every_depth_of_resnetaudio_has_its_blocks(depth, n_blocks):
    model = ResNetAudio(depth, 3, width=2)
    assert sum(isinstance(part, Block) for part in model.modules()) == n_blocks


def test_resnetaudio_has_the_reference_number_of_parameters_and_sizes():
    with torch.device("meta"):
        model = ResNetAudio(50, 400)
        assert sum(parameter.numel() for parameter in model.parameters()) == 6_315_728
        maps = {}
        for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
            model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: maps.update({name: out}))
        model.eval()(torch.rand(1, 1, 128, 80))
    assert [tuple(out.shape[1:]) for out in maps.values()] == [
        *((32, 128, 80), (128, 128, 80), (256, 64, 40), (512, 32, 20), (1024, 16, 10)),
    ]


def test_a_block_of_resnetaudio_begins_as_its_shortcut():
    block = ResNetAudio(50, 3, width=2).layer1[1].eval()
    x = torch.rand(1, 8, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x)


def test_the_consensus_of_equal_segments_is_what_one_segment_says():
    model = made("tsn").eval()
    one = batch("tsn", 1)[0][:, :1]
    with torch.no_grad():
        torch.testing.assert_close(model(one.repeat(1, 4, 1, 1, 1)), model(one), rtol=1e-4, atol=1e-5)


def test_motion_sees_no_difference_in_a_still_background():
    model = made("tsn motion").eval()
    (moving,) = batch("tsn motion", 1)
    background = torch.rand(1, 1, 3, 32, 32).repeat(1, 1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(moving), model(moving + background), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 20}, "depth: expected one of 10, 18, 34, 50, 101"),
        ({"width": None}, "and a width, got 10 and None"),
        ({"backbone": "resnet18"}, "depth: expected null, and width null, with backbone resnet18"),
        ({"init_from": "imagenet"}, "init_from: timm has no weights for this network"),
        ({"backbone": "cnn10"}, "depth: expected null, and a width, with backbone cnn10, got 10 and 8"),
        (
            {"backbone": "cnn10", "depth": None, "mel_frames": 31},
            "mel_frames: expected 32 at least",
        ),
        ({"backbone": "resnetaudio"}, "depth: expected one of 50, 101, 152, and a width, got 10 and 8"),
        ({"backbone": "resnetaudio", "depth": 50, "init_from": "imagenet"}, "timm has no weights for this network"),
        ({"architecture": "transformer"}, "architecture"),
    ],
)
def test_settings_without_effect_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(model_section(), {**CONFIGS["audio"], **change}, "models.audio")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion": True}, "motion: expected false with a snippet of 1"),
        ({"width": 12}, "width: expected a multiple of 8"),
        ({"backbone": "efficientnet_b0"}, "width: expected null"),
        ({"init_from": "imagenet"}, "width: expected null with init_from imagenet"),
    ],
)
def test_tsn_settings_without_effect_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(model_section(), {**CONFIGS["tsn"], **change}, "models.rgb")


def test_an_unknown_backbone_is_named():
    config = validate(model_section(), {"architecture": "tsn", "backbone": "resnet_of_nobody"}, "models.rgb")
    with pytest.raises(ConfigError, match="resnet_of_nobody"):
        build_model(config, 3)


def test_weights_that_cannot_be_downloaded_are_an_error_with_the_reason(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    config = validate(model_section(), {"architecture": "tsn", "init_from": "imagenet"}, "models.rgb")
    with pytest.raises(ConfigError, match="weights for resnet18 can't be downloaded: no network"):
        build_model(config, 3, pretrained=True)


def test_a_model_is_described_as_in_the_zoo():
    described = [validate(model_section(), config, "m").describe() for config in CONFIGS.values()]
    assert described[:6] == [
        *("ResNet10 (width 8)", "ResNet50 (width 8)", "resnet10t", "CNN10 (width 8)", "ResNetAudio50 (width 4)"),
        "resnet10t (width 8)",
    ]
    resnet_audio = {"architecture": "audio", "backbone": "resnetaudio", "depth": 50, "width": 32}
    assert validate(model_section(), resnet_audio, "m").describe() == "ResNetAudio50"
    assert validate(model_section(), {"architecture": "audio"}, "m").describe() == "ResNet18"


def test_a_model_named_like_the_fusion_is_refused():
    with pytest.raises(ConfigError, match="models: expected another name than fusion"):
        validate(PipelineConfig, {"models": ["audio", "fusion"]}, "pipeline")


def test_a_model_named_twice_in_the_pipeline_is_refused():
    with pytest.raises(ConfigError, match="models: expected each model once"):
        validate(PipelineConfig, {"models": ["audio", "audio"]}, "pipeline")


def test_tsn_standardises_by_imagenets_constants():
    model = made("tsn")
    np.testing.assert_allclose(model.standardise.mean.flatten(), [0.485, 0.456, 0.406], atol=1e-6)


def test_keys_that_an_older_checkpoint_has_and_that_meant_nothing_are_passed_over():
    former = {"dropout": 0.5, "drop_pathway": 0.8, "drop_scope": "fusion", "drop_per_clip": False, "sync_weight": 0.0}
    read = read_section({**CONFIGS["avsync"], **former}, "config")
    assert read == validate(model_section(), CONFIGS["avsync"], "models.m")
    with pytest.raises(ConfigError, match="dropout: unknown key"):
        validate(model_section(), {**CONFIGS["avsync"], **former}, "models.m")
    with pytest.raises(ConfigError, match="config.nonsense: unknown key"):
        read_section({**CONFIGS["avsync"], "nonsense": 1}, "config")
