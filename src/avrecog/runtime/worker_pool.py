"""A pool of worker processes that ends when its owner does, however that is."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)


@contextlib.contextmanager
def worker_pool(
    module: str, n_processes: int, initializer: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of processes that have imported `module`, each of which calls `initializer(*arguments)` first.

    None where this process is to do the work: if one is enough, or if the machine lacks the shared memory by which
    several speak with each other, which is said. Where the block raises, the workers are killed at once. Where this
    process is killed, they end by themselves.
    """
    if n_processes < 2:
        yield None
        return
    # A fork of this process could hang, since it has threads (torch, mlflow). They are forks of a server that has none,
    # which imports once what each of them would need seconds for.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    pool: ProcessPoolExecutor | None = None
    try:
        pool = ProcessPoolExecutor(n_processes, context, _begin, (initializer, arguments))
    except (OSError, ImportError, NotImplementedError) as error:  # its semaphores lie in /dev/shm
        with tqdm.external_write_mode():  # not in the middle of a progress bar
            log.warning(
                "one process works, not %d: no shared memory for more (/dev/shm: %s); start a container with "
                "--shm-size=1g or --ipc=host to have them",
                n_processes,
                getattr(error, "strerror", None) or error,
            )
    if pool is None:
        yield None
        return
    results: Any = pool._result_queue
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.kill()
        # A worker killed while it wrote a result leaves a part of it in the pipe, and the pool's own thread would wait
        # for the rest for ever, since this process holds the pipe's other end open too.
        results._writer.close()
        raise
    pool.shutdown()


def n_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; their owner ends them
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    """A worker whose owner was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
