"""Which tiles of this node's RDUs a session process may use, where the operator lists them.

A PEF takes a few tiles of one RDU; a node has many. Slurm or SambaFlow may choose them; where
neither does, ``RDU_BATCH_TILE_MASKS`` says which sets there are, one for each session that the node
can hold: ``0xf0000000 0x0f000000``. Each is a bit mask as ``SF_RNT_TILE_AFFINITY`` wants it.

Promises: no two living processes of one user on one node hold the same mask; a process keeps its
mask to its end, and the kernel takes it back, however the process ends; without the variable, or
where ``SF_RNT_TILE_AFFINITY`` is set already, nothing is done. Does not: know which tiles there
are, or how many a PEF needs; see other users' processes; know whether a runtime obeys
(public material shows the variable with SambaFlow alone).
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import time
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import ArtifactError, SessionBroken, UsageError
from rdu_batch.sessions.artifact_cache import cache_root

if TYPE_CHECKING:
    from pathlib import Path

#: The operator's: the masks of this node, with blanks or commas between.
MASKS_VARIABLE: Final = "RDU_BATCH_TILE_MASKS"
#: The runtime's: the tiles that a process may use.
AFFINITY_VARIABLE: Final = "SF_RNT_TILE_AFFINITY"
#: How long a mask is waited for: a worker that replaces another may start before that one's session
#: has given its device back.
WAIT_S: Final = 5.0
#: How often it is looked whether one is free.
_LOOK_S: Final = 0.1


def lease_tiles(*, wait_s: float = WAIT_S) -> None:
    """Take the first free mask for this process; to be called before the runtime is imported.

    Args:
        wait_s: how long to wait for one.

    Raises:
        UsageError: the variable does not hold masks, or two of them share a tile. Ends the job
            (exit 2).
        ArtifactError: the folder of locks cannot be used. Ends the job (exit 8).
        SessionBroken: living processes hold all of them. Ends the worker.
    """
    told = os.environ.get(MASKS_VARIABLE, "")
    masks = re.split(r"[\s,]+", told.strip(" \t\n,")) if told.strip(" \t\n,") else []
    if not masks or os.environ.get(AFFINITY_VARIABLE):
        return
    _check_masks(masks)
    folder = _lock_folder()
    latest_s = time.monotonic() + wait_s
    while (mask := _first_free(folder, masks)) is None:
        if time.monotonic() >= latest_s:
            raise SessionBroken(
                f"living processes on {platform.node()} hold all {len(masks)} tile masks of "
                f"{MASKS_VARIABLE} ({' '.join(masks)}); so many sessions can run on this node at "
                "once: let each worker reserve one (workers.resources: {RDU: 1}) and start Ray "
                f"here with `ray start --resources='{{\"RDU\": {len(masks)}}}'`, or end what else "
                f"holds them (locks in {folder})"
            )
        time.sleep(_LOOK_S)
    os.environ[AFFINITY_VARIABLE] = mask


def _check_masks(masks: list[str]) -> None:
    """Refuse what is no mask, and masks that are not apart."""
    taken = 0
    for mask in masks:
        tiles = int(mask, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]+", mask) else 0
        if not tiles or tiles & taken:
            why = "shares tiles with one before it" if tiles else "is no mask of tiles"
            raise UsageError(
                f"{MASKS_VARIABLE} on {platform.node()}: {mask!r} {why}, in {' '.join(masks)!r}; "
                "wanted hexadecimal numbers with no bit in common, one for each session that the "
                "node can hold, such as '0xf0000000 0x0f000000'"
            )
        taken |= tiles


def _lock_folder() -> Path:
    """Where this node's locks lie; by its name, as a home folder may be that of many nodes."""
    folder = cache_root() / "tiles" / platform.node()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _first_free(folder: Path, masks: list[str]) -> str | None:
    """The first mask that nobody held; None if somebody holds each."""
    return next((mask for mask in masks if _take(folder / f"{int(mask, 16):#x}")), None)


def _take(path: Path) -> bool:
    """Lock a file for as long as this process lives: its descriptor is never closed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError as error:
        os.close(descriptor)
        raise _unusable(path, error) from error
    return True


def _unusable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{path}: cannot lock the tiles of this node there: {error}; set RDU_BATCH_CACHE to a "
        f"folder of this node that this user can write to, or unset {MASKS_VARIABLE}"
    )
