"""Signals of a run's first moments, before it knows what it is to run.

Promises: from ``listen_early`` on a signal that asks for an end raises ``Interrupted``, so that it
ends as any other stop does; what a library swallows meanwhile is remembered for ``StopRequest``
(``stops.py``). Imports next to nothing: the sooner it listens, the better.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final

from rdu_batch.errors import Interrupted

#: Signals within so long of the first are the same request.
SAME_REQUEST_S: Final = 0.5
#: What asks for an end: a person, a scheduler, a terminal or connection that hangs up.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_heard: list[tuple[signal.Signals, float]] = []


def listen_early() -> None:
    """Hear what asks this process to end; to be called in the main thread."""
    for kind in ENDING:
        if kind is not signal.SIGHUP or may_hear_hang_up():
            signal.signal(kind, _on_signal)


def end_listening() -> None:
    """Ignore them: this process ends, and one more must not change its exit code."""
    for kind in ENDING:
        if signal.getsignal(kind) is _on_signal:
            signal.signal(kind, signal.SIG_IGN)


def heard_early() -> str | None:
    """The name of the first signal so far; None if there was none."""
    return _heard[0][0].name if _heard else None


def may_hear_hang_up() -> bool:
    """Whether SIGHUP is for us: ``nohup`` has it ignored, and a program may have uses for it."""
    return signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, _on_signal)


def stopped_by(reason: str) -> Interrupted:
    """The error of a run that was asked to end."""
    return Interrupted(
        f"stopped by {reason}. Finished rows are kept; run the same command again to go on."
    )


def _on_signal(number: int, _frame: FrameType | None) -> None:
    now_s = time.monotonic()
    if _heard and now_s - _heard[0][1] < SAME_REQUEST_S:
        return
    _heard.append((signal.Signals(number), now_s))
    raise stopped_by(signal.Signals(number).name)
