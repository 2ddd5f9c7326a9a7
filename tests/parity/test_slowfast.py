"""SlowFast and AVSlowFast against numbers of the reference's own classes (see shared/parity/slowfast/README.md)."""

import json

import numpy as np
import pytest
import torch

from avrecog.models.slowfast import AVSlowFast, SlowFast, slow_indices, synchronisation_loss, usable_pairs
from avrecog.models.slowfast_weights import reference_name

DOUBLE, SINGLE = 1e-6, 1e-4
MODELS = {
    "sf4x16": lambda: SlowFast(400),
    "sf8x8": lambda: SlowFast(400, alpha=4, lateral_kernel=7),
    "sf16x8r101": lambda: SlowFast(400, depth=101, alpha=4),
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


class Golden:
    """One of the reference's models: ours with its parameters, its inputs, its numbers."""

    def __init__(self, shared, stem: str, dtype: torch.dtype) -> None:
        folder = shared / "parity/slowfast"
        self.facts = json.loads((folder / f"{stem}.json").read_text())
        self.arrays = np.load(folder / f"{stem}.npz")
        rows = [line.split("\t") for line in (folder / f"{stem}_keys.tsv").read_text().splitlines()]
        numbers = {key: int(j) for j, key, _ in rows if j.isdigit()}
        sizes = {key: np.prod([int(n) for n in shape.split("x")]) for j, key, shape in rows if j.isdigit()}
        self.model = MODELS[stem]().to(dtype).eval()
        state = self.model.state_dict()
        for key, value in state.items():
            if "num_batches" in key or "standardise" in key:
                continue
            name = reference_name(key, stem.startswith("av"))
            assert value.numel() == sizes[name], name
            state[key] = fill(name, numbers.pop(name), value.shape)
        assert not numbers  # every one has its place
        for part in (self.model, self.model.visual):
            if hasattr(part, "standardise"):  # the reference's inputs are taken as they are
                part.standardise.mean.zero_()
                part.standardise.std.fill_(1.0)
        with torch.no_grad():
            for key, value in {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}.items():
                if "num_batches" not in key and "standardise" not in key:
                    value.copy_(state[key])
        frames, crop = self.facts["frames"], self.facts["crop"]
        k = np.arange(2 * 3 * frames * crop * crop)
        video = torch.from_numpy(np.sin(0.011 * k) + 0.5 * np.cos(0.37 * k))
        self.frames = video.reshape(2, 3, frames, crop, crop).transpose(1, 2).to(dtype)
        k = np.arange(2 * 2 * 128 * 80)
        audio = torch.from_numpy(np.sin(0.017 * k) + 0.5 * np.cos(0.29 * k)).reshape(2, 2, 1, 128, 80).to(dtype)
        self.log_mel, self.misaligned = audio[:, 0], audio[:, 1]

    def difference(self, logits: torch.Tensor, array: str = "logits") -> float:
        return float(np.abs(logits.double().numpy() - self.arrays[array]).max())


@pytest.fixture(params=[torch.float64, torch.float32], ids=["double", "single"])
def dtype(request):
    return request.param


def tolerance(dtype: torch.dtype) -> float:
    return DOUBLE if dtype == torch.float64 else SINGLE


@pytest.mark.parametrize("stem", MODELS)
def test_logits_and_probabilities_are_the_references(shared, stem, dtype):
    golden = Golden(shared, stem, dtype)
    inputs = [golden.frames, golden.log_mel][: 1 + stem.startswith("av")]
    with torch.inference_mode():
        logits = golden.model(*inputs)
    assert golden.difference(logits) < tolerance(dtype)
    assert golden.difference(logits.softmax(dim=1), "probs") < tolerance(dtype)


@pytest.mark.parametrize("stem", MODELS)
def test_parameters_and_slow_frames_are_the_references(shared, stem):
    facts = json.loads((shared / f"parity/slowfast/{stem}.json").read_text())
    assert sum(p.numel() for p in MODELS[stem]().parameters()) == facts["n_params"]
    assert slow_indices(facts["frames"], facts["alpha"]) == facts["slow_idx"]


@pytest.mark.parametrize("stem", ["av4x16", "av4x16fs"])
@pytest.mark.parametrize("path", ["fused", "dropped"])
def test_drop_pathway_and_synchronisation_are_the_references(shared, stem, path, dtype):
    golden = Golden(shared, stem, dtype)
    golden.model.drop_pathway = {"fused": 0.0, "dropped": 1.0}[path]
    golden.model.training = True  # of the coin only: batch norm and dropout stay in evaluation
    with torch.inference_mode():
        logits, levels = golden.model.forward_pairs(golden.frames, golden.log_mel, golden.misaligned)
        usable = usable_pairs(golden.log_mel, golden.misaligned)
        losses = synchronisation_loss(levels, usable)
    assert golden.difference(logits, f"logits_{path}") < tolerance(dtype)
    assert usable.tolist() == golden.facts["avs_mask"]
    expected = golden.facts[f"avs_loss_{path}"]
    assert [float(losses[stage]) for stage in ("res3", "res4", "res5")] == pytest.approx(
        [expected[f"s{n}_avs"] for n in (3, 4, 5)], abs=1e-6 if dtype == torch.float64 else 1e-5
    )
