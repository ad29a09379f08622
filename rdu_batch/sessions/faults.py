"""A session that fails on purpose at one chosen call; see ``storage/failpoint.py`` for who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdu_batch.storage.failpoint import Call, Role, open_failpoint, strike_around

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rdu_batch.sessions.door import Session, SessionInfo, Step

#: The name of every call of a session, where a store's call has that of an object.
SESSION = "session"


class FaultySession:
    """A session whose calls are in the journal, and of which one ends the worker or the process."""

    def __init__(self, session: Session, text: str) -> None:
        """Put the failpoint that the environment asks for around a session.

        Raises:
            UsageError: the text is no failpoint. Ends the job (exit 2).
        """
        self._session = session
        self._failpoint = open_failpoint(text)

    @property
    def info(self) -> SessionInfo:
        """See ``Session.info``."""
        return self._session.info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """See ``Session.prefill``."""
        return self._call(
            "prefill", lambda: self._session.prefill(input_ids_1S, want_logits=want_logits)
        )

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """See ``Session.decode``."""
        return self._call(
            "decode", lambda: self._session.decode(token_id, position, want_logits=want_logits)
        )

    def reset(self) -> None:
        """See ``Session.reset``."""
        self._session.reset()

    def close(self) -> None:
        """See ``Session.close``."""
        self._session.close()

    def _call(self, operation: str, do: Callable[[], Step]) -> Step:
        return strike_around(
            self._failpoint,
            self._failpoint.act_at(Role.WORKER, operation, SESSION),
            Call(Role.WORKER, operation, SESSION, "not done"),
            do,
            lambda _step, end: Call(Role.WORKER, operation, SESSION, end),
        )
