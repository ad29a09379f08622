"""The probe: what a store really guarantees, whatever its makers say.

Works in a fresh folder below the one it is given and leaves no object there. It sees what one
process sees: that no round was lost is strong evidence, no proof.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rdu_batch.errors import CreateOnceUnsupported, ObjectMissing, StoreError
from rdu_batch.storage.creation_race import broken_race, race_to_create
from rdu_batch.storage.protocol import Finding, Guarantee, ProbeReport, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rdu_batch.storage.store import Store

NUM_RACERS = 8
MAX_ROUNDS = 25
MIN_ROUNDS = 5
#: Some servers make the losers of a race wait for seconds; no new round is begun after this.
RACING_S = 10.0
#: How often each request that is not a race is repeated.
NUM_TURNS = 5
_OBJECT_BYTES = 64 * 1024


def probe_store(store: Store, folder: str) -> ProbeReport:
    """Measure what a store guarantees.

    Args:
        store: the store, as ``open_store`` opens it.
        folder: where to work; a new folder of a unique name is made in it, and removed.

    Raises:
        StoreError: a request failed (no access, no such bucket, no space, service away), so nothing
            can be said.
    """
    own_folder = f"{folder.strip('/')}/{secrets.token_hex(8)}"
    probe = _Probe(store, own_folder)
    if not store.puts_whole:
        seen = f"the driver for {store.protocol}:// cannot write an object whole"
        found = (Finding(Guarantee.WHOLE_WRITE, Verdict.UNSUPPORTED, seen),)
        return ProbeReport(store.url, store.create_once_by, found, {})
    try:
        findings = tuple(probe.findings())
    finally:
        with suppress(StoreError):  # what was found matters more than a crumb
            store.delete_folder(own_folder)
    return ProbeReport(store.url, store.create_once_by, findings, probe.latency_ms())


class _BrokenPromise(Exception):
    """The store did something else than it promised; the message is what was seen."""


class _Probe:
    """The checks, one method a guarantee; each returns what it saw, or raises."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._durations_s: dict[str, list[float]] = defaultdict(list)

    def findings(self) -> Iterator[Finding]:
        """Look at one guarantee after the other; without whole writes nothing else can be told."""
        checks: dict[Guarantee, Callable[[], str]] = {
            Guarantee.WHOLE_WRITE: self._check_whole_write,
            Guarantee.EMPTY_OBJECT: self._check_empty_object,
            Guarantee.OVERWRITE: self._check_overwrite,
            Guarantee.LISTING: self._check_listing,
            Guarantee.COPY: self._check_copy,
            Guarantee.DELETE: self._check_delete,
            Guarantee.CREATE_ONCE: self._check_create_once,
            Guarantee.CREATE_RACE: self._check_create_race,
        }
        for guarantee, check in checks.items():
            found = _find(guarantee, check)
            yield found
            if guarantee is Guarantee.WHOLE_WRITE and found.verdict is not Verdict.HELD:
                return

    def latency_ms(self) -> dict[str, float]:
        """The median of each kind of request; races are not in it."""
        return {
            request: round(statistics.median(durations) * 1000, 2)
            for request, durations in self._durations_s.items()
        }

    def _check_whole_write(self) -> str:
        for turn in range(NUM_TURNS):
            self._put_and_read(f"whole-{turn}", secrets.token_bytes(_OBJECT_BYTES))
        return f"{NUM_TURNS} objects of {_OBJECT_BYTES // 1024} KiB came back as they were written"

    def _check_empty_object(self) -> str:
        self._put_and_read("empty/object", b"")
        listed = [stat.size_bytes for _, stat in self._store.list_objects(f"{self._folder}/empty")]
        if listed != [0]:
            raise _BrokenPromise(f"one empty object was written, sizes {listed} were listed")
        return "an empty object was read and listed"

    def _check_overwrite(self) -> str:
        for _ in range(NUM_TURNS):
            self._put_and_read("overwritten", secrets.token_bytes(_OBJECT_BYTES))
        return f"{NUM_TURNS} contents of one object were each read at once"

    def _check_listing(self) -> str:
        wanted: list[str] = []
        for turn in range(NUM_TURNS):
            wanted.append(self._put(f"listed/{turn}", b"1"))
            self._expect_listed(wanted, "written")
        while wanted:
            self._delete(wanted.pop())
            self._expect_listed(wanted, "deleted")
        return f"{NUM_TURNS} objects were each listed after the write, and not after the delete"

    def _check_copy(self) -> str:
        source, target = self._name("source"), self._put("target", b"replaced")
        for _ in range(NUM_TURNS):
            content = secrets.token_bytes(_OBJECT_BYTES)
            self._put("source", content)
            with self._timed("copy"):
                self._store.copy(source, target)
            if self._read(target) != content or self._read(source) != content:
                raise _BrokenPromise("source and copy differ right after the copy")
        return f"{NUM_TURNS} copies over one target had the bytes of their source"

    def _check_delete(self) -> str:
        for turn in range(NUM_TURNS):
            name = self._put(f"deleted-{turn}", b"1")
            self._delete(name)
            if self._store.exists(name):
                raise _BrokenPromise("an object was still there right after it was deleted")
        return f"{NUM_TURNS} objects were gone at once"

    def _check_create_once(self) -> str:
        for turn in range(NUM_TURNS):
            name = self._name(f"created-{turn}")
            with self._timed("create"):
                self._store.create_once(name, b"first")
            # Whatever the answer was: a driver whose reply was lost says that it exists.
            self._expect(name, b"first", "an object differs right after its creation")
            self._expect_refused(name, b"first")
        for name, content in (("written", b"first"), ("made-empty", b"")):
            for _ in range(NUM_TURNS):
                self._expect_refused(self._put(name, content), content)
        return f"{3 * NUM_TURNS} creates over existing objects were refused, nothing changed"

    def _expect_refused(self, name: str, content: bytes) -> None:
        with self._timed("refused create"):
            is_created = self._store.create_once(name, b"second")
        if is_created:
            raise _BrokenPromise(
                f"a create over an object of {len(content)} bytes said that it had won"
            )
        self._expect(name, content, "a create that was refused changed the object")

    def _check_create_race(self) -> str:
        latest_start_s = time.perf_counter() + RACING_S
        problems = []
        rounds = 0
        while rounds < MAX_ROUNDS and (rounds < MIN_ROUNDS or time.perf_counter() < latest_start_s):
            name = self._name(f"race-{rounds}")
            contents = [f"racer {n} {secrets.token_hex(16)}".encode() for n in range(NUM_RACERS)]
            told = race_to_create(self._store, name, contents)
            # Of racers that overwrote each other no more is asked: a server that lets them may hold
            # the bytes of one with the checksum of another, which no read gives.
            stands = b"" if told.count(True) > 1 else self._read(name)
            problem = broken_race(told, contents, stands)
            problems += [problem] if problem else []
            rounds += 1
        if problems:
            raise _BrokenPromise(
                f"in {len(problems)} of {rounds} rounds of {NUM_RACERS} creators more than one or "
                f"the wrong one won; first: {problems[0]}"
            )
        return f"one creator won in each of {rounds} rounds of {NUM_RACERS}"

    def _name(self, name: str) -> str:
        return f"{self._folder}/{name}"

    @contextmanager
    def _timed(self, request: str) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        self._durations_s[request].append(time.perf_counter() - started_s)

    def _put(self, name: str, content: bytes) -> str:
        with self._timed("put"):
            self._store.put_whole(self._name(name), content)
        return self._name(name)

    def _put_and_read(self, name: str, content: bytes) -> None:
        self._expect(self._put(name, content), content, "an object differs right after its write")

    def _read(self, name: str) -> bytes:
        with self._timed("read"):
            return self._store.read(name)

    def _expect(self, name: str, content: bytes, problem: str) -> None:
        found = self._read(name)
        if found != content:
            raise _BrokenPromise(f"{problem}: {len(found)} bytes, wanted {len(content)}")

    def _delete(self, name: str) -> None:
        with self._timed("delete"):
            self._store.delete(name)

    def _expect_listed(self, names: list[str], done: str) -> None:
        with self._timed("list"):
            listed = self._store.list_names(self._name("listed"))
        if listed != names:
            raise _BrokenPromise(
                f"{len(listed)} objects were listed right after one was {done}, wanted {len(names)}"
            )


def _find(guarantee: Guarantee, check: Callable[[], str]) -> Finding:
    try:
        return Finding(guarantee, Verdict.HELD, check())
    except _BrokenPromise as broken:
        return Finding(guarantee, Verdict.BROKEN, str(broken))
    except CreateOnceUnsupported as error:
        return Finding(guarantee, Verdict.UNSUPPORTED, str(error))
    except ObjectMissing as error:
        return Finding(guarantee, Verdict.BROKEN, f"{error}; it was written just before")
