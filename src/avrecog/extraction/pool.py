"""All processors decode: clips go out to workers in groups, results come back in order."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

from avrecog.errors import MediaError
from avrecog.extraction.worker import Extracted, Extractor, Job, start_worker, work
from avrecog.manifest import Clip
from avrecog.runtime.worker_pool import n_processors, worker_pool

CLIPS_PER_WORKER = 32  # fewer than this don't pay for starting one more process
MAX_TOGETHER = 8  # clips of sound alone that a worker decodes one after another before it makes their log-mels
MAX_TOGETHER_S = 60.0


def extracted(jobs: Sequence[Job], extractor: "Extractor") -> Iterator[tuple[Clip, Extracted]]:
    """Every job's result, in the order of the jobs, worked on by all processors."""
    n_workers = min(n_processors(), math.ceil(len(jobs) / CLIPS_PER_WORKER))
    with worker_pool(__name__, n_workers, start_worker, (extractor,)) as pool:
        if pool is None:
            for group in _batch_jobs(jobs):
                yield from zip((clip for clip, _, _ in group), extractor(group), strict=True)
            return
        waiting: deque[tuple[Sequence[Job], Future[list[Extracted]]]] = deque()
        for group in _batch_jobs(jobs):
            waiting.append((group, pool.submit(work, group)))
            if len(waiting) > 4 * n_workers:  # enough to keep all busy, few enough to keep memory flat
                yield from _results(*waiting.popleft())
        for group, future in waiting:
            yield from _results(group, future)


def _batch_jobs(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """The jobs in groups, in their order; a clip whose picture is wanted is a group by itself."""
    begin, seconds = 0, 0.0
    for number, (clip, _, wants_picture) in enumerate(jobs):
        seconds += clip.duration_s
        full = number - begin == MAX_TOGETHER or seconds > MAX_TOGETHER_S
        if number > begin and (full or wants_picture or jobs[begin][2]):
            yield jobs[begin:number]
            begin, seconds = number, clip.duration_s
    if begin < len(jobs):
        yield jobs[begin:]


def _results(group: Sequence[Job], future: "Future[list[Extracted]]") -> Iterator[tuple[Clip, Extracted]]:
    """What came of the clips of a group.

    Raises:
        MediaError: if a worker process has died, as FFmpeg can over a broken file, or for want of memory.
    """
    clips = [clip for clip, _, _ in group]
    try:
        yield from zip(clips, future.result(), strict=True)
    except BrokenProcessPool:
        raise MediaError(
            f"{clips[0].path}: a process that was decoding this clip, or one of the few after it, has died (a file "
            f"that crashes the decoder, or no memory left); drop the row, or run the same command again, which goes on "
            f"here"
        ) from None
