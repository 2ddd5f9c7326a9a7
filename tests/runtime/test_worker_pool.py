import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from avrecog.runtime import worker_pool as module
from avrecog.runtime.worker_pool import worker_pool
from waiting import HANGS_S

NO_SHARED_MEMORY = {
    "none": "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9",
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
    "full": "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/all",
}


def large_result(_):
    return np.zeros(50_000_000, np.uint8)


@pytest.mark.parametrize("n_more", [0, 1, 3])  # results that are read before; the next ones are being written
def test_a_pool_that_is_left_by_an_error_ends_though_results_are_half_written(n_more):
    def leave():
        with worker_pool("numpy", 2) as pool:
            futures = [pool.submit(large_result, number) for number in range(50)]
            for future in futures[: 1 + n_more]:
                future.result()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    for thread in threads_of_pools():
        thread.join(HANGS_S)
        assert not thread.is_alive()
    assert not multiprocessing.active_children()


def threads_of_pools():
    return [thread for thread in threading.enumerate() if "ExecutorManager" in type(thread).__name__]


def test_one_process_needs_no_pool():
    with worker_pool("numpy", 1) as pool:
        assert pool is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file or directory"), ImportError("no sem_open"), NotImplementedError("few")]
)
def test_without_shared_memory_one_process_works_and_that_is_said(monkeypatch, caplog, error):
    def refused(*_):
        raise error

    monkeypatch.setattr(module, "ProcessPoolExecutor", refused)
    with caplog.at_level(logging.WARNING), worker_pool("numpy", 3) as pool:
        assert pool is None
    (line,) = caplog.messages
    assert line.startswith("one process works, not 3: no shared memory for more (/dev/shm: ")
    assert (error.strerror if isinstance(error, OSError) else str(error)) in line


@pytest.mark.parametrize("kind", NO_SHARED_MEMORY)
def test_a_machine_without_shared_memory_is_worked_on_by_one_process(kind):
    if os.name != "posix" or os.geteuid() or not shutil.which("unshare"):
        pytest.skip("only root can take /dev/shm away, by unshare")
    if subprocess.run(["unshare", "-m", "sh", "-c", NO_SHARED_MEMORY[kind]], capture_output=True).returncode:
        pytest.skip("mounts are forbidden here")
    code = f"""
import logging
from avrecog.runtime.worker_pool import worker_pool
logging.basicConfig(format="%(message)s")
with worker_pool("{__name__}", 2) as pool:
    print(pool)
"""
    command = ["unshare", "-m", "sh", "-c", f"{NO_SHARED_MEMORY[kind]} && exec $0 -c '{code}'", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    assert done.stderr.startswith("one process works, not 2: no shared memory for more (/dev/shm: ")
