import numpy as np

from avrecog.fusion.evaluate import BestSingleModel, evaluate
from avrecog.fusion.methods.weighted_mean import fixed_fusion
from avrecog.fusion.settings import FuseConfig
from fusion_inputs import random_scores


def test_the_best_single_model_is_that_of_highest_top1_then_top5_then_the_first():
    labels = np.array([0, 1])
    right, wrong = np.eye(7)[labels], np.eye(7)[labels + 1]
    below_top5 = np.tile(np.arange(7.0), (2, 1))
    stack = np.stack([below_top5, wrong, right, right])
    assert BestSingleModel.of("abcd", stack, labels).model == "c"
    assert BestSingleModel.of("ab", stack[:2], labels).model == "b"


def test_the_gain_is_over_the_best_single_model():
    stack, labels, _ = random_scores(0, 2)
    single = BestSingleModel.of(("a", "b"), stack, labels)
    result = evaluate(fixed_fusion(("a", "b"), [1, 1]), stack, labels, single, FuseConfig(n_resamples=100))
    assert result["gain"]["top1"] == result["fused"]["top1"] - single.top1
    assert result["best_single"] == {"model": single.model, "top1": single.top1}
    low, high = result["gain"]["top1_ci95"]
    assert low <= result["gain"]["top1"] <= high
