"""The canary of a run: proof that two workers compute the same numbers.

The first worker to open its session creates ``_run/canary.json``; each later one, in this epoch
or after a resume, must get the same digest from its own session or is refused. So a machine whose
arithmetic differs cannot mix its predictions into the job's.
"""

from __future__ import annotations

import json

from rdu_batch.errors import SessionBroken
from rdu_batch.runner.run_layout import CANARY
from rdu_batch.sessions.canary import canary_of
from rdu_batch.sessions.door import Session
from rdu_batch.storage.store import Store


def check_canary(store: Store, session: Session) -> None:
    """Create the run's canary, or compare this session with it.

    Raises:
        SessionBroken: this session's logits differ from the run's first worker's. Ends the worker.
    """
    mine = canary_of(session)
    session.reset()
    content = json.dumps({"version": 1, "canary": mine}).encode() + b"\n"
    wanted = json.loads(store.create_or_read(CANARY, content))["canary"]
    if mine != wanted:
        raise SessionBroken(
            f"canary of this worker's session is {mine}, the run's is {wanted} "
            f"({store.join(CANARY)}): this machine computes other numbers than the one that began "
            "the run. Use machines of one kind, the same library versions and threads per session."
        )
