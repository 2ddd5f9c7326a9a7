import pytest
import torch

from avrecog.errors import ConfigError
from avrecog.models.avslowfast import AVSlowFast, SyncLevel, synchronisation_loss, usable_pairs
from avrecog.models.slowfast import SlowFast, slow_indices

SMALL = {"depth": 14, "width": 8, "frames": 8, "alpha": 4, "mel_frames": 32}


def clips(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(n, 8, 3, 32, 48, generator=generator),
        torch.randn(n, 1, 32, 16, generator=generator),
        torch.randn(n, 1, 32, 16, generator=generator),
    )


def small(**changes) -> AVSlowFast:
    """A model that says something: blocks begin as their shortcuts, so their last scale is set to 1."""
    torch.manual_seed(0)
    model = AVSlowFast(5, **{**SMALL, "dropout": 0.0, **changes})
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.ones_(module.weight)
    return model.eval()


def training(model: AVSlowFast) -> AVSlowFast:
    """DropPathway as in training, with batch norm in evaluation."""
    model.training = True
    return model


@pytest.mark.parametrize(
    ("n_frames", "alpha", "expected"), [(32, 8, [0, 10, 20, 31]), (8, 4, [0, 7]), (4, 4, [0]), (3, 1, [0, 1, 2])]
)
def test_slow_sees_frames_from_the_first_to_the_last(n_frames, alpha, expected):
    assert slow_indices(n_frames, alpha) == expected


@pytest.mark.parametrize("depth", [14, 26, 50])
def test_slowfast_gives_logits_and_learns(depth):
    frames = clips(2)[0]
    model = SlowFast(5, depth=depth, width=8, frames=8, alpha=4)
    logits = model(frames)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_blocks_begin_as_their_shortcuts():
    model = SlowFast(5, depth=26, width=8, frames=8, alpha=4).eval()
    x = torch.rand(1, 32, 2, 8, 8)
    torch.testing.assert_close(model.visual.slow["res2"][1](x), x)


def test_every_part_of_avslowfast_learns_from_both_losses():
    frames, log_mel, misaligned = clips()
    model = AVSlowFast(5, **SMALL, drop_pathway=0.5, per_clip=True, synchronise=True)
    torch.manual_seed(1)
    logits, levels = model.train().forward_pairs(frames, log_mel, misaligned)
    assert logits.shape == (3, 5)
    losses = synchronisation_loss(levels, usable_pairs(log_mel, misaligned))
    assert list(losses) == ["res3", "res4", "res5"]
    (logits.square().sum() + sum(losses.values())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("scope", ["fusion", "pathway"])
def test_a_dropped_sound_is_not_heard_where_scope_says(scope):
    frames, log_mel, other = clips()
    model = training(small(drop_pathway=1.0, scope=scope))
    with torch.inference_mode():
        one, two = model(frames, log_mel), model(frames, other)
    assert torch.equal(one, two) == (scope == "pathway")
    model.eval()
    with torch.inference_mode():
        assert not torch.equal(model(frames, log_mel), model(frames, other))


def test_a_coin_falls_for_the_batch_or_for_each_clip():
    frames = torch.zeros(4000, 1)
    torch.manual_seed(0)
    model = training(small(drop_pathway=0.8))
    assert {model._drop_pathway_mask(9, frames).unique().numel() for _ in range(20)} == {1}
    assert sum(float(model._drop_pathway_mask(1, frames)) for _ in range(1000)) / 1000 == pytest.approx(0.2, abs=0.04)
    each = training(small(drop_pathway=0.8, per_clip=True))._drop_pathway_mask(4000, frames)
    assert float(each.mean()) == pytest.approx(0.2, abs=0.03)
    assert small(drop_pathway=0.8)._drop_pathway_mask(9, frames).tolist() == [[1.0]] * 9


def test_levels_after_a_sound_that_was_heard_do_not_count():
    model = training(small(drop_pathway=0.0, synchronise=True))
    with torch.inference_mode():
        _, levels = model.forward_pairs(*clips())
        assert [level.fair.tolist() for level in levels] == [[1.0] * 3, [0.0] * 3, [0.0] * 3]
        model.drop_pathway = 1.0
        _, levels = model.forward_pairs(*clips())
        assert [level.fair.tolist() for level in levels] == [[1.0] * 3] * 3


def test_each_clip_is_compared_with_its_own_sounds():
    frames, log_mel, misaligned = clips()
    model = training(small(drop_pathway=1.0, synchronise=True))
    with torch.inference_mode():
        together = model.forward_pairs(frames, log_mel, misaligned)[1]
        for clip in range(3):
            alone = model.forward_pairs(*(part[clip : clip + 1] for part in (frames, log_mel, misaligned)))[1]
            for level, expected in zip(together, alone, strict=True):
                for name in ("visual", "positive", "negative"):
                    torch.testing.assert_close(getattr(level, name)[clip], getattr(expected, name)[0])


def test_the_loss_is_the_squared_distance_to_the_own_sound_and_the_margin_to_others():
    visual = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    level = SyncLevel("res3", visual, visual, -visual, torch.ones(2))
    both = torch.tensor([True, True])
    assert synchronisation_loss([level], both)["res3"] == 0  # near, and 1 away
    swapped = SyncLevel("res3", visual, -visual, visual, torch.ones(2))
    assert float(synchronisation_loss([swapped], both)["res3"]) == pytest.approx((1 + 0.99**2) / 2)
    half = SyncLevel("res3", visual, -visual, visual, torch.tensor([1.0, 0.0]))
    assert float(synchronisation_loss([half], both)["res3"]) == pytest.approx((1 + 0.99**2) / 2)
    assert float(synchronisation_loss([swapped], torch.tensor([False, False]))["res3"]) == 0


def test_silence_and_equal_sounds_are_not_compared():
    _, log_mel, misaligned = clips(4)
    misaligned[1] = 0.5
    log_mel[2] = 0.0
    misaligned[3] = 2 * log_mel[3]
    assert usable_pairs(log_mel, misaligned).tolist() == [True, False, False, False]


@pytest.mark.parametrize("change", [{"frames": 9}, {"mel_frames": 24}])
def test_lengths_that_do_not_meet_are_refused(change):
    with pytest.raises(ConfigError, match="mel_frames: expected frames a multiple of alpha"):
        AVSlowFast(5, **{**SMALL, **change})


def test_a_model_made_without_the_loss_compares_nothing():
    with pytest.raises(ConfigError, match="synchronise"):
        small().forward_pairs(*clips())
