"""Kinds of sessions by name: the built-in ones, and those of installed plug-ins.

Promises: a kind's code is imported only when a session of it is opened; a plug-in never replaces a
built-in kind. A plug-in names a class in the entry-point group ``rdu_batch.sessions``; the class
has ``open(artifact: LocalArtifact | None, *, threads: int)`` and stands behind ``door.Session``.
Does not: fetch artifacts (``artifact_store.py``) or make them (``compile.py``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, cast

from rdu_batch.errors import ArtifactError, SpecError
from rdu_batch.sessions.library_versions import check_transformers
from rdu_batch.storage.failpoint import FAULT_VARIABLE

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

ENTRY_POINT_GROUP: Final = "rdu_batch.sessions"

#: Stands for the artifact of a job whose sessions are fake. The number changes with its tokens.
FAKE_ARTIFACT_DIGEST: Final = "sha256:" + hashlib.sha256(b"fake session, tokens 1").hexdigest()

_BUILT_IN: Final = {
    "inductor": "rdu_batch.sessions.inductor.session:InductorSession",
    "samba": "rdu_batch.sessions.samba.session:SambaSession",
    "rdu_engine": "rdu_batch.sessions.rdu_engine.session:RduEngineSession",
    "eager": "rdu_batch.sessions.eager:EagerSession",
    "fake": "rdu_batch.sessions.fake:FakeSession",
}
#: Where a kind is chosen, for advice that fits a job and the tutorial's command.
CHOSEN_BY: Final = "session.kind of a job, --kind of `run --inference`"
_NEEDS_NO_ARTIFACT: Final = frozenset({"fake"})
_OPENS_ANY_ARTIFACT: Final = frozenset({"eager", "fake"})
#: Kinds that open artifacts of another kind than their own: which, and how these are compiled.
_OPENS_ANOTHERS: Final = {"rdu_engine": ("samba", "samba with --graphs cached")}


def known_kinds() -> tuple[str, ...]:
    """Names of the built-in kinds, then those of plug-ins, sorted."""
    plugged_in = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(plugged_in - _BUILT_IN.keys()))


def problem_of_kind(kind: str) -> str | None:
    """Why no session of this kind can be opened here, whatever is installed; None if one may be.

    It is unknown (the text names those that are known), or several plug-ins provide it. Without the
    name of the leaf or flag that said the kind: the caller's error begins with that.
    """
    if kind in _BUILT_IN:
        return None
    values = sorted({point.value for point in entry_points(group=ENTRY_POINT_GROUP, name=kind)})
    if not values:
        return _unknown_kind(kind)
    if len(values) > 1:
        return f"several plug-ins provide {kind!r} ({', '.join(values)}); uninstall all but one"
    return None


def check_can_load(kind: str) -> None:
    """Check that what a built-in kind needs of an RDU's software is installed; imports nothing.

    Raises:
        ArtifactError: it is not; the message says what to install. Ends the command (exit 8).
    """
    if kind == "samba" and importlib.util.find_spec("sambaflow") is None:
        from rdu_batch.sessions.samba.flow import load_sambaflow

        load_sambaflow()
    if kind == "rdu_engine" and importlib.util.find_spec("rdu_engine") is None:
        from rdu_batch.sessions.rdu_engine.engine import load_rdu_engine

        load_rdu_engine()


def open_session(kind: str, artifact: LocalArtifact | None, *, threads: int) -> Session:
    """Open a session of ``kind`` on an artifact that lies on this node.

    Args:
        kind: one of ``known_kinds()``.
        artifact: what it loads; None only for kind ``fake``.
        threads: intra-op threads, 1 or more, pinned for the life of the session.

    Where ``RDU_BATCH_FAULT`` is set, it fails on purpose (see ``storage/failpoint.py``).

    Raises:
        SpecError: no such kind. Ends the job (exit 3).
        ArtifactError: no artifact, one of another kind or made with another transformers, or the
            kind cannot be loaded here. Ends the job (exit 8).
    """
    point = _entry_point(kind)
    if artifact is None and kind not in _NEEDS_NO_ARTIFACT:
        raise ArtifactError(
            f"session.artifact is missing: a session of kind {kind} loads an artifact; make one "
            "with `rdu-batch compile`, or use `--set session.kind=fake` for a dry run"
        )
    if artifact is not None and kind not in _OPENS_ANY_ARTIFACT:
        found = artifact.artifact.kind
        wanted, compiled = _OPENS_ANOTHERS.get(kind, (kind, kind))
        if found != wanted:
            raise ArtifactError(
                f"{artifact.artifact.url}: an artifact of kind {found}, wanted {wanted}; use kind "
                f"{found}{_or_eager(found)} ({CHOSEN_BY}), or compile the model for {compiled}"
            )
    if artifact is not None and kind not in _NEEDS_NO_ARTIFACT:
        check_transformers(artifact.artifact)
    try:
        session_class = point.load()
    except (ImportError, AttributeError) as error:
        raise ArtifactError(
            f"session kind {kind} cannot be loaded here: {point.value}: {error}; install what it "
            f"needs on every node, or choose another kind ({CHOSEN_BY})"
        ) from error
    session = cast("Session", session_class.open(artifact, threads=threads))
    if FAULT_VARIABLE in os.environ:
        from rdu_batch.sessions.faults import FaultySession

        return FaultySession(session, os.environ[FAULT_VARIABLE])
    return session


def _or_eager(found: str) -> str:
    return "" if found == "eager" else ", or eager, which opens any artifact"


def _entry_point(kind: str) -> EntryPoint:
    problem = problem_of_kind(kind)
    if problem is not None:
        raise SpecError([problem])
    if kind in _BUILT_IN:
        return EntryPoint(kind, _BUILT_IN[kind], ENTRY_POINT_GROUP)
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=kind)))


def _unknown_kind(kind: str) -> str:
    kinds = known_kinds()
    close = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown kind {kind!r}; known kinds are {', '.join(kinds)}{hint}"
