"""Stopping a training where its state is whole: between two steps."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

GRACE_S = 3.0  # a step that takes longer than this after a signal is cut off; its state was saved before


class StopSignals:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted, to be acted on between two steps.

    A second signal, or one that nobody has acted on within `GRACE_S`, interrupts at once, as outside the block. A
    signal that is ignored or has no Python handler stays so.
    """

    def __init__(self) -> None:
        self.received: int | None = None
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

    def wait(self) -> None:
        """Take all the time that saving the state needs."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def act(self) -> None:
        """Do now what the signal asks for, if there was one."""
        if self.received is not None:
            self._interrupt(self.received, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._interrupt(number, frame)
        self.received = number
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        received = self.received if self.received is not None else number
        self._handlers[received](received, frame)
