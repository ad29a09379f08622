"""The manifest: what an output holds, and ``_SUCCESS``, which says that it is all there.

Promises: the bytes depend on the plan and the outcomes alone, never on who ran them, when, or
where the output lies; written after every part; ``_SUCCESS`` after the manifest. Both are read
back as frozen values. Memory does not grow with the number of rows, shards or inputs when writing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import VerifyFailed
from rdu_batch.job.plan import InputFile, Plan
from rdu_batch.job.run_paths import MANIFEST, SUCCESS
from rdu_batch.runner.commits import CommitRecord, SealedFile, published_names, read_commits
from rdu_batch.runner.identity import JobIdentity
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.sealing import LineSpool
from rdu_batch.storage.store import Store

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Success:
    """What ``_SUCCESS`` holds."""

    job_digest: str
    manifest_sha256: str

    def to_bytes(self) -> bytes:
        """One JSON object and a newline."""
        return json.dumps({"version": FORMAT_VERSION, **vars(self)}).encode() + b"\n"


def write_manifest(
    store: Store,
    plan: Plan,
    identity: JobIdentity,
    *,
    confirm: Callable[[], None] = lambda: None,
) -> Totals:
    """Write ``manifest.json`` from the plan and all commit records, then ``_SUCCESS``.

    ``confirm`` is called before each of the two; what it raises ends the writing.
    """
    totals = Totals()
    for record in read_commits(store, list(range(plan.num_shards))):
        totals.add(record.totals)
    with tempfile.TemporaryDirectory(prefix="rdu-batch-manifest-") as folder:
        spool = LineSpool(Path(folder, "manifest"))
        with spool:
            for line in _manifest_lines(store, plan, identity, totals):
                spool.write(line)
        confirm()
        store.put_file(MANIFEST, str(spool.path))
    confirm()
    store.put_whole(SUCCESS, Success(identity.job_digest, spool.sha256).to_bytes())
    return totals


def read_success(store: Store) -> Success | None:
    """What ``_SUCCESS`` says; None if there is none, or only the beginning of one.

    Raises:
        VerifyFailed: it is there, but damaged or of another version.
    """
    if not store.exists(SUCCESS):
        return None
    content = store.read(SUCCESS)
    if not content.endswith(b"\n"):
        # A write that was cut short: the run did not get to its end, and the next one will.
        return None
    document = _parse(content, store.join(SUCCESS))
    try:
        return Success(str(document["job_digest"]), str(document["manifest_sha256"]))
    except KeyError as error:
        raise VerifyFailed(
            f"{store.join(SUCCESS)} is damaged: it has no {error}. "
            "Delete it and run the job again: it is written anew from _run/."
        ) from error


def read_manifest(store: Store) -> tuple[dict[str, Any], str]:
    """The manifest as a JSON object, and the sha256 of its bytes.

    Raises:
        ObjectMissing: there is none.
        VerifyFailed: it is damaged or of another version.
    """
    content = store.read(MANIFEST)
    return _parse(content, store.join(MANIFEST)), hashlib.sha256(content).hexdigest()


def _parse(content: bytes, url: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
        version = document["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise VerifyFailed(f"{url} is damaged: it is not the JSON object written there") from error
    if version != FORMAT_VERSION:
        raise VerifyFailed(
            f"{url} has format version {version!r}, this program reads {FORMAT_VERSION}; "
            "use the version of the program that wrote it"
        )
    return dict(document)


def _manifest_lines(
    store: Store, plan: Plan, identity: JobIdentity, totals: Totals
) -> Iterator[bytes]:
    """The manifest as JSON, one shard or input a line, so that tools and people can stream it."""
    head = {
        "version": FORMAT_VERSION,
        "job_digest": identity.job_digest,
        "model_digest": identity.model_digest,
        "artifact_digest": identity.artifact_digest,
        "prompt_digest": identity.prompt_digest,
        "rows_per_shard": plan.rows_per_shard,
        **({"parent": plan.parent.to_json()} if plan.parent else {}),
        "totals": totals.to_json(),
    }
    yield json.dumps(head)[:-1].encode() + b',\n"parts": [\n'
    records = read_commits(store, list(range(plan.num_shards)))
    yield from _joined(_part_entry(record, plan) for record in records)
    yield b'],\n"inputs": [\n'
    yield from _joined(_input_entry(file) for file in RowReader(store, plan).input_files())
    yield b"]}\n"


def _joined(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    separator = b""
    for entry in entries:
        yield separator + json.dumps(entry, ensure_ascii=False).encode()
        separator = b",\n"
    yield b"\n"


def _part_entry(record: CommitRecord, plan: Plan) -> dict[str, Any]:
    entries = {
        name: _file_entry(sealed_file, name) for sealed_file, name in published_names(record, plan)
    }
    part, *dead = entries.values()
    return {"shard": record.shard, **part, "dead": dead[0] if dead else None}


def _file_entry(sealed_file: SealedFile, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "rows": sealed_file.num_rows,
        "bytes": sealed_file.num_bytes,
        "sha256": sealed_file.sha256,
    }


def _input_entry(file: InputFile) -> dict[str, Any]:
    return {
        "index": file.index,
        "path": file.path,
        "bytes": file.size_bytes,
        "lines": file.num_lines,
        "rows": file.num_rows,
        "etag": file.etag,
        "windows_sha256": file.windows_sha256,
    }
