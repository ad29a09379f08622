"""What a cluster needs of a job and lies on the submitter's machine: job file and local inputs.

Local inputs go to the output's own store, under the digest of their content: each node can read
them there, and so can a later submission that goes on, on another cluster too. The job file goes
with the submission, filled in: no date, no override is left to be given again. Secrets are in
neither: a job file refers to them by ``${ENV:NAME}``, and is shipped with the reference.

The job is known by the inputs that its file names: ``run``, ``plan`` and ``retry-dead`` of the same
file find the same job.

Does not: ship an artifact, or an output to resume from: those lie in a store, or at the same
absolute path on every node. An input on every node is named as ``file:///path``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from rdu_batch.dataset.listing import ListedFile, list_inputs
from rdu_batch.errors import InputError, UsageError
from rdu_batch.job.run_paths import PLAN, SHIPPED_INPUTS_FOLDER
from rdu_batch.job.spec import JobSpec
from rdu_batch.runner.job_context import with_absolute_urls
from rdu_batch.runner.manifest import read_success
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.store import Store, open_store
from rdu_batch.storage.urls import split_pattern

#: More is not copied without a word: it belongs into a store.
MAX_SHIPPED_BYTES: Final = 1 << 30
_WILD: Final = frozenset("*?[")


@dataclass(frozen=True)
class Shipment:
    """A job as the cluster gets it, and what must be copied before it does."""

    spec: JobSpec
    #: The same, with its inputs where its file says.
    written: JobSpec
    #: By the URL of a local input: its files, and the name of its folder of copies.
    inputs: Mapping[str, tuple[list[ListedFile], str]]

    @property
    def copies(self) -> str:
        """Which content the copies have; empty where there are none."""
        return " ".join(sorted(Path(folder).name for _, folder in self.inputs.values()))

    def copy(self) -> None:
        """Copy the local inputs beside the output; what is there already is left.

        Raises:
            StoreError: the store failed. Ends the submission.
        """
        if not self.inputs:
            return
        store = open_store(self.spec.output.url)
        for files, folder in self.inputs.values():
            there = {name for name, _ in store.list_objects(folder, recursive=True)}
            for file in files:
                # The content decides the folder: what is there whole is what would be written.
                if f"{folder}/{file.name}" not in there:
                    store.put_file(f"{folder}/{file.name}", str(Path(file.folder) / file.name))


def shipment_of(spec: JobSpec) -> Shipment:
    """The job as the cluster gets it; nothing is copied yet.

    Of an output that is finished no input is looked for: nothing is left to read.

    Raises:
        InputError: an input means no file, or changed since the job began. Ends the submission.
        UsageError: more than ``MAX_SHIPPED_BYTES`` are local, or the store's options of inputs and
            output differ where both kinds of inputs are used. Ends the submission.
        StoreError: the store failed. Ends the submission.
    """
    spec = with_absolute_urls(spec)
    if spec.input.since is not None and is_local(spec.input.since):
        since = open_store(spec.input.since).url
        spec = spec.model_copy(update={"input": spec.input.model_copy(update={"since": since})})
    local = [url for url in spec.input.urls if is_local(url)]
    store = open_store(spec.output.url)
    if not local or read_success(store) is not None:
        return Shipment(spec, spec, {})
    options = _options_of_shipped(spec, all_local=len(local) == len(spec.input.urls))
    listed = {url: list_inputs([url]) for url in local}
    _check_size(listed)
    copies = {url: (files, _folder_of(files)) for url, files in listed.items()}
    _check_unchanged(store, copies)
    urls = [_copied(store, url, *copies[url]) if url in copies else url for url in spec.input.urls]
    update = {"urls": tuple(urls), "copied_from": spec.input.urls, "storage_options": options}
    shipped = spec.model_copy(update={"input": spec.input.model_copy(update=update)})
    use_storage_options(shipped)
    return Shipment(shipped, spec, copies)


def _check_unchanged(store: Store, copies: Mapping[str, tuple[list[ListedFile], str]]) -> None:
    """Refuse other content than that which a submission before has shipped for this output."""
    there = {
        name.removeprefix(f"{SHIPPED_INPUTS_FOLDER}/").partition("/")[0]
        for name, _ in store.list_objects(SHIPPED_INPUTS_FOLDER, recursive=True)
    }
    changed = [url for url, (_, folder) in copies.items() if Path(folder).name not in there]
    if there and changed and store.exists(PLAN):
        raise InputError(
            f"{', '.join(changed)}: changed since this job was first submitted to {store.url}: "
            "there is other content, or there are other files, and what was submitted is pinned. "
            "Put back what was there, or submit what is there now to an output of its own "
            "(--set output.url=NEW); `run` goes on with the copies of then"
        )


def is_local(url: str) -> bool:
    """Whether a URL is a path of this machine alone: one without a protocol."""
    return "://" not in url


def job_file_text(spec: JobSpec) -> str:
    """A job file that says all of this spec, for the driver on the cluster."""
    document = spec.model_dump(mode="json")
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)


def job_file_digest(spec: JobSpec) -> str:
    """16 hex digits of everything that a job file says: another file has others."""
    return hashlib.sha256(job_file_text(spec).encode()).hexdigest()[:16]


def _options_of_shipped(spec: JobSpec, *, all_local: bool) -> dict[str, object]:
    if all_local or spec.input.storage_options == spec.output.storage_options:
        return dict(spec.output.storage_options)
    raise UsageError(
        "input.urls names local files, which are copied beside the output, and files of a store "
        "with input.storage_options that are not those of the output; copy the local files into "
        "that store and name them there"
    )


def _check_size(listed: dict[str, list[ListedFile]]) -> None:
    num_bytes = sum(file.size_bytes for files in listed.values() for file in files)
    if num_bytes > MAX_SHIPPED_BYTES:
        raise UsageError(
            f"{', '.join(listed)}: {num_bytes:,} bytes of local inputs; up to "
            f"{MAX_SHIPPED_BYTES:,} are copied for a submission. Put them into a store, or name "
            "them as file:///path if every node of the cluster has them at that path"
        )


def _folder_of(files: list[ListedFile]) -> str:
    """Where the copies of an input lie in the output: the content decides it."""
    digests = {file.name: _sha256(Path(file.folder) / file.name) for file in files}
    digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    return f"{SHIPPED_INPUTS_FOLDER}/{digest}"


def _copied(store: Store, url: str, files: list[ListedFile], folder: str) -> str:
    """The URL that means the copies of one input."""
    if len(files) == 1 and not url.endswith("/") and not _WILD & set(url):
        return store.join(f"{folder}/{files[0].name}")
    pattern = split_pattern(url)[1] if _WILD & set(url) else ""
    return f"{store.join(folder)}/{pattern}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
