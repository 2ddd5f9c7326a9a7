from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.models.registry import build_model, model_section
from avrecog.training.batches import check_single_clip, cut


@given(n_clips=st.integers(1, 200), batch_size=st.integers(1, 40))
def test_every_clip_is_in_one_batch_and_batches_differ_by_one_clip_at_most(n_clips, batch_size):
    order = np.random.default_rng(0).permutation(n_clips)
    batches = cut(order, batch_size)
    assert np.concatenate(batches).tolist() == order.tolist()
    sizes = Counter(map(len, batches))
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)


@given(n_clips=st.integers(2, 200), batch_size=st.integers(2, 40))
def test_no_batch_is_a_single_clip(n_clips, batch_size):
    assert min(map(len, cut(np.arange(n_clips), batch_size))) > 1


@given(n_clips=st.integers(1, 200), batch_size=st.integers(1, 40))
def test_batches_are_as_many_as_it_takes_unless_one_would_be_a_single_clip(n_clips, batch_size):
    fewest = -(-n_clips // batch_size)
    if batch_size == 1 or n_clips // fewest > 1:
        assert len(cut(np.arange(n_clips), batch_size)) == fewest


@pytest.mark.parametrize(("n_clips", "sizes"), [(1, [1]), (2, [2]), (3, [3]), (5, [3, 2]), (6, [2, 2, 2])])
def test_an_odd_clip_joins_a_batch_of_two(n_clips, sizes):
    assert [len(batch) for batch in cut(np.arange(n_clips), 2)] == sizes


def tsn(**changes):
    torch.manual_seed(0)
    section = {"architecture": "tsn", "backbone": "skresnet18", "n_segments": 1, **changes}
    return build_model(validate(model_section(), section, "models.rgb"), 3)


def test_a_batch_norm_behind_a_global_pooling_can_not_learn_from_one_clip():
    with pytest.raises(
        ConfigError, match=r"batch norm \S+ would .* 1 x \d+ x 1 x 1\), .* raise train\.batch_size to 2"
    ):
        check_single_clip(tsn(), (torch.rand(1, 1, 3, 64, 64),), 10)


def test_a_single_clip_of_two_segments_is_enough_for_it_and_the_model_stays_as_it_is():
    model = tsn().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_single_clip(model, (torch.rand(1, 2, 3, 64, 64),), 10)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_data_set_of_one_clip_is_told_apart_from_a_batch_size_of_one():
    with pytest.raises(ConfigError, match="there is one clip to train on: add some, or raise the model's input"):
        check_single_clip(tsn(), (torch.rand(1, 1, 3, 64, 64),), 1)
