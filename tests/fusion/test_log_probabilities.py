import numpy as np
import pytest

from avrecog.fusion.log_probabilities import logarithms, softmax


def test_logarithms_have_a_floor_so_that_no_model_has_a_veto():
    assert logarithms(np.array([0.0, 1.0])) == pytest.approx([np.log(1e-6), 0])


def test_softmax_gives_probabilities_back():
    probabilities = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert softmax(logarithms(probabilities), axis=1) == pytest.approx(probabilities)
