"""Stopping a training where its state is whole: between two steps."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

GRACE_S = 3.0  # a step that takes longer than this after a signal is cut off; what was saved before stays


class StopSignals:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted, to be acted on between two steps.

    A second signal, or one that nobody has acted on within `GRACE_S`, interrupts at once, as outside the block. Not
    with several processes, which must stop at the same step: torchrun kills those that linger. A signal that is ignored
    or has no Python handler stays so.
    """

    def __init__(self, alone: bool = True) -> None:
        self.received: int | None = None
        self._alone = alone
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)
        self._alarm_handler = signal.signal(signal.SIGALRM, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._alarm_handler)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """Take all the time that saving the state needs."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def act(self, number: int) -> None:
        """Do now what a signal asks for: this process's own, or another's."""
        self._interrupt(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._interrupt(number, frame)
        self.received = number
        if self._alone:
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        received = self.received if self.received is not None else number
        handler = self._handlers.get(received)
        if handler is None:  # ignored here, but another process was told
            raise KeyboardInterrupt
        handler(received, frame)
