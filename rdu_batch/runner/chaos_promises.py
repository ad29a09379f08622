"""What a chaos trial is judged by: the promises, and whether what was seen keeps them; pure.

Promises: each judge looks at facts alone (exit codes, the journal, bytes in the store), never at
what the product says of itself, but for the exit code, which is what is judged then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from signal import SIGKILL

from rdu_batch.job.run_paths import MANIFEST, SUCCESS, read_shard_file_name
from rdu_batch.runner.chaos_points import KILLS_DRIVER, Fault
from rdu_batch.runner.run_layout import COMMITS_FOLDER
from rdu_batch.storage.failpoint import WRITES, Call


class Promise(StrEnum):
    """What holds whatever happens; the columns of the matrix."""

    ROWS = "rows"
    BYTES = "bytes"
    RESUME = "resume"
    COMMITS = "commits"
    EXIT = "exit"


#: Each promise in words for people.
PROMISED = {
    Promise.ROWS: "every row is one prediction or one dead letter: verify finds nothing",
    Promise.BYTES: "part-*, dead-*, manifest.json, _SUCCESS equal those of an undisturbed run",
    Promise.RESUME: "the same command again completes the job; once more it changes nothing",
    Promise.COMMITS: "what was created once, committed or published never changes",
    Promise.EXIT: "exit 0 only when complete; a failed run names its cause by its code",
}
#: Ends of a call after which it has happened, whatever the caller heard.
_TOOK_EFFECT = ("done", "lost")
#: Exit codes that tell the truth about a run that met the fault and was not killed: complete all
#: the same, the store failed, no session started.
_TRUE_EXITS = {
    Fault.UNAVAILABLE: (0, 6),
    Fault.REPLY_LOST: (0, 6),
    Fault.REPLY_DENIED: (0,),
    Fault.STALE_LISTING: (0,),
    Fault.EMPTY_LISTING: (0,),
    Fault.WORKER_BEFORE: (0, 10),
    Fault.WORKER_AFTER: (0, 10),
}


@dataclass(frozen=True)
class RunEnd:
    """How one run of a trial ended."""

    #: What ended the process; 0 if it ended by itself.
    signal: int
    #: Its exit code; meaningless when a signal ended it.
    exit: int
    #: Of its summary: ``complete`` or ``already complete``; empty for a run that failed.
    state: str = ""
    #: Class and message of the error it ended with; empty if none.
    error: str = ""

    def __str__(self) -> str:
        """For people."""
        if self.signal:
            return f"ended by signal {self.signal}"
        return f"exit {self.exit} ({self.state or self.error})"


@dataclass(frozen=True)
class Evidence:
    """All that is known of a trial when its runs are over.

    Args:
        ends: of its runs: one that was killed to begin with (for points of a later run), the one
            that met the fault, then those without a fault.
        num_before: how many came before the one that met the fault.
        calls: what each run asked of store and sessions.
        is_struck: the fault was met.
        objects: sha256 of every object of the output when a run completed, or all had failed.
        objects_after: the same after one run more; None if none completed.
        problems: what ``verify`` found.
        num_rows: that ``verify`` counted.
        unsealed: sealed files that a commit record names and that are not there.
    """

    ends: Sequence[RunEnd]
    num_before: int
    calls: Sequence[Sequence[Call]]
    is_struck: bool
    objects: Mapping[str, str]
    objects_after: Mapping[str, str] | None
    problems: Sequence[str]
    num_rows: int
    unsealed: Sequence[str] = ()


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run came to."""

    num_rows: int
    #: sha256 by name of what a consumer may read.
    published: Mapping[str, str]


def judge(evidence: Evidence, fault: Fault | None, reference: Reference) -> dict[Promise, str]:
    """What is wrong, by promise; empty if all were kept.

    Args:
        evidence: of the trial.
        fault: that was met; None for an undisturbed run.
        reference: of the undisturbed run.
    """
    found = {
        Promise.ROWS: _judge_rows(evidence, reference),
        Promise.BYTES: _judge_bytes(evidence, reference),
        Promise.RESUME: _judge_resume(evidence),
        Promise.COMMITS: next(_judge_commits(evidence), None),
        Promise.EXIT: _judge_exits(evidence, fault),
    }
    return {promise: text for promise, text in found.items() if text is not None}


def published_in(objects: Mapping[str, str]) -> dict[str, str]:
    """Of all objects those that a consumer may read: everything outside ``_run/``."""
    return {name: sha256 for name, sha256 in objects.items() if "/" not in name}


def _judge_rows(evidence: Evidence, reference: Reference) -> str | None:
    if evidence.problems:
        return f"verify: {evidence.problems[0]}"
    if evidence.num_rows != reference.num_rows:
        return f"{evidence.num_rows} rows are accounted for, wanted {reference.num_rows}"
    return None


def _judge_bytes(evidence: Evidence, reference: Reference) -> str | None:
    found = published_in(evidence.objects)
    for name in sorted({*found, *reference.published}):
        if name not in found:
            return f"{name} is missing"
        if name not in reference.published:
            return f"{name} is not of an undisturbed run"
        if found[name] != reference.published[name]:
            return f"{name} has other bytes"
    return None


def _judge_resume(evidence: Evidence) -> str | None:
    hurt = evidence.num_before
    if evidence.objects_after is None:
        again = [str(end) for end in evidence.ends[hurt + 1 :]]
        return f"no run completed; without a fault: {', then '.join(again)}"
    last = evidence.ends[-1]
    if (last.exit, last.signal, last.state) != (0, 0, "already complete"):
        return f"one more run of the finished job: {last}, wanted exit 0 (already complete)"
    before, after = evidence.objects, evidence.objects_after
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            return f"one more run of the finished job changed {name}"
    return None


def _judge_commits(evidence: Evidence) -> Iterator[str]:
    """Look at every write and every read of every run, and at what stands in the end."""
    calls = [call for run in evidence.calls for call in run]
    final = evidence.objects_after if evidence.objects_after is not None else evidence.objects
    yield from _twice_created(calls, final)
    seen: dict[str, set[str]] = {}
    torn = {(call.name, call.sha256) for call in calls if call.end == "torn"}
    for call in calls:
        is_seen = call.sha256 and (call.operation in WRITES or call.operation == "read")
        # A creation that was refused wrote nothing.
        if is_seen and call.told is not False and (call.name, call.sha256) not in torn:
            seen.setdefault(call.name, set()).add(call.sha256)
        if call.operation == "delete" and call.end in _TOOK_EFFECT and _is_final(call.name):
            yield f"{call.name} was deleted"
    for name, sha256s in seen.items():
        if _is_final(name) and len(sha256s | {final.get(name, "")}) > 1:
            yield f"{name} did not keep its bytes"
    for name in evidence.unsealed:
        yield f"{name} is gone, a commit record names it"


def _twice_created(calls: Sequence[Call], final: Mapping[str, str]) -> Iterator[str]:
    """Names that more than one creator won. Whether a lost reply was a win, the content tells."""
    winners: dict[str, list[str]] = {}
    for call in calls:
        if call.operation == "delete" and call.end in _TOOK_EFFECT:
            winners.pop(call.name, None)
        if call.operation != "create_once" or not call.told:
            continue
        winners.setdefault(call.name, []).append(call.sha256)
    for name, contents in winners.items():
        if len(contents) > 1:
            yield f"{name} was created {len(contents)} times"
        elif final.get(name) != contents[0]:
            yield f"{name} is not what its one creator wrote"


def _judge_exits(evidence: Evidence, fault: Fault | None) -> str | None:
    hurt = evidence.num_before
    is_complete = False
    for index, (end, calls) in enumerate(zip(evidence.ends, evidence.calls, strict=True)):
        is_complete = is_complete or any(
            call.name == SUCCESS and call.operation in WRITES and call.end in _TOOK_EFFECT
            for call in calls
        )
        is_killed = index < hurt or (index == hurt and fault in KILLS_DRIVER)
        if end.signal:
            if not is_killed or end.signal != SIGKILL:
                return f"run {index + 1} was {end}"
            continue
        if is_killed:
            return f"run {index + 1} should have been killed: {end}"
        true_exits = _TRUE_EXITS.get(fault, (0,)) if index == hurt and fault else (0,)
        if end.exit not in true_exits:
            return (
                f"run {index + 1} ended with {end}, wanted exit {' or '.join(map(str, true_exits))}"
            )
        if end.exit == 0 and not is_complete:
            return f"run {index + 1} ended with exit 0, and there was no {SUCCESS} yet"
    return None


def _is_final(name: str) -> bool:
    """Whether an object's bytes must never change once they were seen."""
    is_record = name.startswith(f"{COMMITS_FOLDER}/")
    return is_record or name in (MANIFEST, SUCCESS) or read_shard_file_name(name) is not None
