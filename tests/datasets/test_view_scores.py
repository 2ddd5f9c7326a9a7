import numpy as np
import pytest
import torch

from avrecog.datasets.view_scores import predict_scores

LOGITS = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 1.0], [2.0, 0.0]])  # of four views


class FourViews:
    """Two clips: three views of the first, one of the second."""

    def __len__(self):
        return 2

    def views(self, n_views):
        return np.array([[0, 0], [0, 1], [0, 2], [1, 3]])

    def view_batch(self, views, device):
        return (LOGITS[views[:, 1]].to(device),)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_clip_is_the_mean_of_its_views_softmax_or_of_their_logits(batch_size):
    def scores(average):
        return predict_scores(
            lambda x: x,
            FourViews(),
            n_views=None,
            batch_size=batch_size,
            device=torch.device("cpu"),
            average=average,
        )

    np.testing.assert_allclose(scores("score"), [[4 / 3, 2 / 3], [2.0, 0.0]], rtol=1e-6)
    shares = LOGITS.softmax(dim=1).numpy()
    np.testing.assert_allclose(scores("prob"), [shares[:3].mean(axis=0), shares[3]], rtol=1e-6)
