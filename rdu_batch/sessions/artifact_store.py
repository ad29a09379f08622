"""Artifacts in stores and on this node: read, fetch, check, publish. No torch in here.

Promises: nothing of an artifact is handed out before its sha256 matches; a folder that holds a
whole artifact is never written to. Does not: know what the files mean (``compile.py`` makes them,
``registry.py`` loads them).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rdu_batch.errors import ArtifactError, CreateOnceUnsupported, ObjectMissing, StoreError
from rdu_batch.sessions.artifact import ARTIFACT_FILE, Artifact, ArtifactFile, LocalArtifact
from rdu_batch.sessions.artifact_cache import keep_in_cache

if TYPE_CHECKING:
    from rdu_batch.storage.store import Store

_PART_BYTES = 8 << 20


def read_artifact(url: str, *, needs_weights: bool = True) -> Artifact:
    """Read only ``artifact.json`` of the folder ``url``.

    Args:
        url: the artifact's folder.
        needs_weights: refuse one that was compiled without weights, as whatever runs it must.

    Raises:
        ArtifactError: there is none, it cannot be read, or it has no weights. Ends the job (exit
            8).
    """
    found = artifact_at(url)
    if found is None:
        raise ArtifactError(
            f"{url}: no {ARTIFACT_FILE} here; make one with `rdu-batch compile MODEL --out "
            "FOLDER --max_seq_length N`, or correct the URL"
        )
    if needs_weights and not found.has_weights:
        raise ArtifactError(
            f"{url}: this artifact was compiled from a config alone and has no weights, and none "
            "are made up; bring them with `rdu-batch run --inference --pef PATH --checkpoint_name "
            "FILE`, or compile it with --checkpoint_name"
        )
    return found


def artifact_at(url: str) -> Artifact | None:
    """The artifact at ``url``, None if there is no ``artifact.json``.

    Raises:
        ArtifactError: there is one, but it cannot be read.
    """
    from rdu_batch.storage.store import open_store

    try:
        content = open_store(url).read(ARTIFACT_FILE)
    except ObjectMissing:
        return None
    except StoreError as error:
        raise ArtifactError(f"{url}: the artifact cannot be read: {error}") from error
    return Artifact.from_bytes(content, url=url)


def fetch_artifact(url: str, *, needs_weights: bool = True) -> LocalArtifact:
    """Bring an artifact to this node and check every file.

    A local folder is used where it is. Anything else is fetched once into the node's private cache
    ($RDU_BATCH_CACHE, or ~/.cache/rdu_batch), under a lock, so sessions that start together wait
    for one download. A damaged copy in the cache is fetched again.

    Raises:
        ArtifactError: missing, without the weights it needs (see ``read_artifact``), a file does
            not match its sha256, or the cache cannot be used. Ends the job (exit 8).
    """
    from rdu_batch.storage.store import open_store

    artifact = read_artifact(url, needs_weights=needs_weights)
    local_folder = _local_folder(url)
    if local_folder is not None:
        local = LocalArtifact(local_folder, artifact)
        verify_artifact(local)
        return local
    folder = keep_in_cache(
        artifact.digest.removeprefix("sha256:"),
        is_whole=lambda folder: is_whole(LocalArtifact(folder, artifact)),
        fill=lambda folder: _download(open_store(url), LocalArtifact(folder, artifact)),
    )
    return LocalArtifact(folder, artifact)


def folder_of_pef(pef: str) -> str:
    """URL of the artifact that a ``--pef`` means: the artifact's folder, or the PEF in it.

    Raises:
        ArtifactError: it is a file, but not the PEF of the artifact around it. Ends the job (exit
            8).
    """
    from rdu_batch.storage.store import open_object

    try:
        store, name = open_object(pef)
        if not name.endswith(".pef") or not store.exists(name):
            return pef
    except StoreError as error:
        raise ArtifactError(f"{pef}: cannot be looked at: {error}") from error
    artifact = read_artifact(store.url, needs_weights=False)
    if name not in artifact.files:
        raise ArtifactError(
            f"{pef}: the artifact around it does not list this file; name the PEF that "
            "`rdu-batch compile` made, or the artifact's folder"
        )
    return store.url


def verify_artifact(local: LocalArtifact) -> None:
    """Check size and sha256 of every file the artifact lists.

    Raises:
        ArtifactError: names the first file that is missing or differs.
    """
    for name, wanted in local.artifact.files.items():
        path = local.folder / name
        if not path.is_file():
            raise ArtifactError(f"{local.artifact.url}: {name} is missing; compile the model again")
        found = file_entry(path)
        if found != wanted:
            raise ArtifactError(
                f"{local.artifact.url}: {name} is damaged: found {found.size_bytes} bytes, sha256 "
                f"{found.sha256[:16]}..., wanted {wanted.size_bytes} bytes, "
                f"{wanted.sha256[:16]}...; nothing of it was loaded; compile the model again"
            )


def is_whole(local: LocalArtifact) -> bool:
    """Whether every file the artifact lists is there as it was written."""
    try:
        verify_artifact(local)
    except ArtifactError:
        return False
    return True


def damage_of(artifact: Artifact) -> str | None:
    """What is wrong with the files at ``artifact.url``, None if nothing is.

    A local folder is read whole; elsewhere only existence and sizes are compared.

    Raises:
        StoreError: the store does not answer.
    """
    from rdu_batch.storage.store import open_store

    folder = _local_folder(artifact.url)
    if folder is not None:
        try:
            verify_artifact(LocalArtifact(folder, artifact))
        except ArtifactError as error:
            return str(error)
        return None
    store = open_store(artifact.url)
    for name, wanted in artifact.files.items():
        try:
            size_bytes = store.stat(name).size_bytes
        except ObjectMissing:
            return f"{artifact.url}: {name} is missing"
        if size_bytes != wanted.size_bytes:
            return f"{artifact.url}: {name} has {size_bytes} bytes, wanted {wanted.size_bytes}"
    return None


def file_entry(path: Path) -> ArtifactFile:
    """Size and sha256 of a local file, read in bounded memory."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return ArtifactFile(path.stat().st_size, sha256)


def folder_entries(folder: Path) -> dict[str, ArtifactFile]:
    """Entries of every file below ``folder`` except ``artifact.json``, by relative name."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    return {name: file_entry(folder / name) for name in names if name != ARTIFACT_FILE}


def publish_artifact(artifact: Artifact, folder: Path, url: str) -> Artifact:
    """Write an artifact's files from ``folder`` to ``url``, ``artifact.json`` last.

    So a folder with an ``artifact.json`` is complete, and one without is not an artifact. A whole
    artifact of the same settings that lies there by now is given back, and nothing is written.

    Raises:
        ArtifactError: another artifact lies there, or another process wrote one meanwhile.
        StoreError: a write failed; ``url`` then holds no artifact.
    """
    from rdu_batch.storage.store import open_store

    store = open_store(url)
    there = artifact_at(url)
    if there is not None:
        check_same_settings(there, artifact)
        if damage_of(there) is None:
            return there
        store.delete(ARTIFACT_FILE)
    for name in artifact.files:
        store.put_file(name, str(folder / name))
    content = artifact.to_bytes()
    if not _created(store, content) and store.read(ARTIFACT_FILE) != content:
        # It describes files that were overwritten here: better no artifact than a mixed one.
        store.delete(ARTIFACT_FILE)
        raise ArtifactError(
            f"{url}: another process wrote an artifact here at the same time, and their files are "
            "mixed; its artifact.json was removed; compile the model again, once"
        )
    return Artifact.from_bytes(content, url=url)


def check_same_settings(there: Artifact, wanted: Artifact) -> None:
    """Refuse to replace an artifact of other settings.

    Raises:
        ArtifactError: says what lies there.
    """
    if there.settings_digest != wanted.settings_digest:
        raise ArtifactError(
            f"{there.url} holds another artifact ({there.kind}, {there.dtype}, max_seq_length "
            f"{there.max_seq_length}, model {there.model_digest[:15]}...); runs may be using it; "
            "choose another --out, or delete that folder"
        )


def _created(store: Store, content: bytes) -> bool:
    try:
        return store.create_once(ARTIFACT_FILE, content)
    except CreateOnceUnsupported:
        store.put_whole(ARTIFACT_FILE, content)
        return True


def _local_folder(url: str) -> Path | None:
    if "://" not in url:
        return Path(url).expanduser().absolute()
    split = urlsplit(url)
    if split.scheme in ("file", "local"):
        return Path(unquote(split.netloc + split.path)).absolute()
    return None


def _download(store: Store, local: LocalArtifact) -> None:
    """Fetch every file into an empty folder, and check it."""
    try:
        for name, entry in local.artifact.files.items():
            path = local.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                for start in range(0, entry.size_bytes, _PART_BYTES):
                    end = min(start + _PART_BYTES, entry.size_bytes)
                    stream.write(store.read_range(name, start, end))
        verify_artifact(local)
    except ObjectMissing as error:
        raise ArtifactError(
            f"{local.artifact.url}: incomplete: {error}; compile the model again"
        ) from error
    except StoreError as error:
        raise ArtifactError(f"{local.artifact.url}: cannot be fetched: {error}") from error
