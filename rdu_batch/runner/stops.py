"""Stop requests: Ctrl-C, SIGTERM, a hang-up and the deadline, all the same to a run.

While a run plans and connects, where every step is whole or absent, a stop raises ``Interrupted``
at once. While leases are out it only sets a flag, which the driver's loop looks at: raising in the
middle of a callback of Ray would leave its state undefined. A second signal raises in any case, but
for one that comes with the first: ``timeout`` signals the process and then its whole group.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rdu_batch.runner.early_stops import (
    ENDING,
    SAME_REQUEST_S,
    heard_early,
    may_hear_hang_up,
    stopped_by,
)
from rdu_batch.storage.retries import end_waits_at

_NAMES = {signal.SIGALRM: "the deadline (limits.deadline_s)"}


class StopRequest:
    """Whether, and why, the run should stop."""

    def __init__(self) -> None:
        #: Why to stop, in words; None while the run goes on.
        self.reason: str | None = None
        self._raises = False
        self._first_s = 0.0
        self._kinds: tuple[signal.Signals, ...] = (*ENDING, signal.SIGALRM)

    def is_requested(self) -> bool:
        """True once a stop was asked for."""
        return self.reason is not None

    @contextmanager
    def watch(self, deadline_s: float | None, *, ends_process: bool = True) -> Iterator[None]:
        """Listen for signals and the deadline; handlers of before are put back at the end.

        Outside the main thread Python lets nobody listen to signals: there only the deadline stops
        a run, and only where the run looks for it.

        Args:
            deadline_s: seconds from now; None for no deadline.
            ends_process: after a stop signals are ignored instead: what they ask for is done, and
                one more, while the process ends, must not change its exit code. False for a
                process that goes on, such as a notebook's.
        """
        end_waits_at(self)
        try:
            if threading.current_thread() is threading.main_thread():
                with self._signals(deadline_s, ends_process=ends_process):
                    yield
            else:
                with self._timer(deadline_s):
                    yield
        finally:
            end_waits_at(None)

    @contextmanager
    def _signals(self, deadline_s: float | None, *, ends_process: bool) -> Iterator[None]:
        if not may_hear_hang_up():
            self._kinds = tuple(kind for kind in self._kinds if kind is not signal.SIGHUP)
        before = {kind: signal.getsignal(kind) for kind in self._kinds}
        # One that came before may have been swallowed by what it came into.
        self.reason = heard_early()
        self.listen()
        if deadline_s is not None:
            signal.setitimer(signal.ITIMER_REAL, deadline_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            is_ignored = ends_process and self.is_requested()
            for kind, handler in before.items():
                signal.signal(kind, signal.SIG_IGN if is_ignored else handler)

    @contextmanager
    def _timer(self, deadline_s: float | None) -> Iterator[None]:
        if deadline_s is None:
            yield
            return
        timer = threading.Timer(deadline_s, self._pass_deadline)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _pass_deadline(self) -> None:
        self.reason = self.reason or _NAMES[signal.SIGALRM]

    def listen(self) -> None:
        """Install the handlers, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for kind in self._kinds:
            signal.signal(kind, self._on_signal)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, a stop raises ``Interrupted`` at once."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_first, now_s = self.reason is None, time.monotonic()
        if is_first:
            self._first_s = now_s
        elif now_s - self._first_s < SAME_REQUEST_S:
            return
        self.reason = _NAMES.get(signal.Signals(number), signal.Signals(number).name)
        # Whoever asks again does not want to wait for a row to end.
        if self._raises or not is_first:
            self.check()

    def check(self) -> None:
        """Raise ``Interrupted`` if a stop was asked for."""
        if self.reason is not None:
            raise stopped_by(self.reason)
