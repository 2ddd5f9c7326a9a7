import numpy as np
import pytest

from avrecog.media.padding import without_padding


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize(("n", "stays"), [(8, 8), (10, 10), (12, 10), (13, 10), (14, 14), (40, 40)])
def test_a_few_samples_behind_the_stated_end_are_dropped_and_many_are_kept(size, n, stays):
    samples = np.arange(n, dtype=np.float32)
    blocks = [samples[begin : begin + size] for begin in range(0, n, size)]
    found = list(without_padding(blocks, 10, 4))
    assert all(len(block) for block in found)
    np.testing.assert_array_equal(np.concatenate(found), samples[:stays])
