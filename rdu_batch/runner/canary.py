"""The canary of a run: proof that two workers compute the same numbers.

The first worker to open its session creates ``_run/canary.json``; each later one, in this epoch
or after a resume, must get the same digest from its own session or is refused. So a machine whose
arithmetic differs cannot mix its predictions into the job's.
"""

from __future__ import annotations

import json

from rdu_batch.errors import OutputMismatch, SessionBroken
from rdu_batch.runner.run_layout import CANARY
from rdu_batch.sessions.canary import canary_of
from rdu_batch.sessions.door import Session
from rdu_batch.storage.store import Store

FORMAT_VERSION = 1


def check_canary(store: Store, session: Session) -> None:
    """Create the run's canary, or compare this session with it.

    Raises:
        OutputMismatch: another format version wrote the canary, or it is damaged. Ends the job.
        SessionBroken: this session's logits differ from the run's first worker's. Ends the worker.
    """
    mine = canary_of(session)
    session.reset()
    content = json.dumps({"version": FORMAT_VERSION, "canary": mine}).encode() + b"\n"
    wanted = _read(store.create_or_read(CANARY, content), store.join(CANARY))
    if mine != wanted:
        raise SessionBroken(
            f"canary of this worker's session is {mine}, the run's is {wanted} "
            f"({store.join(CANARY)}): this machine computes other numbers than the one that began "
            "the run. Use machines of one kind, the same library versions and threads per session."
        )


def _read(content: bytes, url: str) -> str:
    try:
        document = json.loads(content)
        version, canary = document["version"], document["canary"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutputMismatch(
            f"the canary {url} is damaged: {content[:40]!r}. Restore it, or choose another "
            "output.url; without it nothing tells whether machines compute the same numbers."
        ) from error
    if version != FORMAT_VERSION:
        raise OutputMismatch(
            f"the canary {url} has format version {version!r}, this program reads "
            f"{FORMAT_VERSION}. Finish the job with the version that began it, or choose another "
            "output.url."
        )
    return str(canary)
