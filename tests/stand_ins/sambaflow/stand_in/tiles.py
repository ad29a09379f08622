"""The tiles of a host: each belongs to one process, until that process ends [ALCF: sntilestat]."""

from __future__ import annotations

import fcntl
from typing import IO

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.settings import tile_table


def reserve_tiles(num_tiles: int) -> list[IO[bytes]]:
    """Take tiles for this process; the kernel gives them back when it ends, however it ends.

    Returns:
        The open lock files: closing them frees the tiles. Empty without a tile table.

    Raises:
        ContractError: Fewer tiles are free than the PEF needs.
    """
    table = tile_table()
    if table is None:
        return []
    table.folder.mkdir(parents=True, exist_ok=True)
    taken: list[IO[bytes]] = []
    for index in range(table.count):
        file = (table.folder / f"TILE_{index}").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        taken.append(file)
        if len(taken) == num_tiles:
            return taken
    for file in taken:
        file.close()
    raise ContractError(
        Contract.TILES,
        f"{len(taken)} of {table.count} tiles are free",
        f"{num_tiles} tiles for this PEF; end the process that holds them",
    )
