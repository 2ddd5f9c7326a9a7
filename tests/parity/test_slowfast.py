"""SlowFast and AVSlowFast against numbers of the reference's own classes (see shared/parity/slowfast/README.md)."""

import functools
import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from avrecog.interop.pyslowfast_names import reference_name
from avrecog.models.avslowfast import AVSlowFast, synchronisation_loss, usable_pairs
from avrecog.models.slowfast import SlowFast, slow_indices

MODELS = {
    "sf4x16": lambda: SlowFast(400),
    "sf8x8": lambda: SlowFast(400, alpha=4, lateral_kernel=7),
    "sf16x8r101": lambda: SlowFast(400, depth=101, frames=64, alpha=4),
    "av4x16": lambda: AVSlowFast(400, synchronise=True, lateral_after=("res3", "res4")),
    "av4x16fs": lambda: AVSlowFast(400, synchronise=True),
}


def fill(name: str, j: int, shape: torch.Size) -> torch.Tensor:
    """The parameter that the reference's README prescribes for its key number j."""
    s = np.sin(1.3 * np.arange(shape.numel()) + 0.7 * j)
    if name.endswith(".running_var"):
        s = 1 + 0.5 * s**2
    elif name.endswith((".running_mean", ".bias")):
        s = 0.1 * s
    elif len(shape) == 1:
        s = 1 + 0.2 * s
    else:
        s = s * np.sqrt(2 / (shape.numel() / shape[0]))
    return torch.from_numpy(s).reshape(shape)


def double(model: torch.nn.Module, folder: Path, stem: str) -> torch.nn.Module:
    """The model in float64 and evaluation, with the reference's parameters and inputs taken as they are."""
    rows = [line.split("\t") for line in (folder / f"{stem}_keys.tsv").read_text().splitlines()]
    keys = {key: (int(j), [int(n) for n in shape.split("x")]) for j, key, shape in rows if j.isdigit()}
    model = model.to_empty(device="cpu").double().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "standardise" in key:
                value.fill_(float(key.endswith("std")))
            elif "num_batches" not in key:
                name = reference_name(key, stem.startswith("av"))
                j, shape = keys.pop(name)
                assert value.numel() == np.prod(shape), name
                value.copy_(fill(name, j, value.shape))
    assert not keys  # every one has its place
    return model


class Golden:
    """One of the reference's models: ours with its parameters, its inputs, its numbers."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.audiovisual = stem.startswith("av")
        self.facts = json.loads((folder / f"{stem}.json").read_text())
        self.arrays = np.load(folder / f"{stem}.npz")
        with torch.device("meta"):
            model = MODELS[stem]()
        self.n_parameters = sum(p.numel() for p in model.parameters())
        model = double(model, folder, stem)
        self.models = {torch.float64: model, torch.float32: deepcopy(model).float()}
        frames, crop = self.facts["frames"], self.facts["crop"]
        k = np.arange(2 * 3 * frames * crop * crop)
        video = torch.from_numpy(np.sin(0.011 * k) + 0.5 * np.cos(0.37 * k))
        self.frames = video.reshape(2, 3, frames, crop, crop).transpose(1, 2)
        k = np.arange(2 * 2 * 128 * 80)
        self.log_mels = torch.from_numpy(np.sin(0.017 * k) + 0.5 * np.cos(0.29 * k)).reshape(2, 2, 1, 128, 80)

    def difference(self, logits: torch.Tensor, array: str) -> float:
        return float(np.abs(logits.double().numpy() - self.arrays[array]).max())


@pytest.fixture(scope="module")
def golden(shared):
    """Makes each model once."""
    return functools.cache(lambda stem: Golden(shared / "parity/slowfast", stem))


dtypes = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=["double", "single"]
)


@dtypes
@pytest.mark.parametrize("stem", MODELS)
def test_logits_and_probabilities_are_the_references(golden, stem, dtype, tolerance):
    reference = golden(stem)
    inputs = [reference.frames.to(dtype), reference.log_mels[:, 0].to(dtype)][: 1 + reference.audiovisual]
    with torch.inference_mode():
        logits = reference.models[dtype](*inputs)
    assert reference.difference(logits, "logits") < tolerance
    assert reference.difference(logits.softmax(dim=1), "probs") < tolerance


@pytest.mark.parametrize("stem", MODELS)
def test_parameters_and_slow_frames_are_the_references(golden, stem):
    facts = golden(stem).facts
    assert golden(stem).n_parameters == facts["n_params"]
    assert slow_indices(facts["frames"], facts["alpha"]) == facts["slow_idx"]


@dtypes
@pytest.mark.parametrize("stem", ["av4x16", "av4x16fs"])
@pytest.mark.parametrize("path", ["fused", "dropped"])
def test_drop_pathway_and_synchronisation_are_the_references(golden, stem, path, dtype, tolerance):
    reference = golden(stem)
    model = reference.models[dtype]
    model.drop_pathway = {"fused": 0.0, "dropped": 1.0}[path]
    model.training = True  # of the coin only: batch norm and dropout stay in evaluation
    log_mel, misaligned = reference.log_mels.to(dtype).unbind(dim=1)
    try:
        with torch.inference_mode():
            logits, levels = model.forward_pairs(reference.frames.to(dtype), log_mel, misaligned)
            usable = usable_pairs(log_mel, misaligned)
            losses = synchronisation_loss(levels, usable)
    finally:
        model.training = False
    assert reference.difference(logits, f"logits_{path}") < tolerance
    assert usable.tolist() == reference.facts["avs_mask"]
    expected = reference.facts[f"avs_loss_{path}"]
    assert [float(losses[stage]) for stage in ("res3", "res4", "res5")] == pytest.approx(
        [expected[f"s{n}_avs"] for n in (3, 4, 5)], abs=min(tolerance, 1e-5)
    )


TWO_PLACES = {"lateral_after": ("res3", "res4")}
GMACS = {  # measured on the reference's classes, of one view of 256 x 256
    "4x16 R50": (36.1, SlowFast, {}),
    "8x8 R50": (65.7, SlowFast, {"alpha": 4, "lateral_kernel": 7}),
    "8x8 R101": (106.9, SlowFast, {"depth": 101, "alpha": 4, "lateral_kernel": 7}),
    "8x8 R101, all of res4 long": (125.9, SlowFast, {"depth": 101, "alpha": 4, "long_res4": 23}),
    "16x8 R101": (213.0, SlowFast, {"depth": 101, "frames": 64, "alpha": 4}),
    "AV 4x16 R50": (39.8, AVSlowFast, TWO_PLACES),
    "AV 4x16 R50, Fast to Slow at four places": (40.3, AVSlowFast, {}),
    "AV 8x8 R50": (69.0, AVSlowFast, {"alpha": 4, "lateral_kernel": 7, **TWO_PLACES}),
}


@pytest.mark.parametrize("name", GMACS)
def test_the_work_of_a_view_is_the_references_within_one_percent(name):
    expected, kind, config = GMACS[name]
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = kind(400, **config).eval()
        inputs = [torch.empty(1, config.get("frames", 32), 3, 256, 256)]
        if kind is AVSlowFast:
            inputs.append(torch.empty(1, 1, 128, 80))
        model(*inputs)
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, rel=0.01)
