"""Checkpoints of PySlowFast and Caffe2; the parity tests compare the names with the reference's own."""

import pickle
import re
import struct

import numpy as np
import pytest
import torch

from avrecog.commands.convert import convert_checkpoint
from avrecog.errors import CheckpointError
from avrecog.inference.trained_model import load_model
from avrecog.interop.checkpoints import load_mmaction2, load_slowfast, read_external_checkpoint
from avrecog.interop.pyslowfast_names import reference_name
from avrecog.models.avslowfast import AVSlowFast
from avrecog.models.checkpoint import load_checkpoint, transfer_weights
from avrecog.models.slowfast import SlowFast
from checkpoint import small_checkpoint


def theirs(model):
    """The model's tensors under PySlowFast's names."""
    audiovisual = isinstance(model, AVSlowFast)
    state = {k: v for k, v in model.state_dict().items() if "standardise" not in k}
    return {reference_name(key, audiovisual): value for key, value in state.items()}


def made(kind=SlowFast, **config):
    torch.manual_seed(0)
    model = kind(5, **{"depth": 50, "width": 8, **config})
    for module in model.modules():  # statistics other than 0 and 1, blocks that do something
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def frames_and_log_mel(model, frames):
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.rand(2, frames, 3, 16, 16, generator=generator)]
    if isinstance(model, AVSlowFast):
        inputs.append(torch.rand(2, 1, 128, 16, generator=generator))
    return inputs


def agree(ours, others, frames):
    inputs = frames_and_log_mel(ours, frames)
    with torch.inference_mode():
        torch.testing.assert_close(ours(*inputs), others(*inputs), rtol=0, atol=0)


CASES = {
    "4x16": (SlowFast, {}, 32),
    "8x8": (SlowFast, {"alpha": 4, "lateral_kernel": 7}, 32),
    "16x8 R101": (SlowFast, {"depth": 101, "frames": 64, "alpha": 4}, 64),
    "16x8 R101, all of res4 long": (SlowFast, {"depth": 101, "frames": 64, "alpha": 4, "long_res4": 23}, 64),
    "audiovisual": (AVSlowFast, {"synchronise": True}, 32),
    "audiovisual, Fast to Slow at two places": (AVSlowFast, {"lateral_after": ("res3", "res4")}, 32),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_is_recognised_and_gives_its_logits(tmp_path, case):
    kind, config, frames = CASES[case]
    model = made(kind, **config)
    torch.save({"epoch": 3, "model_state": theirs(model), "optimizer_state": {}}, tmp_path / "theirs.pyth")
    loaded = load_slowfast(str(tmp_path / "theirs.pyth"))
    assert isinstance(loaded, kind)
    assert not any(part.training for part in loaded.modules())
    agree(model, loaded, frames)


def text(value):
    """Python 2's pickled text, by opcode SHORT_BINSTRING or BINSTRING."""
    raw = value if isinstance(value, bytes) else value.encode()
    return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw


def whole(value):
    return b"J" + struct.pack("<i", value)


def caffe2_file(blobs):
    """As Python 2 and numpy 1 pickled a Caffe2 network with protocol 2."""
    body = b"\x80\x02}(" + text("blobs") + b"}("
    for name, array in blobs.items():
        dtype = (
            b"cnumpy\ndtype\n(" + text("f4") + b"K\x00K\x01tR(K\x03" + text("<") + b"NNN" + whole(-1) * 2 + b"K\x00tb"
        )
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
        shape = b"(" + b"".join(whole(n) for n in array.shape) + b"t"
        body += text(name) + empty + b"(K\x01" + shape + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    return body + b"uu."


def caffe2_name(name):
    """PySlowFast's name -> Caffe2's, for a ResNet-50."""
    ends = {"weight": "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    *path, last = name.split(".")
    end = ends[last]
    if path[-1].endswith("bn") and last == "weight":
        end = "s"
    if path == ["head", "projection"]:
        return f"pred_{end}"
    if path[0].endswith("_fuse"):
        last_block = {"s1_fuse": "pool1", "s2_fuse": "res2_2_branch2c_bn", "s3_fuse": "res3_3_branch2c_bn"}
        stem = f"t_{last_block.get(path[0], 'res4_5_branch2c_bn')}_subsample"
        return f"{stem}_bn_{end}" if path[1] == "bn" else f"{stem}_{end}"
    prefix = "t_" if "pathway1" in path[1] else ""
    if path[1].endswith("stem"):
        return f"{prefix}res_conv1_bn_{end}" if path[2] == "bn" else f"{prefix}conv1_{end}"
    block = f"{prefix}res{path[0][1]}_{path[1].split('res')[1]}"
    if path[2].startswith("branch1"):
        return f"{block}_{path[2]}_{end}"
    return f"{block}_branch2{path[3]}_{end}"


def test_a_caffe2_file_gives_the_same_network_and_what_is_no_weight_is_named(tmp_path):
    model = made()
    blobs = {caffe2_name(k): v.numpy() for k, v in theirs(model).items() if "num_batches" not in k}
    assert {"conv1_w", "t_res4_5_branch2c_bn_subsample_bn_riv", "res3_0_branch1_bn_s", "t_res5_2_branch2b_w"} <= set(
        blobs
    )
    blobs["pred_w_momentum"] = blobs["lr"] = np.zeros(1, np.float32)
    (tmp_path / "theirs.pkl").write_bytes(caffe2_file(blobs))
    agree(model, load_slowfast(tmp_path / "theirs.pkl"), 32)
    assert read_external_checkpoint(tmp_path / "theirs.pkl").unused == ["pred_w_momentum", "lr"]


def test_a_caffe2_file_that_asks_for_more_is_refused_by_name(tmp_path):
    (tmp_path / "theirs.pkl").write_bytes(b"\x80\x02cos\nsystem\n(U\x04truetR.")
    with pytest.raises(CheckpointError, match=r"os\.system"):
        load_slowfast(tmp_path / "theirs.pkl")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "expected a checkpoint, or a Caffe2 file with its blobs"),
        ({"conv1_w": np.zeros((8, 3, 1, 7, 7), np.float64)}, "expected numbers in float32 as conv1_w"),
    ],
)
def test_another_pickle_is_refused(tmp_path, content, expected):
    blobs = {"blobs": content} if content else {"others": 1}
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(blobs, protocol=2))
    with pytest.raises(CheckpointError, match=expected):
        load_slowfast(tmp_path / "theirs.pkl")


def test_the_files_settings_and_then_the_callers_say_how_many_frames(tmp_path):
    cfg = "DATA:\n  NUM_FRAMES: 64\nSLOWFAST:\n  ALPHA: 4\n"
    torch.save({"model_state": theirs(made()), "cfg": cfg}, tmp_path / "theirs.pyth")

    def found(**told):
        config = read_external_checkpoint(tmp_path / "theirs.pyth", **told).recognised.config
        return config.frames, config.alpha

    assert found() == (64, 4)
    assert found(frames=16, alpha=2) == (16, 2)
    with pytest.raises(CheckpointError, match="frames: expected a multiple of alpha"):
        found(frames=10)


def test_slowfast_converts_and_begins_an_audiovisual_network_whose_new_parts_are_named(tmp_path):
    model = made()
    torch.save({"model_state": theirs(model)}, tmp_path / "theirs.pyth")
    said = convert_checkpoint(tmp_path / "theirs.pyth", tmp_path / "ours.ckpt", frames=16, alpha=4)
    assert "it sees 16 frames at 15 a second, Slow every 4th" in said
    converted = load_model(tmp_path / "ours.ckpt", "slowfast")
    assert (converted.config.frames, converted.config.alpha, converted.config.n_crops) == (16, 4, 3)
    weights = load_checkpoint(tmp_path / "ours.ckpt")["weights"]
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    audiovisual = AVSlowFast(5, depth=50, width=8, frames=16, alpha=4)
    fresh = transfer_weights(audiovisual, weights, "ours.ckpt")
    assert {name.split(".")[0] for name in fresh} == {"audio", "audio_to_visual", "standardise", "fc"}
    assert all(torch.equal(weights[f"visual.{key}"], value) for key, value in audiovisual.visual.state_dict().items())


def test_what_is_no_slowfast_is_refused(tmp_path):
    convert_checkpoint(small_checkpoint(tmp_path, depth=18, width=4), tmp_path / "audio.pth")
    with pytest.raises(CheckpointError, match=r"is no SlowFast but ResNet18 \(width 4\); use load_mmaction2"):
        load_slowfast(tmp_path / "audio.pth")
    state = theirs(made())
    for pattern, expected in {
        r"s5\.pathway._res2\.": "no SlowFast that avrecog knows: stages of 3, 4, 6, 2 blocks",
        r"head\.projection\.weight": "expected head.projection.weight, of 2 axes",
        r"s2_fuse\.": "expected Fast to Slow after stem, res2, res3, res4, got stem, res3, res4",
        r"s2\.pathway1_res0\.branch1\.weight": "1 of its tensors don't fit",
    }.items():
        torch.save(
            {"model_state": {k: v for k, v in state.items() if not re.match(pattern, k)}}, tmp_path / "theirs.pyth"
        )
        with pytest.raises(CheckpointError, match=expected):
            load_slowfast(tmp_path / "theirs.pyth")
    torch.save(state, tmp_path / "theirs.pyth")
    assert isinstance(load_mmaction2(tmp_path / "theirs.pyth"), SlowFast)
