"""This node's private cache of artifacts: folders that are filled once. No torch in here.

Promises: whoever starts together waits for one filling; a folder is there whole or not at all; what
a killed process left is removed by the next one. Does not: know what the folders hold.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def cache_root() -> Path:
    """This user's folder for what a node keeps: $RDU_BATCH_CACHE, or ~/.cache/rdu_batch."""
    chosen = os.environ.get("RDU_BATCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "rdu_batch"


def keep_in_cache(
    name: str, *, is_whole: Callable[[Path], bool], fill: Callable[[Path], None]
) -> Path:
    """The cache's folder ``name``, filled if it is not there, or damaged.

    The cache is ``artifacts`` under ``cache_root()``.

    Args:
        name: says what the folder holds: two contents have two names.
        is_whole: judges a folder that is there.
        fill: writes everything into an empty folder, which is renamed afterwards.

    Raises:
        ArtifactError: the cache cannot be used. Ends the job (exit 8).
    """
    cache = cache_root() / "artifacts"
    folder = cache / name
    try:
        _make_private(cache)
        with _locked(cache / f"{name}.lock"):
            if not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _fill_beside(folder, fill)
    except OSError as error:
        raise ArtifactError(
            f"{cache}: cannot keep artifacts there: {error}; set RDU_BATCH_CACHE to a folder that "
            "this user can write to, with room for the artifact"
        ) from error
    return folder


def _fill_beside(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder beside the final one, then rename it: readers see all or nothing.

    Called under the folder's lock: what begins like the half-done one was left by a killed process.
    """
    prefix = f".fetch-{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    half_done = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        fill(half_done)
        half_done.rename(folder)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)


def _make_private(cache: Path) -> None:
    """Make the cache; native code is loaded from it, so nobody else may be able to write to it."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = cache.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ArtifactError(
            f"{cache}: owned by user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; native "
            f"code is kept there, so it must be owned by user {os.geteuid()} and not writable by "
            "others; correct that (chmod go-w), or set RDU_BATCH_CACHE to another folder"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel drops it when the process dies."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
