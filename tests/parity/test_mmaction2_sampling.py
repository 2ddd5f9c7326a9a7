"""Sampling, crops and the whole test pipeline of sound against MMAction2's, both generations."""

import json

import numpy as np
import pytest
import torch

from avrecog.datasets.augment import AudioAugmentConfig
from avrecog.datasets.log_mel import AudioClips
from avrecog.datasets.mmaction2_sampling import (
    FIRST_FRAME,
    FrameSampling,
    clip_frames,
    mel_frames_of,
    starts_for_testing,
    starts_for_training,
)
from avrecog.datasets.sampling import segment_frames
from avrecog.features.settings import FRONT_ENDS
from avrecog.features.store import MemoryStore

RULES = {"mmaction2-0.x": "0x", "mmaction2-1.x": "1x"}


@pytest.fixture(scope="module", params=RULES)
def rule(request):
    return request.param


@pytest.fixture(scope="module")
def cases(shared, rule):
    """Each case with the whole array of frame numbers."""
    folder = shared / "parity/mmaction2"
    listed = json.loads((folder / f"sampling_{RULES[rule]}.json").read_text())
    arrays = np.load(folder / f"sampling_inds_{RULES[rule]}.npz")
    assert len(listed) == len(arrays.files) == 240
    return [(case, arrays[f"inds_{case['id']}"]) for case in listed]


def starts_of(rule, case):
    n_frames, clip_len, n_clips = case["total_frames"], case["clip_len"], case["num_clips"]
    assert (case["frame_interval"], case["start_index"]) == (1, FIRST_FRAME[rule])
    if case["test_mode"]:
        return starts_for_testing(rule, np.array([n_frames]), clip_len, n_clips)[0]
    generator = np.random.RandomState(case["seed"])
    return starts_for_training(n_frames, clip_len, n_clips, lambda stop, n: generator.randint(stop, size=n))


def test_every_case_has_the_references_frames(rule, cases):
    for case, expected in cases:
        frames = clip_frames(rule, starts_of(rule, case), case["clip_len"], case["total_frames"])
        np.testing.assert_array_equal(frames.flatten(), expected, err_msg=str(case["id"]))
        assert frames[:, 0].tolist() == case["first_inds"]
        assert frames[:, -1].tolist() == case["last_inds"]


def test_every_case_has_the_references_mel_frames(rule, cases):
    n_checked = 0
    for case, _ in cases:
        first, last = np.array(case["first_inds"]), np.array(case["last_inds"])
        for n_rows, expected in case.get("selector", {}).items():
            start, n = mel_frames_of(first, last, case["total_frames"], int(n_rows), 128)
            found = np.stack((np.where(n > 0, start + 1, 0), n), axis=1)
            assert found.tolist() == expected, (case["id"], n_rows)
            n_checked += 1
    assert n_checked > 500


def test_the_middles_of_segments_are_the_references_frames(rule, cases):
    """Our own rule for frames, with as many segments as the reference has clips, is its test rule for RGB.

    Where the middle falls exactly between two frames, floating point makes either of one of the other.
    """
    chosen = [case for case, _ in cases if case["clip_len"] == 1 and case["test_mode"]]
    assert len(chosen) > 10
    for case in chosen:
        n, n_frames = case["num_clips"], case["total_frames"]
        ours = segment_frames(np.array([n_frames]), n, np.full((1, n), 0.5))[0] + case["start_index"]
        between = (2 * np.arange(n) + 1) * n_frames % (2 * n) == 0
        difference = np.abs(ours - case["first_inds"])
        assert not difference[~between].any(), case["id"]
        assert difference.max() <= 1


@pytest.mark.parametrize("n_frames", [60, 64, 100])
def test_a_test_view_is_what_the_references_pipeline_gives(shared, rule, n_frames):
    folder = shared / "parity/mmaction2"
    golden = np.load(folder / f"pipeline_w0_{RULES[rule]}.npz")
    assert {name.removeprefix("pipe_total") for name in golden.files} == {"60", "64", "100"}
    log_mel = np.load(folder / "logmel.npz")["logmel_w0"]
    sampling = FrameSampling(rule, np.array([n_frames]))
    clips = AudioClips(
        MemoryStore({"w0": log_mel}),
        ["w0"],
        np.zeros(1, np.int64),
        mel_frames=128,
        front_end=FRONT_ENDS["mmaction2"],
        augment=AudioAugmentConfig(),
        sampling=sampling,
    )
    (view,) = clips.view_batch(clips.views(1), torch.device("cpu"))
    np.testing.assert_array_equal(view, golden[f"pipe_total{n_frames}"])
