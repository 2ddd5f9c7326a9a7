import time

import numpy as np
import pytest

from avrecog.workers import worker_pool


def large_result(_):
    return np.zeros(50_000_000, np.uint8)


@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.1])
def test_a_pool_that_is_left_by_an_error_ends_at_once_though_results_are_half_written(moment_s):
    began = time.monotonic()

    def leave():
        nonlocal began
        with worker_pool("numpy", 2) as pool:
            futures = [pool.submit(large_result, number) for number in range(50)]
            futures[0].result()
            time.sleep(moment_s)
            began = time.monotonic()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    (thread,) = [each for each in threads_of_pools() if each.is_alive()] or [None]
    if thread is not None:
        thread.join(5)
        assert not thread.is_alive()
    assert time.monotonic() - began < 5


def threads_of_pools():
    import threading

    return [thread for thread in threading.enumerate() if "ExecutorManager" in type(thread).__name__]
